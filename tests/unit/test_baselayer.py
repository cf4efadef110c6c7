# SPDX-License-Identifier: Apache-2.0
"""The base layer of packages: its own architecture's, or another's where the files are the same."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from pathlib import Path

import pytest
from labs.mirror import Files, make_deb

from buildtool.core.errors import ObjectFormatError
from buildtool.core.platforms import PLATFORMS
from buildtool.core.process import Runner
from buildtool.runtime.baselayer import base_layer
from buildtool.runtime.debian import read_packages

S390X = PLATFORMS["s390x"]
BASE: Files = {
    "usr/lib/os-release": b"ID=debian",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "usr/lib64/.keep": b"",
    "usr/share/base-files/motd": b"dropped",
}


@pytest.fixture(autouse=True)
def _tools() -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs-tool: dpkg-deb")


def layer_names(debs: Path) -> set[str]:
    """Return the names of what the layer for s390x has out of the packages in *debs*."""
    layer = base_layer(read_packages(debs, Runner()), S390X, Runner())
    assert layer.data is not None
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer.data))) as tar:
        return set(tar.getnames())


def test_own_package_is_taken_whole(tmp_path: Path) -> None:
    """Beside it another architecture's package does not count."""
    make_deb(tmp_path, "base-files", "1", "s390x", {**BASE, "etc/own": b""})
    make_deb(tmp_path, "base-files", "1", "arm64", {**BASE, "etc/foreign": b""})
    names = layer_names(tmp_path)
    assert {"etc/own", "usr/lib/os-release", "lib64", "usr/lib64/.keep"} <= names
    assert not {"etc/foreign", "usr/share/base-files/motd"} & names


def test_shared_content_of_another_architecture(tmp_path: Path) -> None:
    """Everything but the places of its C library is taken."""
    make_deb(tmp_path, "base-files", "1", "arm64", BASE)
    names = layer_names(tmp_path)
    assert {"usr/lib/os-release", "lib", "var/lib/dpkg/status.d/base-files"} <= names
    assert not {name for name in names if "lib64" in name}


def test_programs_of_another_architecture_are_refused(tmp_path: Path) -> None:
    """A package that got a program is no longer shared content."""
    make_deb(tmp_path, "base-files", "1", "arm64", {**BASE, "usr/lib/x.so": b"\x7fELF" + bytes(60)})
    with pytest.raises(ObjectFormatError, match=r"usr/lib/x\.so is a program for arm64"):
        layer_names(tmp_path)


def test_other_packages_of_another_architecture_are_left_out(tmp_path: Path) -> None:
    """Only what is known to be shared may come from elsewhere."""
    make_deb(tmp_path, "netbase", "1", "arm64", {"etc/protocols": b""})
    assert "etc/protocols" not in layer_names(tmp_path)
