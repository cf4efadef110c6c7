# SPDX-License-Identifier: Apache-2.0
"""`build --engine local` on bases that are odd, damaged or made to do harm."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from labs.cli import BUILD, check_error, left
from labs.image import BASE, base_of_layers, directory, make_base, read_image

from buildtool.cli.main import run
from buildtool.core.platforms import PLATFORMS
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.write import gzip_layer, make_image_set, write_archive, write_directory

ARCHIVE = Path("agent-1.2.0.oci.tar")


def gz(entries: Sequence[TarEntry]) -> Any:
    """Return a base with the layer of *entries* alone."""
    return base_of_layers([gzip_layer(pack_tar(entries))], ["amd64"])


def raw_member(name: str, kind: bytes, target: str = "") -> bytes:
    """Return a layer with one member that our own writer would refuse."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (raw_member("../etc/passwd", tarfile.REGTYPE), "the path leads out of the image"),
        (raw_member("usr/../../x", tarfile.REGTYPE), "the path leads out of the image"),
        (raw_member("/etc/passwd", tarfile.REGTYPE), "the path leads out of the image"),
        (raw_member("dev/sda", tarfile.BLKTYPE), "/dev/sda: unsupported file type: device"),
        (raw_member("dev/null", tarfile.CHRTYPE), "/dev/null: unsupported file type: device"),
        (raw_member("run/pipe", tarfile.FIFOTYPE), "/run/pipe: unsupported file type: device"),
        (raw_member("x", tarfile.LNKTYPE, "../../etc/shadow"), "the path leads out of the image"),
        (raw_member("x", tarfile.LNKTYPE, "etc/shadow"), "a hard link to 'etc/shadow'"),
        (raw_member("sbin", tarfile.SYMTYPE, "sbin"), "loop of symbolic links"),
        (raw_member("sbin", tarfile.REGTYPE), "/sbin is not a directory"),
        (b"not a tar file at all" * 100, "a layer cannot be read"),
    ],
)
def test_tricks_in_a_base_are_refused(
    project: Path, capsys: pytest.CaptureFixture[str], layer: bytes, text: str
) -> None:
    """Paths that leave the root, devices and links to nowhere are errors, before anything is written."""
    write_archive(project / "base.tar", base_of_layers([gzip_layer(layer)]), "base", replace=True)
    assert run([*BUILD]) == 1
    check_error(capsys, text)
    assert left(project) == []


def test_absolute_link_stays_in_the_image(project: Path) -> None:
    """A symbolic link of the base to /usr/../../sbin is followed as in a container: to its own root."""
    entries = [TarEntry(path="sbin", kind=tarfile.SYMTYPE, target="/usr/../../../own"), directory("own")]
    write_archive(project / "base.tar", gz(entries), "base", replace=True)
    assert run([*BUILD]) == 0
    assert "own/tini" in read_image(ARCHIVE)["linux/amd64"][1]


def damage_layout(path: Path, how: str) -> None:
    """Damage the OCI layout in directory *path*."""
    largest = max((path / "blobs/sha256").iterdir(), key=lambda item: item.stat().st_size)
    index = path / "index.json"
    if how == "truncated":
        largest.write_bytes(largest.read_bytes()[:-7])
    elif how == "changed":
        largest.write_bytes(largest.read_bytes()[:-1] + b"?")
    elif how == "longer":
        largest.write_bytes(largest.read_bytes() + b"?")
    elif how == "missing":
        largest.unlink()
    elif how == "link":
        largest.rename(path / "elsewhere")
        largest.symlink_to("/dev/zero")
    elif how == "index":
        index.write_text("{" * 100_000)
    elif how == "digest":
        index.write_text(index.read_text().replace("sha256:", "sha256:../../../x"))
    else:
        index.write_text(json.dumps({"manifests": json.loads(index.read_text())["manifests"] * 2 + [{}]}))


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("truncated", "is truncated"),
        ("changed", "has other contents"),
        ("longer", "is longer than its descriptor says"),
        ("missing", "cannot read: no such file"),
        ("link", "not a regular file"),
        ("index", "not an OCI layout"),
        ("digest", "not an OCI layout"),
        ("entries", "not an OCI layout"),
    ],
)
def test_damaged_base_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str, text: str
) -> None:
    """Every blob is compared with its digest and size; links are not followed to devices."""
    write_directory(project / "base", make_base(BASE, ["amd64"]), "base")
    damage_layout(project / "base", how)
    monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", "oci-layout://base")
    assert run([*BUILD]) == 1
    check_error(capsys, text)
    assert left(project) == ["base"]


@pytest.mark.parametrize(
    "settings",
    [
        {"config": "text"},
        {"config": ["text"]},
        {"config": {"Labels": ["a=b"]}},
        {"config": {"Labels": {"a": 3}}},
        {"config": {"Env": "PATH=/"}},
        {"config": {"Cmd": {"a": "b"}}},
        {"config": {"OnBuild": 1}},
        {"config": {"User": 5}},
        {"config": {"Healthcheck": "true"}},
        {"history": 7},
        {"history": {"a": 1}},
    ],
)
def test_base_with_a_damaged_configuration_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any]
) -> None:
    """A blob with the right digest that is no configuration results in one error line, for `rebuild` too."""
    images = make_image_set([(PLATFORMS["amd64"], settings, [gzip_layer(pack_tar(BASE))])])
    write_archive(project / "base.tar", images, "base", replace=True)
    assert run([*BUILD]) == 1
    check_error(capsys, "base.tar: not an OCI image: ")
    assert left(project) == []
    assert run(["rebuild", "--check", "base.tar"]) == 1
    check_error(capsys, "base.tar: not an OCI image: ")


@pytest.mark.parametrize("size", [0, 700, 5000])
def test_cut_archive_is_refused(project: Path, capsys: pytest.CaptureFixture[str], size: int) -> None:
    """A base archive that a copy broke off."""
    path = project / "base.tar"
    path.write_bytes(path.read_bytes()[:size])
    assert run([*BUILD]) == 1
    check_error(capsys, "base.tar")
    assert left(project) == []


def test_digest_chooses_and_must_be_there(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base by digest is that one or none."""
    digest = make_base().top.digest
    monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", f"oci-layout://base.tar@sha256:{digest}")
    assert run([*BUILD]) == 0
    capsys.readouterr()
    monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", f"oci-layout://base.tar@sha256:{'0' * 64}")
    assert run([*BUILD]) == 1
    check_error(capsys, "no image sha256:000")
