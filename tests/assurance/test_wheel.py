# SPDX-License-Identifier: Apache-2.0
"""The wheel, not the tree: pip alone gives a tool that builds images for seven architectures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from buildtool.loaders import part_path
from buildtool.platforms import PLATFORMS

# The first test makes the loaders of seven architectures.
pytestmark = pytest.mark.timeout(900)

TOP = Path(__file__).parents[2]
CONFIG = '[project]\nname = "lab"\nversion = 1\nrelease = "1"\n[sign]\nkey = "keys/dev.pem"\n'
# Headers and compilers of the machine disappear behind empty directories, for this process alone.
HIDE = "for d in /usr/include /usr/lib/linux /usr/lib/llvm-*; do [ ! -d $d ] || mount -t tmpfs none $d; done"


@pytest.fixture(scope="module")
def wheel(carried_parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    assert carried_parts.is_dir()
    out = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "build", "--wheel", "--outdir", out, TOP]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel and its extra `clang` into an environment of their own; return its Python."""
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, with_pip=True)
    argv = [directory / "bin/python", "-m", "pip", "install", "--quiet", f"{wheel}[clang]"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory / "bin/python"


def test_the_wheel_has_every_part(wheel: Path) -> None:
    """Loader, tini and base of each architecture are in it, with the list and libbpf's headers."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {
        part_path(Path("buildtool/data"), kind, arch)
        for kind in ("loader", "tini", "base")
        for arch in PLATFORMS
    }
    wanted |= {Path("buildtool/data/loaders/loaders.json"), Path("buildtool/data/include/bpf/bpf_helpers.h")}
    wanted |= {Path("buildtool/data/include/bpf/copyright"), Path("buildtool/_data/loader/main.c")}
    assert {str(path) for path in wanted} <= names


@pytest.mark.usefixtures("as_root")
def test_pip_is_all_that_a_build_needs(installed: Path, tmp_path: Path) -> None:
    """Without Docker, a compiler, headers or a program on PATH: an archive of seven platforms."""
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf/two.bpf.c").write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("socket") int two(void *c) { return 2; }\nchar LICENSE[] SEC("license") = "GPL";\n'
    )
    (tmp_path / "buildtool.toml").write_text(CONFIG)
    script = f'{HIDE}; export PATH=/nonexistent; "$0" -m buildtool keygen dev && exec "$0" -m buildtool "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, installed, "build", "--engine", "local"]
    command += [word for arch in PLATFORMS for word in ("--arch", arch)]
    command += ["--output", "type=oci,dest=image.tar"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "image.tar") as archive:

        def read(name: str) -> dict[str, list[dict[str, dict[str, str]]]]:
            file = archive.extractfile(name)
            assert file
            return json.load(file)  # type: ignore[no-any-return]

        (top,) = read("index.json")["manifests"]
        index = read("blobs/" + str(top["digest"]).replace(":", "/"))
    found = {entry["platform"]["architecture"] for entry in index["manifests"]}
    assert found == set(PLATFORMS)
