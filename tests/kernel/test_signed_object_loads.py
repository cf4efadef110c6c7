# SPDX-License-Identifier: Apache-2.0
"""LLVM, libbpf and the kernel accept a signed object as they accept the unsigned one."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.compile import compile_sample, find_tool
from labs.kernel import bpf_file_system
from labs.sig import NOW, RELEASE, store
from labs.sig import test_key as alice

from buildtool.core.errors import RefusedError
from buildtool.core.platforms import PLATFORMS
from buildtool.objects import elf as elfobj
from buildtool.signing.sign import sign_files
from buildtool.trust.verify import verify_object

# Features of every supported kernel: a map, a helper, a subprogram.
SOURCE = """
#define SEC(name) __attribute__((section(name), used))
struct { int (*type)[2]; int (*max_entries)[4]; unsigned int *key;
         unsigned long long *value; } m SEC(".maps");
static void *(*lookup)(void *map, const void *key) = (void *)1;
static __attribute__((noinline)) int sub(unsigned int k)
{
    unsigned long long *v = lookup(&m, &k);
    if (v)
        *v += 1;
    return 2;
}
SEC("xdp") int count(void *ctx) { return sub(0); }
SEC("tc") int also(void *ctx) { return sub(1) - 2; }
char LICENSE[] SEC("license") = "GPL";
"""


def sign_in_place(path: Path, arch: str) -> bytes:
    """Sign *path* and return the unsigned bytes."""
    before = path.read_bytes()
    sign_files([path], alice(), RELEASE, platform=PLATFORMS[arch])
    return before


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """Mount a BPF file system for the test."""
    if os.geteuid() != 0:
        pytest.skip("needs-root: mount, bpf(2)")
    with bpf_file_system(tmp_path) as mount:
        yield mount


@pytest.mark.parametrize("strip", [True, False], ids=["stripped", "with-dwarf"])
def test_bpftool_loads_the_signed_object(tmp_path: Path, bpffs: Path, *, strip: bool) -> None:
    """The kernel loads both programs and their map, with bpftool."""
    bpftool = find_tool("bpftool")
    path = compile_sample(tmp_path, source=SOURCE, strip=strip)
    sign_in_place(path, "amd64")
    subprocess.run([bpftool, "prog", "loadall", path, bpffs / "x"], check=True)
    assert sorted(pin.name for pin in (bpffs / "x").iterdir()) == ["also", "count"]


@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_llvm_reads_the_signed_object(tmp_path: Path, target: str) -> None:
    """llvm-readelf gives no warning, objcopy extracts the same record, and the disassembly is unchanged."""
    readelf = find_tool("llvm-readelf", "llvm-readelf-19", "llvm-readelf-22")
    objcopy = find_tool("llvm-objcopy", "llvm-objcopy-19", "llvm-objcopy-22")
    path = compile_sample(tmp_path, target=target)
    before = sign_in_place(path, "amd64" if target == "bpfel" else "s390x")
    show = [readelf, "--sections", "--symbols", "--relocs", "--wide", path]
    done = subprocess.run(show, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert " .sig " in done.stdout
    record = tmp_path / "record"
    subprocess.run([objcopy, f"--dump-section=.sig={record}", path, tmp_path / "copy"], check=True)
    obj = elfobj.parse_object(path.read_bytes())
    assert record.read_bytes() == obj.contents(elfobj.find_signature_section(obj))
    (tmp_path / "before").write_bytes(before)
    disassemble = [
        find_tool("llvm-objdump", "llvm-objdump-19", "llvm-objdump-22"),
        "-dr",
        "--no-show-raw-insn",
    ]
    texts = [
        subprocess.run([*disassemble, file], capture_output=True, text=True, check=True).stdout.partition(
            "\n\n"
        )[2]
        for file in (tmp_path / "before", path)
    ]
    assert texts[0] == texts[1]


def test_libbpf_opens_the_signed_object(tmp_path: Path) -> None:
    """The object opens from memory in libbpf, with the same programs."""
    try:
        library = ctypes.CDLL("libbpf.so.1")
    except OSError:
        pytest.skip("needs-tool: libbpf.so.1")
    library.bpf_object__open_mem.restype = ctypes.c_void_p
    library.bpf_object__next_program.restype = ctypes.c_void_p
    library.bpf_program__name.restype = ctypes.c_char_p
    library.bpf_program__name.argtypes = (ctypes.c_void_p,)
    library.bpf_object__next_program.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    path = compile_sample(tmp_path)
    sign_in_place(path, "amd64")
    data = path.read_bytes()
    opened = library.bpf_object__open_mem(data, ctypes.c_size_t(len(data)), None)
    assert opened
    names, program = [], library.bpf_object__next_program(opened, None)
    while program:
        names.append(library.bpf_program__name(program).decode())
        program = library.bpf_object__next_program(opened, program)
    library.bpf_object__close(ctypes.c_void_p(opened))
    assert names == ["pass", "second", "trace"]


def test_rewritten_file_is_refused(tmp_path: Path) -> None:
    """An object that strip or objcopy changed after signing is refused."""
    objcopy = find_tool("llvm-objcopy", "llvm-objcopy-19", "llvm-objcopy-22")
    strip = find_tool("llvm-strip", "llvm-strip-19", "llvm-strip-22")
    path = compile_sample(tmp_path, strip=False)
    sign_in_place(path, "amd64")
    data = path.read_bytes()
    assert verify_object(data, store(), platform="linux/amd64", now=NOW)
    for command in ([strip, "-g"], [strip, "--strip-all"], [objcopy, "--remove-section=.BTF.ext"]):
        path.write_bytes(data)
        subprocess.run([*command, path], check=True)
        with pytest.raises(RefusedError, match=r"not the one that was signed|no section|after the end"):
            verify_object(path.read_bytes(), store(), platform="linux/amd64", now=NOW)
