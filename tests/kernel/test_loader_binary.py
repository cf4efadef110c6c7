# SPDX-License-Identifier: Apache-2.0
"""The loader's file is static, small and hardened, and has the product's version."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from labs import TOP
from labs.loader import Lab
from labs.readelf import read_elf

import buildtool

MAX_BYTES = 1_700_000
PLATFORMS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


@pytest.mark.parametrize("arch", PLATFORMS)
def test_static_small_and_hardened(arch: str, clang: Path, tmp_path: Path) -> None:
    """Each platform's programs need no library, have read-only relocations and are at most 1.7 MB."""
    sysroot = TOP / ".cache/sysroot" / arch
    subprocess.run([TOP / "tools/sysroot", arch, sysroot], check=True)
    output = tmp_path / "verify-and-load"
    argv = ["make", "-C", TOP / "loader", f"SYSROOT={sysroot}", f"TARGET={PLATFORMS[arch]}"]
    subprocess.run([*argv, f"CLANG={clang}", f"OUT={output}"], check=True, capture_output=True)
    for program in (output, output.with_name("ebpf-pins")):
        assert program.stat().st_size <= MAX_BYTES
        segments = read_elf(program, "-lW")
        assert "INTERP" not in segments
        assert "GNU_RELRO" in segments
        assert "RWE" not in segments
        assert "NEEDED" not in read_elf(program, "-dW")
        assert "DYN (" in read_elf(program, "-hW")


def test_each_program_has_its_commands_alone(lab: Lab) -> None:
    """Neither program has the messages of the other one's commands."""
    loader, pins = lab.loader.read_bytes(), lab.pins.read_bytes()
    for text in (b"no previous release is pinned", b"rollback requires its object"):
        assert text in pins
        assert text not in loader
    for text in (b"trusted keys signed: %s", b"--health-command %.200s"):
        assert text in loader
        assert text not in pins


def test_version_is_the_products(lab: Lab) -> None:
    """--version prints the version of the package."""
    done = subprocess.run([lab.loader, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"verify-and-load {buildtool.__version__} (linux/")
    done = subprocess.run([lab.pins, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"ebpf-pins {buildtool.__version__} (linux/")


def test_help(lab: Lab) -> None:
    """--help lists every exit code."""
    done = subprocess.run([lab.loader, "--help"], capture_output=True, text=True, check=True)
    assert "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused." in done.stdout
    done = subprocess.run([lab.pins, "--help"], capture_output=True, text=True, check=True)
    assert "Exit codes: 0 done, 1 could not do it, 2 usage or configuration." in done.stdout
    for program in (lab.loader, lab.pins):
        long, short = (
            subprocess.run([program, *words], capture_output=True, text=True, check=True).stdout
            for words in (["--help"], ["-h"])
        )
        assert short == long
    after = subprocess.run([lab.pins, "list", "-h"], capture_output=True, text=True, check=True)
    assert after.stdout == long
