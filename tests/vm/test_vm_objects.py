# SPDX-License-Identifier: Apache-2.0
"""Sources that read registers give another object for each architecture; others give one per byte order."""

from __future__ import annotations

import subprocess
from itertools import combinations
from pathlib import Path

import pytest
from labs import TOP

from buildtool.compile.headers import read_headers
from buildtool.compile.sources import CompileOptions, compile_sources
from buildtool.compile.toolchain import find_toolchain
from buildtool.config.project import make_units
from buildtool.core.errors import CompileError
from buildtool.core.platforms import PLATFORMS, Platform
from buildtool.objects.agreement import check_agreement

DEPENDENT = ("vm_core.bpf.o", "vm_regs.bpf.o", "vm_result.bpf.o")
Objects = dict[str, dict[str, bytes]]
# For each architecture: the struct, and the members with another name in the kernel's header.
REGISTERS = {
    "x86": (
        "struct pt_regs",
        "di:rdi si:rsi dx:rdx cx:rcx r8 r9 ax:rax sp:rsp bp:rbp ip:rip flags:eflags ss",
    ),
    "arm64": ("struct user_pt_regs", "regs sp pc pstate"),
    "arm": ("struct pt_regs", "uregs"),
    "riscv": ("struct user_regs_struct", "pc ra sp t0 s0 a0 a1 a2 a3 a4 a5 a7 s2 t6"),
    "s390": ("user_pt_regs", "args psw_mask:psw.mask psw_addr:psw.addr gprs"),
    "powerpc": ("struct pt_regs", "gpr nip msr orig_gpr3 ctr link xer trap result"),
    "loongarch": ("struct user_pt_regs", "regs orig_a0 csr_era csr_badv"),
}


@pytest.fixture(scope="module")
def objects(clang: Path, carried_headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """Compile the shipped programs and those of these tests for all architectures."""
    output = tmp_path_factory.mktemp("objects")
    sources = [*sorted(TOP.glob("tests/vm/bpf/*.bpf.c")), *sorted(TOP.glob("bpf/*.bpf.c"))]
    units = make_units(str(path.relative_to(TOP)) for path in sources)
    result = compile_sources(
        find_toolchain(str(clang)),
        [(platform, output / arch, units) for arch, platform in PLATFORMS.items()],
        CompileOptions(root=TOP, headers=read_headers(carried_headers)),
    )
    assert result.warnings == ""
    return {
        arch: {path.name: path.read_bytes() for path in sorted((output / arch).glob("*.bpf.o"))}
        for arch in PLATFORMS
    }


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=PLATFORMS)
def test_registers_are_where_the_kernels_header_has_them(
    clang: Path, sysroot: Path, tmp_path: Path, platform: Platform
) -> None:
    """Each register of bpf/registers.h has the offset of <asm/ptrace.h> in Debian's kernel."""
    struct, members = REGISTERS[platform.target_arch]
    theirs = struct.removeprefix("struct ")
    lines = [
        "#include <stddef.h>",
        f"#define {theirs} kernel_{theirs}",
        "#include <asm/ptrace.h>",
        f"#undef {theirs}",
        f"#define __TARGET_ARCH_{platform.target_arch}",
        f'#include "{TOP}/bpf/registers.h"',
    ]
    for member in members.split():
        ours, _, other = member.partition(":")
        there = f"offsetof({struct.replace(theirs, 'kernel_' + theirs)}, {other or ours})"
        lines.append(f'_Static_assert(offsetof({struct}, {ours}) == {there}, "{ours}");')
    (tmp_path / "x.c").write_text("\n".join(lines) + "\n")
    headers = (sysroot / f"usr/lib/linux/uapi/{platform.target_arch}", sysroot / "usr/include")
    argv = [clang, f"--target={platform.triple}", "-fsyntax-only", *(f"-I{path}" for path in headers)]
    done = subprocess.run([*argv, tmp_path / "x.c"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", DEPENDENT)
def test_objects_that_read_registers_differ(objects: Objects, name: str) -> None:
    """Arguments have seven places on seven architectures, so no two objects are equal."""
    assert len(objects) == 7
    same = [pair for pair in combinations(objects, 2) if objects[pair[0]][name] == objects[pair[1]][name]]
    assert not same


def test_what_reads_no_register_is_the_same_for_a_byte_order(objects: Objects) -> None:
    """Shipped programs are equal on all architectures of a byte order; their statements name the platform."""
    for name in objects["amd64"].keys() - DEPENDENT:
        for big_endian in (False, True):
            own = [
                found[name] for arch, found in objects.items() if PLATFORMS[arch].little_endian != big_endian
            ]
            assert len(set(own)) == 1, name


def test_the_one_difference_is_found(objects: Objects) -> None:
    """The comparison of architectures finds the one different section, and nothing else."""
    with pytest.raises(CompileError, match=r"core_write .*kprobe/vfs_write\+8 on riscv64"):
        check_agreement(objects)
    check_agreement(objects, ["vm_core.bpf.o:core_write", "vm_regs.bpf.o:regs_enter"])
