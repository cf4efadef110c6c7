# SPDX-License-Identifier: Apache-2.0
"""
Build the verifiers of bindings/ where their toolchains are installed.

Users of buildtool need neither Go nor Rust, so a machine without one skips that language's tests.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from labs import TOP
from labs.run import alone
from labs.verifiers import build_c_verifier

GO = TOP / "bindings/go"
BUILT = TOP / ".cache/bindings"


def go_environment(**more: str) -> dict[str, str]:
    """Return the environment for Go: no other toolchain, no workspace around the checkout."""
    return os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""} | more


def find_go() -> Path:
    """Return the go command, or skip the test."""
    found = shutil.which("go")
    if found is None:
        pytest.skip("needs-toolchain: go")
    return Path(found)


def run_go(*arguments: str | Path, directory: Path = GO, **more: str) -> str:
    """Run go in *directory*, with the environment *more*, and return its output. A failure fails the test."""
    argv = [find_go(), *arguments]
    environment = go_environment(**more)
    done = subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"go {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"
    return done.stdout


def download_modules(directory: Path) -> None:
    """Download the modules that *directory*'s go.sum lists, or skip the test where no proxy answers."""
    argv = [find_go(), "mod", "download"]
    done = subprocess.run(
        argv, cwd=directory, env=go_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"needs-toolchain: the modules of {directory.relative_to(TOP)}")


@functools.cache
def build_go_verifier() -> Path:
    """Build the Go verifier that answers questions. It needs no other module, so no proxy is asked."""
    program = BUILT / "check-go"
    with alone():
        run_go("build", "-o", program, "./internal/check", GOPROXY="off")
    return program


def build_verifier(name: str, clang: Path) -> Path:
    """
    Return the program of verifier *name*, or skip the test if its toolchain is not installed.

    loader/fuzz/check.c lists the questions that each program answers.
    """
    return {"c": lambda: build_c_verifier(clang), "go": build_go_verifier}[name]()


def build_installed() -> list[Path]:
    """Build the verifiers of bindings/ whose toolchains are installed, and return their programs."""
    return [build_go_verifier()] if shutil.which("go") else []
