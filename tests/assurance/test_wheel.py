# SPDX-License-Identifier: Apache-2.0
"""The installed wheel: with pip alone it builds images for seven architectures."""

from __future__ import annotations

import os
import platform as host
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from labs import TOP
from labs.image import read_image

from buildtool.compile.headers import LIST_NAME, read_headers
from buildtool.core.platforms import PLATFORMS, host_platform
from buildtool.oci.tree import Tree
from buildtool.runtime.carried import part_path
from buildtool.runtime.link import MadeParts

# The first test makes the loaders of seven architectures.
pytestmark = pytest.mark.timeout(900)

# Empty directories hide the machine's headers and compilers, for this process alone.
HIDE = "for d in /usr/include /usr/lib/linux /usr/lib/llvm-*; do [ ! -d $d ] || mount -t tmpfs none $d; done"


@pytest.fixture(scope="module")
def wheel(carried_parts: Path, carried_headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    assert carried_parts.is_dir()
    assert carried_headers.is_dir()
    out = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "build", "--wheel", "--outdir", out, TOP]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with its extra `clang` into an environment of its own; return its Python."""
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, with_pip=True)
    argv = [directory / "bin/python", "-m", "pip", "install", "--quiet", f"{wheel}[clang]"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory / "bin/python"


@pytest.mark.parametrize("arch", PLATFORMS)
def test_the_wheel_has_the_parts_of(arch: str, wheel: Path, made_parts: MadeParts) -> None:
    """The wheel has loader, tini and base of each architecture."""
    if error := made_parts.failed.get(PLATFORMS[arch]):
        raise error
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        str(part_path(Path("buildtool/data"), kind, arch)) for kind in ("loader", "pins", "tini", "base")
    } <= names


def test_the_wheel_has_what_all_parts_need(wheel: Path, carried_headers: Path) -> None:
    """The wheel has the list of parts, the headers with licences, the loader's sources and the lock."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {Path("buildtool/data/loaders/loaders.json"), Path("buildtool/_data/loader/run/main.c")}
    wanted |= {Path("buildtool/_data/tools/packages.lock")}
    headers = read_headers(carried_headers)
    wanted |= {Path("buildtool/data/headers", name) for name in (LIST_NAME, *headers.files)}
    assert {str(path) for path in wanted} <= names


@pytest.mark.usefixtures("as_root")
def test_first_example_needs_pip_only(installed: Path, made_parts: MadeParts, tmp_path: Path) -> None:
    """The README's commands work for every platform without Docker, compiler, headers or other programs."""
    platforms = [platform for platform in PLATFORMS.values() if platform not in made_parts.failed]
    script = f'''{HIDE}; export PATH=/nonexistent; buildtool() {{ "$0" -m buildtool "$@"; }}
        buildtool init demo && cd demo && buildtool keygen release &&
        buildtool build --key keys/release.pem "$@"'''
    architectures = [word for platform in platforms for word in ("--arch", platform.arch)]
    command = ["unshare", "--mount", "sh", "-c", script, installed, *architectures]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ": building with the local engine\n" in done.stderr
    images = read_image(tmp_path / "demo/demo-0.1.0.oci.tar")
    trees = {name: tree for name, (_, tree) in images.items()}
    assert list(trees) == [platform.oci for platform in platforms]
    for name, data in files_below(trees["linux/arm64"], "usr/lib/buildtool/objects/").items():
        assert b"clang 22." in data, name  # clang of the package ziglang, which is newer than the machine's
    own = host_platform(host.machine())
    assert own is not None
    argv = [write_files(trees[own.oci], tmp_path / "root", "usr/bin/") / "verify-and-load", "--verify-only"]
    argv += ["--objects", write_files(trees[own.oci], tmp_path / "root", "usr/lib/buildtool/objects/")]
    argv += ["--trust", write_files(trees[own.oci], tmp_path / "root", "etc/buildtool/trust/")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"decision":"accepted"' in done.stderr.replace(" ", "")


def files_below(tree: Tree, prefix: str) -> dict[str, bytes]:
    """Return the files below directory *prefix*; an empty result is an error."""
    found = {path: entry.data for path, entry in tree.items() if path.startswith(prefix) and entry.is_file}
    assert found, prefix
    return found


def write_files(tree: Tree, root: Path, prefix: str) -> Path:
    """Write the files below directory *prefix* into *root*; return the directory."""
    for name, data in files_below(tree, prefix).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(tree[name].mode)
    return root / prefix
