# SPDX-License-Identifier: Apache-2.0
"""The vendored sources of libbpf are those of the release, and all of them are listed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from labs import TOP

from buildtool.core.errors import FileAccessError
from buildtool.core.resources import resource_path
from buildtool.runtime.carried import libbpf_digest, loader_digest, read_libbpf_version

VENDORED = TOP / "loader/vendor/libbpf"
OWN = {"ORIGIN", "flags.txt", "sources.txt"}


def test_each_file_is_that_of_the_release() -> None:
    """ORIGIN lists each file with its digest, and no other file is there."""
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "ORIGIN"],
        cwd=VENDORED,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    listed = set(re.findall(r"^[0-9a-f]{64}  (\S+)$", (VENDORED / "ORIGIN").read_text(), re.MULTILINE))
    there = {str(path.relative_to(VENDORED)) for path in VENDORED.rglob("*") if path.is_file()}
    assert there - OWN == listed


def test_the_version_is_that_of_the_header() -> None:
    """The version in SBOMs is the one that libbpf tells."""
    header = (VENDORED / "bpf/libbpf_version.h").read_text()
    major, minor = re.findall(r"^#define LIBBPF_M\w+_VERSION (\d+)$", header, re.MULTILINE)
    assert read_libbpf_version().startswith(f"{major}.{minor}.")


def test_a_changed_library_changes_both_digests(tmp_path: Path) -> None:
    """A loader that was linked with another libbpf is refused, and an SBOM would have another digest."""
    copy = tmp_path / "loader"
    shutil.copytree(resource_path("loader"), copy)
    before = (loader_digest(copy), libbpf_digest(copy))
    with (copy / "verify/verify.c").open("a") as file:
        file.write("\n")
    assert loader_digest(copy) != before[0]
    assert libbpf_digest(copy) == before[1]
    with (copy / "vendor/libbpf/bpf/libbpf.c").open("a") as file:
        file.write("\n")
    assert libbpf_digest(copy) != before[1]


def test_sources_without_a_version(tmp_path: Path) -> None:
    """A damaged installation is one clear error."""
    (tmp_path / "vendor/libbpf").mkdir(parents=True)
    (tmp_path / "vendor/libbpf/ORIGIN").write_text("nothing\n")
    with pytest.raises(FileAccessError, match="ORIGIN: names no version"):
        read_libbpf_version(tmp_path)


@pytest.mark.network
@pytest.mark.tools
def test_the_archive_of_the_release_has_these_files() -> None:
    """Debian's source package has the same files. A newer release of sid is no failure."""
    argv = [sys.executable, TOP / "tools/vendor"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    last = done.stderr.strip().rpartition("\n")[2]
    if done.returncode == 1 and "another" not in last:
        pytest.skip(f"needs-package: source libbpf: {last}")
    assert done.returncode in (0, 4), done.stderr
