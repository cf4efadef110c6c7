# SPDX-License-Identifier: Apache-2.0
"""Sources that depend on the architecture give other objects for each; the others one per byte order."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import pytest

from buildtool.compile import CompileOptions, compile_sources
from buildtool.crosscheck import check_agreement
from buildtool.errors import CompileError
from buildtool.platforms import PLATFORMS
from buildtool.toolchain import find_toolchain

TOP = Path(__file__).resolve().parents[2]
DEPENDENT = ("vm_core.bpf.o", "vm_regs.bpf.o", "vm_result.bpf.o")
Objects = dict[str, dict[str, bytes]]


@pytest.fixture(scope="module")
def objects(clang: Path, sysroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """Compile the programs that ship and those of these tests for all architectures."""
    output = tmp_path_factory.mktemp("objects")
    sources = [*sorted(TOP.glob("tests/vm/bpf/*.bpf.c")), *sorted(TOP.glob("bpf/*.bpf.c"))]
    # libbpf 1.1 of Debian 12 does not know loong64's registers yet.
    include = (os.path.relpath(sysroot / "usr/include", TOP),)
    result = compile_sources(
        find_toolchain(str(clang)),
        [str(path.relative_to(TOP)) for path in sources],
        [(platform, output / arch) for arch, platform in PLATFORMS.items()],
        CompileOptions(root=TOP, include=include),
    )
    assert result.warnings == ""
    return {
        arch: {path.name: path.read_bytes() for path in sorted((output / arch).glob("*.bpf.o"))}
        for arch in PLATFORMS
    }


@pytest.mark.parametrize("name", DEPENDENT)
def test_registers_make_every_object_another(objects: Objects, name: str) -> None:
    """Seven architectures have seven places for an argument: no two objects are the same."""
    assert len(objects) == 7
    same = [pair for pair in combinations(objects, 2) if objects[pair[0]][name] == objects[pair[1]][name]]
    assert not same


def test_what_reads_no_register_is_the_same_for_a_byte_order(objects: Objects) -> None:
    """The shipped programs need no object for each architecture; their statements name the platform."""
    for name in objects["amd64"].keys() - DEPENDENT:
        for big_endian in (False, True):
            own = [
                found[name] for arch, found in objects.items() if PLATFORMS[arch].little_endian != big_endian
            ]
            assert len(set(own)) == 1, name


def test_all_agree_but_where_a_probe_is_put(objects: Objects) -> None:
    """The one difference between architectures is found, and nothing else is."""
    with pytest.raises(CompileError, match=r"core_write .*kprobe/vfs_write\+8 on riscv64"):
        check_agreement(objects)
    check_agreement(objects, ["vm_core.bpf.o:core_write", "vm_regs.bpf.o:regs_enter"])
