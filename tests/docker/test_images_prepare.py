# SPDX-License-Identifier: Apache-2.0
"""Builder and base image in a real engine: their contents, and builds with them without a network."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildtool.cli.main import run
from buildtool.core.errors import EngineError, ToolFailedError
from buildtool.image.docker import prepare as images
from buildtool.image.docker.prepare import PreparedImages
from buildtool.runtime import debian

ROOT_ENTRIES = {
    "bin",
    "boot",
    "dev",
    "etc",
    "home",
    "lib",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "var",
}

# Links a static program for the requested platform without a network, as the loader's build does.
DOCKERFILE = """\
ARG BASE
FROM --platform=$BUILDPLATFORM buildtool.local/builder:trixie AS link
ARG TARGETARCH
RUN --network=none ["/bin/sh", "-c", "echo 'int main(void) { return 7; }' > m.c && \
case $TARGETARCH in amd64) t=x86_64;; arm64) t=aarch64;; esac && \
clang --target=$t-linux-gnu -fuse-ld=lld -static -o /m m.c && llvm-strip /m && \
python3 -c 'import click, cryptography, elftools'"]
FROM --platform=$BUILDPLATFORM buildtool.local/builder:trixie AS tini
ARG TARGETARCH
RUN --network=none cp /usr/lib/buildtool/tini/$TARGETARCH/tini-static /tini
FROM $BASE
COPY --from=tini /tini /sbin/tini
COPY --from=link /m /usr/bin/m
ENTRYPOINT ["/sbin/tini", "--", "/usr/bin/m"]
"""


def docker(*arguments: str | Path, stdin: str = "") -> str:
    """Run docker and return what it printed."""
    argv = ["docker", *map(str, arguments)]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(prepared_images: PreparedImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an OCI archive of both platforms with plain buildx, the base pinned by digest."""
    path = tmp_path_factory.mktemp("built") / "image.tar"
    base = f"BASE={prepared_images.base}@{prepared_images.base_digest}"
    platforms = ",".join(prepared_images.platforms)
    output = f"type=oci,dest={path}"
    options = ["--provenance=false", "--platform", platforms, "--build-arg", base, "--output", output]
    docker("buildx", "build", *options, "-", stdin=DOCKERFILE)
    return path


def read_base_members(prepared: PreparedImages, tmp_path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the members of every layer of the base, of all platforms."""
    docker("save", "-o", tmp_path / "base.tar", prepared.base)
    with tarfile.open(tmp_path / "base.tar") as archive:
        for member in archive:
            data = archive.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
            if data[:2] == b"\x1f\x8b":
                with tarfile.open(fileobj=io.BytesIO(data)) as layer:
                    yield from layer


def test_an_unchanged_recipe_is_not_made_again(
    prepared_images: PreparedImages, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run finds the same digests, and --json says that nothing was made."""
    assert run(["images", "prepare", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["made"] is False
    assert (told["builder_digest"], told["base_digest"]) == (
        prepared_images.builder_digest,
        prepared_images.base_digest,
    )


def test_a_changed_recipe_is_not_found(
    prepared_images: PreparedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of another recipe or without an architecture are not found."""
    assert images.find_prepared(architectures=["arm64"]) is not None
    assert images.find_prepared(architectures=["riscv64"]) is None
    monkeypatch.setattr(images, "RECIPE_VERSION", prepared_images.recipe)
    assert images.find_prepared() is None


def test_a_builder_with_other_packages_is_not_found(
    prepared_images: PreparedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A builder of an older buildtool, with another list of packages, is not found."""
    now = debian.BUILDER_PACKAGES
    before = tuple(name for name in now if name != "python3-pyelftools")
    assert len(before) == len(now) - 1
    monkeypatch.setattr(debian, "BUILDER_PACKAGES", before)
    assert images.find_prepared() is None
    monkeypatch.setattr(debian, "BUILDER_PACKAGES", now)
    found = images.find_prepared()
    assert found is not None
    assert found.recipe == prepared_images.recipe


def test_builds_use_both_images_without_a_network(built: Path) -> None:
    """One base reference serves every platform, and the builder links for each, without a network."""
    with tarfile.open(built) as archive:
        blobs = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    index = json.loads(blobs["index.json"])["manifests"][0]
    manifests = json.loads(blobs[f"blobs/{index['digest'].replace(':', '/')}"])["manifests"]
    machines = {}
    for manifest in manifests:
        layers = json.loads(blobs[f"blobs/{manifest['digest'].replace(':', '/')}"])["layers"]
        data = blobs[f"blobs/{layers[-1]['digest'].replace(':', '/')}"]
        with tarfile.open(fileobj=io.BytesIO(data)) as layer:
            program = layer.extractfile("usr/bin/m")
            assert program is not None
            machines[manifest["platform"]["architecture"]] = program.read()[18]
    assert machines == {"amd64": 62, "arm64": 183}


def test_the_image_runs(prepared_images: PreparedImages) -> None:
    """The builder's tini starts the program in the base."""
    arguments = ["--build-arg", f"BASE={prepared_images.base}", "--tag", "buildtool-test-images:run", "-"]
    docker("buildx", "build", *arguments, stdin=DOCKERFILE)
    try:
        argv = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            "--cap-drop",
            "ALL",
            "buildtool-test-images:run",
        ]
        assert subprocess.run(argv, capture_output=True, check=False).returncode == 7
    finally:
        docker("image", "rm", "--force", "buildtool-test-images:run")


def test_the_base_holds_data_only(prepared_images: PreparedImages, tmp_path: Path) -> None:
    """The base has no executable file (no shell, package manager or interpreter), and nothing set-user-id."""
    members = list(read_base_members(prepared_images, tmp_path))
    assert [m.name for m in members if m.isfile() and m.mode & 0o111] == []
    assert [m.name for m in members if m.mode & 0o6000] == []
    assert {m.name.partition("/")[0] for m in members} <= ROOT_ENTRIES | {
        "lib64",
        "media",
        "mnt",
        "opt",
        "srv",
    }
    names = {m.name: m for m in members}
    assert names["tmp"].mode == 0o1777
    assert (names["home/nonroot"].uid, names["home/nonroot"].mode) == (65532, 0o700)
    assert names["etc/ssl/certs/ca-certificates.crt"].size > 100_000
    assert names["usr/share/zoneinfo/Europe/Berlin"].isfile()
    assert names["sbin"].issym()


def test_the_base_is_small(prepared_images: PreparedImages) -> None:
    """The base leaves the runtime image room for loader, tini and objects below 3 MB."""
    size = int(docker("image", "inspect", "--format", "{{.Size}}", prepared_images.base))
    assert size < 700_000


def test_a_mirror_that_does_not_answer_leaves_nothing(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that does not answer is named; the old images stay and the temporary files are removed."""
    assert engine
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = images.find_prepared()
    with pytest.raises(ToolFailedError, match=r"no packages from http://127\.0\.0\.1:9/debian"):
        images.prepare_images(mirror="http://127.0.0.1:9/debian", force=True)
    assert images.find_prepared() == before
    assert list(tmp_path.iterdir()) == []


def test_missing_engine_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that does not answer is an error before any package is downloaded."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    with pytest.raises(EngineError, match=r"no Docker engine answers: .*: no such file or directory"):
        images.prepare_images(force=True)
