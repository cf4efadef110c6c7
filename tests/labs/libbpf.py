# SPDX-License-Identifier: Apache-2.0
"""
Compiles the loader's libbpf, and reads its section names, with the type of each, from the source.

libbpf has no interface that lists them (libbpf.c: section_defs, prog_type_name).
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

from buildtool.runtime.carried import LIBBPF_FROM, libbpf_digest
from labs import TOP


def compile_libbpf(clang: Path, *options: str) -> Path:
    """Return the loader's libbpf as one object file. *options* are those of the target."""
    clang_said = subprocess.run([clang, "--version"], capture_output=True, check=True).stdout
    recipe = repr((libbpf_digest(), clang_said, options)).encode()
    output = TOP / ".cache/loader" / f"libbpf-{hashlib.sha256(recipe).hexdigest()[:16]}.o"
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        aside = output.with_suffix(f".{os.getpid()}")  # another process of the run may compile it, too
        argv = [clang, *(option for option in options if option != "-static-pie"), *LIBBPF_FROM]
        subprocess.run([*argv, "-o", aside], cwd=TOP / "loader", check=True)
        aside.rename(output)
    return output


def read_sections() -> dict[str, str]:
    """Return libbpf's type of program for each section name. `+` stands for `/` and a target."""
    source = (TOP / "loader/vendor/libbpf/bpf/libbpf.c").read_text()
    types = dict(re.findall(r'^\t\[BPF_PROG_TYPE_(\w+)\]\s*= "(\w+)",$', source, re.MULTILINE))
    rows = re.findall(r'^\tSEC_DEF\("([^"]+)",\s*(\w+),', source, re.MULTILINE)
    assert len(rows) == source.count("SEC_DEF(") - 1  # the macro
    return {name: types[kind] for name, kind in rows}
