# SPDX-License-Identifier: Apache-2.0
"""Toolchains of other languages, Go and Rust, whose programs read what buildtool writes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

# What go and cargo say when they cannot reach a registry.
_NO_REGISTRY = ("dial tcp", "no such host", "Could not resolve", "failed to download", "i/o timeout", "404 ")


def find_peer(name: str) -> str:
    """Return the path of toolchain *name*, or skip."""
    if (found := shutil.which(name)) is None:
        pytest.skip(f"needs-toolchain: {name}: not installed")
    return found


def run_peer(argv: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run *argv* in *directory* and return its output. Skip if a registry cannot be reached."""
    done = subprocess.run(
        argv,
        cwd=directory,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode and any(text in done.stderr for text in _NO_REGISTRY):
        reason = done.stderr.splitlines()[-1][:200]
        pytest.skip(f"needs-toolchain: {Path(argv[0]).name}: no registry: {reason}")
    assert done.returncode == 0, done.stderr
    return done.stdout
