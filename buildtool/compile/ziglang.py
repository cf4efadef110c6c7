# SPDX-License-Identifier: Apache-2.0
"""
Use the clang in the Python package `ziglang` on machines without a compiler.

`zig clang` is clang with the eBPF back end. It reads none of the machine's headers: those of C and
Linux come from package ziglang, libbpf's from buildtool. Their names in objects do not depend on
the place of installation.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from buildtool.core.platforms import Platform
from buildtool.core.resources import package_directory

NAME = "ziglang"
WORDS = ("clang",)  # the first argument of zig
SYSTEM_HEADERS = Path("/usr/include")
_INCLUDE = "data/include"
# Zig's names of architectures that differ from the kernel's.
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
    """Return the directory with libbpf's headers (bpf/bpf_helpers.h), of buildtool or else of the machine."""
    carried = package_directory() / _INCLUDE
    return carried if (carried / "bpf").is_dir() else SYSTEM_HEADERS


def header_flags(zig: Path, platform: Platform) -> list[str]:
    """Return the flags that restrict clang to the headers of the packages."""
    home = zig.parent
    linux = home / "lib/libc/include"
    own = _ARCHITECTURES.get(platform.target_arch, platform.target_arch)
    flags = ["-nostdinc"]
    for place, directory in (("-isystem", home / "lib/include"), ("-idirafter", bpf_headers())):
        flags += [place, str(directory)]
    for name in (f"{own}-linux-any", "any-linux-any"):
        flags += ["-idirafter", str(linux / name)]
    # BTF contains the names of headers.
    flags += [f"-ffile-prefix-map={linux}=/usr/include", f"-ffile-prefix-map={home}=/{NAME}"]
    return [*flags, f"-ffile-prefix-map={bpf_headers()}=/usr/include"]
