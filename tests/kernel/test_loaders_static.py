# SPDX-License-Identifier: Apache-2.0
"""Output of `make loaders` for seven architectures: static programs that run, and reproducible bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import platform as host
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import TOP
from labs.emulation import emulator_of
from labs.mirror import Mirror, forget_keys, make_keys, serve
from labs.readelf import read_elf

from buildtool.cli import main
from buildtool.core.cache import Cache
from buildtool.core.errors import FileAccessError, PackageUnavailableError
from buildtool.core.platforms import PLATFORMS, Platform, host_platform
from buildtool.image.local.baseimage import carried_base
from buildtool.runtime import carried, provide
from buildtool.runtime.carried import find_base, find_loader, find_tini, libbpf_digest, read_libbpf_version
from buildtool.runtime.link import PartsRequest, make_parts

# The first test makes the loaders of seven architectures.
pytestmark = [pytest.mark.timeout(900), pytest.mark.architectures]

MAX_BYTES = {"amd64": 1_700_000, "arm64": 1_700_000}
# 64 KB pages and no instruction of two bytes: the same program is larger there.
MAX_BYTES_ELSEWHERE = 2_000_000
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("socket") int number(void *c) { return 1; }
char LICENSE[] SEC("license") = "GPL";
"""
CONFIG = '[project]\nname = "lab"\nversion = 1\nrelease = "1"\n[sign]\nkey = "keys/dev.pem"\n'


def test_loader_is_static_and_hardened(platform: Platform) -> None:
    """The loader needs no library and no ELF interpreter, has read-only relocations, and no page is W+X."""
    loader = find_loader(platform)
    segments = read_elf(loader.path, "-lW")
    assert "INTERP" not in segments
    assert "GNU_RELRO" in segments
    assert "RWE" not in segments
    assert "NEEDED" not in read_elf(loader.path, "-dW")
    kind = "DYN (" if platform.static_option == "-static-pie" else "EXEC ("
    assert kind in read_elf(loader.path, "-hW")
    assert len(loader.data) <= MAX_BYTES.get(platform.arch, MAX_BYTES_ELSEWHERE)
    assert loader.record["size"] == len(loader.data)


def test_recorded_places_of_the_base_exist(platform: Platform) -> None:
    """The recorded paths of loader and tini match the carried base layer."""
    read = carried_base(find_base(platform), "base", Cache(directory=None))
    assert read.places == {
        "/sbin/tini": "usr/sbin/tini",
        "/usr/bin/verify-and-load": "usr/bin/verify-and-load",
    }


def test_loader_and_tini_run(platform: Platform, qemu: Path) -> None:
    """Loader and tini print their versions on their own processor, the loader with its platform."""
    command = emulator_of(platform, qemu)
    for part, words in (
        (find_loader(platform), f"({platform.oci}, libbpf v1."),
        (find_tini(platform), "tini version"),
    ):
        done = subprocess.run([command, part.path, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, words in done.stdout) == (0, True), done.stdout + done.stderr


def test_loader_verifies_and_refuses(platform: Platform, qemu: Path, tmp_path: Path) -> None:
    """The loader accepts a signed object of its platform, and refuses it after one flipped bit."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}

    def buildtool(*arguments: str) -> None:
        argv = [sys.executable, "-m", "buildtool", *arguments]
        done = subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf/number.bpf.c").write_text(SOURCE)
    (tmp_path / "buildtool.toml").write_text(CONFIG)
    buildtool("keygen", "dev")
    buildtool("compile", "--arch", platform.arch, "--output", "objects")
    buildtool("sign", "objects/number.bpf.o")
    (tmp_path / "objects/.compile.json").unlink()
    (tmp_path / "trust").mkdir()
    (tmp_path / "keys/dev.pub").rename(tmp_path / "trust/dev.pub")
    argv = [emulator_of(platform, qemu), find_loader(platform).path, "--verify-only"]
    argv += ["--objects", tmp_path / "objects", "--trust", tmp_path / "trust"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"decision":"accepted"' in done.stderr.replace(" ", "")
    path = tmp_path / "objects/number.bpf.o"
    data = bytearray(path.read_bytes())
    data[64] ^= 1
    path.write_bytes(data)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, "digest-mismatch" in done.stderr) == (3, True), done.stderr


def test_base_layer_is_what_is_recorded(platform: Platform) -> None:
    """The layer unpacks to the recorded digest and has the files of a distroless base, none executable."""
    base = find_base(platform)
    data = gzip.decompress(base.data)
    assert hashlib.sha256(data).hexdigest() == base.record["diff_id"]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
    assert {"etc/ssl/certs/ca-certificates.crt", "etc/passwd", "usr/share/zoneinfo/UTC"} <= set(members)
    assert not [name for name, member in members.items() if member.isfile() and member.mode & 0o111]


def test_packages_are_recorded(platform: Platform) -> None:
    """The record of every part has its packages with version and digest; the loader's has its compiler."""
    parts = (find_loader(platform), find_tini(platform), find_base(platform))
    for part in parts:
        assert part.record["packages"]
        for package in part.record["packages"].values():
            assert package["version"]
            assert len(package["sha256"]) == 64
    assert parts[0].record["compiler"].startswith("clang 19.")
    assert {"libelf-dev", "libc6-dev", "libsodium-dev"} <= set(parts[0].record["packages"])
    assert "libbpf-dev" not in parts[0].record["packages"]
    libbpf = {"version": read_libbpf_version(), "sha256": libbpf_digest()}
    assert parts[0].record["vendored"] == {"libbpf": libbpf}


@pytest.fixture
def lacking(tmp_path: Path, carried_parts: Path) -> Iterator[Mirror]:
    """Yield a mirror of the downloaded packages without libbpf-dev of s390x and base-files of riscv64."""
    assert carried_parts.is_dir()
    keys = make_keys(tmp_path)
    with serve(tmp_path / "mirror", keys) as mirror:
        for arch in ("s390x", "arm64", "riscv64"):
            place = TOP / ".cache/loaders" / f"trixie-{arch}"
            debs = [mirror.add_file(file) for file in sorted(place.glob("[dl]*s/*.deb"))]
            mirror.publish(*debs, arch=arch)
            gone = {"s390x": "libbpf-dev", "riscv64": "base-files"}.get(arch)
            mirror.faults |= {deb.path: "missing" for deb in debs if deb.name == gone}
        yield mirror
    forget_keys(keys)


def test_a_missing_package_fails_only_its_architecture(lacking: Mirror, tmp_path: Path) -> None:
    """A missing package fails only its architecture; shared files come from another one's package."""
    told: list[str] = []
    request = PartsRequest(
        platforms=(PLATFORMS["s390x"], PLATFORMS["riscv64"]),
        data=tmp_path / "data",
        cache=tmp_path / "cache",
        mirror=lacking.uri,
        keyring=lacking.keys.keyring,
        report=told.append,
    )
    done = make_parts(request)
    assert done.made == (PLATFORMS["riscv64"],)
    (error,) = done.failed.values()
    assert isinstance(error, PackageUnavailableError)
    assert (error.architecture, error.packages) == ("s390x", ("libbpf-dev",))
    (made,) = done.made
    assert find_loader(made, request.data).data == find_loader(made).data
    shared = find_base(made, request.data).record["packages"]["base-files"]
    assert shared["architecture"] == "arm64"
    assert len([line for line in told if "use packages of arm64" in line]) == 1
    again = make_parts(request)
    assert (again.made, list(again.failed)) == ((), [PLATFORMS["s390x"]])
    with pytest.raises(FileAccessError, match="carries no loader for s390x"):
        find_loader(PLATFORMS["s390x"], request.data)


def test_a_second_run_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another directory, umask, time zone and locale give the same bytes."""
    platforms = (PLATFORMS["amd64"], PLATFORMS["s390x"])

    def make(name: str, umask: int) -> PartsRequest:
        request = PartsRequest(platforms=platforms, data=tmp_path / name, cache=TOP / ".cache/loaders")
        before = os.umask(umask)
        try:
            done = make_parts(request)
            for error in done.failed.values():
                raise error
            assert done.made == platforms
        finally:
            os.umask(before)
        return request

    make("first", 0o022)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "C")
    second = make("second", 0o077)
    for path in (tmp_path / "first").rglob("*"):
        again = second.data / path.relative_to(tmp_path / "first")
        if path.is_file():
            assert path.read_bytes() == again.read_bytes()
            assert path.stat().st_mode == again.stat().st_mode
    assert make_parts(second).made == ()  # an unchanged part is kept


def test_a_checkout_links_its_loader_at_the_first_build(
    carried_parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After `pip install .` the first build links the loader, with the bytes of `make loaders`."""
    here = host_platform(host.machine())
    assert here is not None
    wanted = find_loader(here, carried_parts).data
    for module in (carried, provide):
        monkeypatch.setattr(module, "data_directory", lambda: tmp_path / "none")
    monkeypatch.setenv("BUILDTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BUILDTOOL_LOADERS", raising=False)
    assert main.run(["init", str(tmp_path / "agent")]) == 0
    monkeypatch.chdir(tmp_path / "agent")
    assert main.run(["keygen", "release"]) == 0
    assert main.run(["build", "--engine", "local", "-o", "type=oci,dest=first.tar"]) == 0
    assert "link one from Debian's static libraries" in caplog.text
    caplog.clear()
    (made,) = (tmp_path / "cache").glob(f"parts-*/loaders/{here.arch}/verify-and-load")
    assert made.read_bytes() == wanted
    # Parts, their lock and the layer cache stay; packages and sysroot are removed.
    left = sorted(path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir())
    assert left == ["parts", provide.LOCK_NAME, "v1"]
    assert main.run(["build", "--engine", "local", "-o", "type=oci,dest=again.tar"]) == 0
    assert "link one" not in caplog.text
    assert Path("first.tar").read_bytes() == Path("again.tar").read_bytes()
    assert main.run(["rebuild", "--check", "again.tar"]) == 0
    assert "/usr/bin/verify-and-load  equal" in capsys.readouterr().out
