# SPDX-License-Identifier: Apache-2.0
"""
Build the verifiers of bindings/ where their toolchains are installed.

Users of buildtool need neither Go nor Rust, so a machine without one skips that language's tests.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from labs import TOP
from labs.run import alone
from labs.verifiers import build_c_verifier

GO = TOP / "bindings/go"
RUST = TOP / "bindings/rust"
BUILT = TOP / ".cache/bindings"
# As go.mod and Cargo.toml say. Debian 12 has older ones.
OLDEST_GO = (1, 21)
OLDEST_CARGO = (1, 74)


def go_environment(**more: str) -> dict[str, str]:
    """Return the environment for Go: no other toolchain, no workspace around the checkout."""
    return os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""} | more


@functools.cache
def read_version(program: str) -> tuple[int, ...]:
    """Return major and minor version of *program*, go or cargo; () if it is not on PATH."""
    if shutil.which(program) is None:
        return ()
    argument = {"go": "version", "cargo": "--version"}[program]
    done = subprocess.run([program, argument], capture_output=True, text=True, check=False)
    found = re.search(r"\b(?:go)?(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else ()


def has_go() -> bool:
    """Return whether this machine has a go that the module can be built with."""
    return read_version("go") >= OLDEST_GO


def has_cargo() -> bool:
    """Return whether this machine has a cargo that the crate can be built with."""
    return read_version("cargo") >= OLDEST_CARGO


def find_go() -> Path:
    """Return the go command, or skip the test."""
    if not has_go():
        pytest.skip(f"needs-toolchain: go {'.'.join(map(str, OLDEST_GO))}")
    return Path(shutil.which("go") or "")


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


def find_cargo() -> Path:
    """Return the cargo command, or skip the test."""
    if not has_cargo():
        pytest.skip(f"needs-toolchain: cargo {'.'.join(map(str, OLDEST_CARGO))}")
    return Path(shutil.which("cargo") or "")


def cargo(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run cargo in *directory*. All crates of the checkout share what was built."""
    argv = [find_cargo(), *arguments]
    environment = os.environ | {"CARGO_TARGET_DIR": str(BUILT / "rust")}
    return subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@functools.cache
def has_crates(directory: Path) -> bool:
    """Return whether the crates that *directory* needs are on this machine, or could be fetched."""
    return cargo("fetch", directory=directory).returncode == 0


def run_cargo(*arguments: str, directory: Path = RUST) -> str:
    """
    Run cargo in *directory* and return its output. A failure fails the test.

    Skips the test where no registry has the crates.
    """
    with alone():
        if not has_crates(directory):
            pytest.skip(f"needs-toolchain: the crates of {directory.relative_to(TOP)}")
        done = cargo(*arguments, "--offline", directory=directory)
    assert done.returncode == 0, f"cargo {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


# What go and cargo say when they cannot reach a registry.
_NO_REGISTRY = (
    *("dial tcp", "no such host", "Could not resolve", "failed to download", "i/o timeout", "404 "),
    "403 Forbidden",  # a registry that does not have everything
)


def run_with_registry(
    argv: Sequence[str | Path],
    directory: Path,
    *,
    seconds: int = 600,
    environment: Mapping[str, str] | None = None,
) -> None:
    """
    Run *argv*, of go or cargo, in *directory* for at most *seconds*. A failure fails the test.

    Skips the test where no registry answers, or where it lacks the module.
    """
    done = subprocess.run(
        argv,
        cwd=directory,
        env=environment or go_environment(CGO_ENABLED="0", CARGO_TARGET_DIR=str(BUILT / "rust")),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    lines = [line for line in done.stderr.splitlines() if any(text in line for text in _NO_REGISTRY)]
    if done.returncode and lines:
        pytest.skip(f"needs-toolchain: no registry: {lines[0][:200]}")
    assert done.returncode == 0, done.stderr


@functools.cache
def build_rust_verifier() -> Path:
    """Build the Rust verifier that answers questions."""
    run_cargo("build", "--release", "--example", "check")
    return BUILT / "rust/release/examples/check"


def build_verifier(name: str, clang: Path) -> Path:
    """
    Return the program of verifier *name*, or skip the test if its toolchain is not installed.

    loader/fuzz/check.c lists the questions that each program answers.
    """
    builders = {"c": lambda: build_c_verifier(clang), "go": build_go_verifier, "rust": build_rust_verifier}
    return builders[name]()


def build_installed() -> list[Path]:
    """Build the verifiers of bindings/ whose toolchains are installed, and return their programs."""
    found = [build_go_verifier()] if has_go() else []
    if has_cargo() and has_crates(RUST):
        found.append(build_rust_verifier())
    return found
