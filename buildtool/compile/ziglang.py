# SPDX-License-Identifier: Apache-2.0
"""
The clang in the Python package `ziglang`, for machines without a compiler.

`zig clang` is clang itself, with the eBPF back end. Its own headers come from that
package, under names that are the same wherever the package is installed.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

NAME = "ziglang"
WORDS = ("clang",)  # after the program's name


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
    """Return the flags that make clang take its own headers (stdint.h) from the package, and no others."""
    home = zig.parent
    # Names of headers stand in BTF.
    return ["-nostdinc", "-isystem", str(home / "lib/include"), f"-ffile-prefix-map={home}=/{NAME}"]
