# SPDX-License-Identifier: Apache-2.0
"""
Use the clang in the Python package `ziglang` on machines without a compiler.

`zig clang` is clang with the eBPF back end. Its own headers come from package ziglang. Their names in
objects do not depend on the place of installation.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

NAME = "ziglang"
WORDS = ("clang",)  # the first argument of zig


def find_zig() -> Path | None:
    """Return the program of the installed package, or None."""
    try:
        spec = importlib.util.find_spec(NAME)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    program = Path(spec.origin).parent / "zig"
    return program if os.access(program, os.X_OK) else None


def header_flags(zig: Path) -> list[str]:
    """Return the flags that restrict clang to its own headers (stdint.h), from the package."""
    home = zig.parent
    # BTF contains the names of headers.
    return ["-nostdinc", "-isystem", str(home / "lib/include"), f"-ffile-prefix-map={home}=/{NAME}"]
