# SPDX-License-Identifier: Apache-2.0
"""
The clang in the Python package `ziglang`, for machines without a compiler.

`zig clang` is clang itself, with the eBPF back end. It gets none of the machine's
headers: C's and Linux's come from that package, libbpf's from this one, under
names that are the same wherever the packages are installed.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from buildtool.core.platforms import Platform
from buildtool.core.resources import package_directory

NAME = "ziglang"
WORDS = ("clang",)  # after the program's name
SYSTEM_HEADERS = Path("/usr/include")
_INCLUDE = "data/include"
# Zig's names of the kernel's architectures, where they are not the kernel's own.
_ARCHITECTURES = {"arm64": "aarch64", "s390": "s390x"}


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


def bpf_headers() -> Path:
    """Return the directory with libbpf's headers (bpf/bpf_helpers.h): carried, or else the machine's."""
    carried = package_directory() / _INCLUDE
    return carried if (carried / "bpf").is_dir() else SYSTEM_HEADERS


def header_flags(zig: Path, platform: Platform) -> list[str]:
    """Return the flags that make clang take its headers from the packages alone."""
    home = zig.parent
    linux = home / "lib/libc/include"
    own = _ARCHITECTURES.get(platform.target_arch, platform.target_arch)
    flags = ["-nostdinc"]
    for place, directory in (("-isystem", home / "lib/include"), ("-idirafter", bpf_headers())):
        flags += [place, str(directory)]
    for name in (f"{own}-linux-any", "any-linux-any"):
        flags += ["-idirafter", str(linux / name)]
    # Names of headers stand in BTF.
    flags += [f"-ffile-prefix-map={linux}=/usr/include", f"-ffile-prefix-map={home}=/{NAME}"]
    return [*flags, f"-ffile-prefix-map={bpf_headers()}=/usr/include"]
