# SPDX-License-Identifier: Apache-2.0
"""With the extra `clang`, and without compiler and headers, objects compile that this kernel loads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import TOP
from labs.kernel import bpf_file_system

CONFIG = '[project]\nname = "lab"\nversion = 1\nrelease = "1"\n'
# Empty directories hide the machine's headers and compiler libraries, for this process alone.
HIDE = "for d in /usr/include /usr/lib/linux /usr/lib/llvm-*; do [ ! -d $d ] || mount -t tmpfs none $d; done"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with the shipped programs."""
    shutil.copytree(TOP / "bpf", tmp_path / "bpf")
    (tmp_path / "buildtool.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def pins() -> Iterator[Path]:
    """Yield a BPF file system for the test."""
    with bpf_file_system() as mount:
        yield mount


def compile_bare(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `buildtool compile` with an empty PATH and without the machine's headers."""
    command = f'{HIDE}; export PATH=/nonexistent; exec "$0" "$@"'
    argv = ["unshare", "--mount", "sh", "-c", command, sys.executable, "-m", "buildtool", "compile"]
    return subprocess.run([*argv, *arguments], cwd=project, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("as_root", "carried_headers")
def test_objects_made_with_nothing_else_load(project: Path, pins: Path) -> None:
    """The shipped programs compile for both byte orders, and this kernel loads them."""
    done = compile_bare(project, "--arch", "amd64", "--arch", "s390x")
    assert done.returncode == 0, done.stderr
    objects = sorted((project / "build/amd64").glob("*.bpf.o"))
    assert [path.name for path in objects] == sorted(p.stem + ".o" for p in (TOP / "bpf").glob("*.bpf.c"))
    for path in objects:
        loaded = subprocess.run(
            ["bpftool", "prog", "loadall", path, pins / path.name.partition(".")[0]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert loaded.returncode == 0, loaded.stderr


@pytest.mark.usefixtures("as_root", "carried_headers")
def test_objects_do_not_tell_where_the_packages_are(project: Path, tmp_path: Path) -> None:
    """The bytes are the same with and without the machine's headers, in either directory."""
    environment = {**os.environ, "BUILDTOOL_CLANG": "ziglang"}
    argv = [sys.executable, "-m", "buildtool", "compile", "--arch", "arm64"]
    subprocess.run(argv, cwd=project, env=environment, check=True, capture_output=True)
    other = tmp_path / "other"
    shutil.copytree(project / "bpf", other / "bpf")
    (other / "buildtool.toml").write_text(CONFIG)
    assert compile_bare(other, "--arch", "arm64").returncode == 0
    for path in (project / "build/arm64").iterdir():
        data = path.read_bytes()
        assert data == (other / "build/arm64" / path.name).read_bytes()
        assert b"site-packages" not in data
