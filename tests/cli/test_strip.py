# SPDX-License-Identifier: Apache-2.0
"""Dropping DWARF ourselves gives the bytes that llvm-strip gives, and any input a value or one error."""

from __future__ import annotations

import random
import struct
import subprocess
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from labs.compile import find_tool

from buildtool.compile.sources import CompileOptions, compile_sources
from buildtool.compile.strip import strip_debug
from buildtool.compile.toolchain import find_toolchain
from buildtool.config.project import make_units
from buildtool.core.errors import ObjectFormatError
from buildtool.core.platforms import PLATFORMS
from buildtool.objects.elf import parse_object

# Globals, zeroed data, weak and static functions, CO-RE, a kernel function, names with equal ends.
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
int counter; static int hidden; const volatile int limit = 5; char text[100];
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); }
	m SEC(".maps");
struct task_struct { int pid; } __attribute__((preserve_access_index));
static __noinline int sub(int x) { hidden += x; return hidden + limit; }
__weak int global(int x) { return x * counter; }
extern int bpf_kernel(int x) __ksym __weak;
SEC("tracepoint/syscalls/sys_enter_write") int tp(struct task_struct *c)
{
	return sub(BPF_CORE_READ(c, pid)) + global(text[counter & 63]);
}
SEC("xdp") int drop(void *c) { bpf_printk("hi %d", counter); return bpf_kernel ? bpf_kernel(1) : sub(3); }
SEC("xdp") int main_drop(void *c) { return bpf_map_delete_elem(&m, &counter) ? 1 : 2; }
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def strip() -> str:
    """Find llvm-strip."""
    return find_tool("llvm-strip", "llvm-strip-22", "llvm-strip-19")


def compile_sample(clang: Path, directory: Path, *flags: str) -> Path:
    """Compile SOURCE and return the object."""
    output = directory / "sample.o"
    source = directory / "sample.bpf.c"
    source.write_text(SOURCE)
    include = [f"-idirafter{path}" for path in Path("/usr/include").glob("*-linux-gnu")]
    argv = [clang, "-g", "-O2", "-mcpu=v3", "-fno-ident", *include, *flags, "-c", source, "-o", output]
    subprocess.run(argv, check=True)
    return output


@pytest.mark.tools
@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
@pytest.mark.parametrize("flags", [(), ("-fno-addrsig",), ("-gdwarf-4", "-fdata-sections")])
def test_the_bytes_are_those_of_llvm_strip(
    clang: Path, strip: str, tmp_path: Path, target: str, flags: tuple[str, ...]
) -> None:
    """Both byte orders, with and without LLVM's own sections, two versions of DWARF."""
    path = compile_sample(clang, tmp_path, "-target", target, *flags)
    ours = strip_debug(path.read_bytes())
    subprocess.run([strip, "-g", path], check=True)
    assert ours == path.read_bytes()
    assert not any(section.name.startswith(b".debug") for section in parse_object(ours).sections)
    assert strip_debug(ours) == ours


@pytest.mark.tools
def test_only_the_stripped_object_has_a_limit(clang: Path, tmp_path: Path) -> None:
    """An object with more than 64 MiB of DWARF is stripped, with llvm-strip and without it."""
    large = '__asm__(".pushsection .debug_large\\n.zero 68000000\\n.popsection");\n'
    source = 'int f(void) { return 2; }\nchar LICENSE[] __attribute__((section("license"))) = "GPL";\n'
    (tmp_path / "a.bpf.c").write_text(large + source)
    toolchain = find_toolchain(str(clang))
    made = []
    for name, strip in (("with", toolchain.strip), ("without", "")):
        outputs = [(PLATFORMS["amd64"], tmp_path / name, make_units(["a.bpf.c"]))]
        chosen = replace(toolchain, strip=strip)
        compile_sources(chosen, outputs, CompileOptions(root=tmp_path, headers=None))
        made.append((tmp_path / name / "a.bpf.o").read_bytes())
    assert made[0] == made[1]
    assert len(made[0]) < 10_000


@pytest.mark.tools
def test_damaged_objects_are_one_error(clang: Path, tmp_path: Path) -> None:
    """Any bytes give an object or ObjectFormatError."""
    data = compile_sample(clang, tmp_path, "-target", "bpfel").read_bytes()
    chance = random.Random(5)  # noqa: S311 - the same damage at each run
    refused = 0
    for _ in range(1500):
        broken = bytearray(data)
        table = int.from_bytes(data[40:48], "little")
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(table, len(data)) if chance.random() < 0.7 else chance.randrange(len(data))
            broken[at] = chance.randrange(256)
        try:
            strip_debug(bytes(broken))
        except ObjectFormatError:
            refused += 1
    assert refused > 100


def _object(symbols: bytes, names: bytes, rest: list[tuple[int, int, int]]) -> bytes:
    """Return an object of *names*, *symbols* and sections *rest*: type, offset in the file, size."""
    count = 3 + len(rest)
    start = 64 + 64 * count
    head = struct.pack(
        "<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 1, 247, 1, 0, 0, 64, 0, 64, 0, 0, 64, count, 1
    )
    table = bytes(64) + struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, start, len(names), 0, 0, 1, 0)
    table += struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, start + len(names), len(symbols), 1, 0, 8, 24)
    for kind, offset, size in rest:
        table += struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, offset, size, 0, 0, 1, 0)
    return head + table + names + symbols


def test_sections_upon_each_other_are_not_copied() -> None:
    """Sections of one 300 KB file would be 300 MB of copies."""
    names = bytes(300_000)
    sections = [(1, 64, len(names))] * 1000
    tracemalloc.start()
    try:
        with pytest.raises(ObjectFormatError, match="sections that overlap"):
            strip_debug(_object(b"", names, sections))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_symbols_that_share_a_long_name_are_not_copied() -> None:
    """Names of 300 KB for 1,000 symbols would be 300 MB of copies."""
    names = b"\0" + b"A" * 300_000 + b"\0"
    symbols = b"".join(struct.pack("<IBBHQQ", 1 + number, 0, 0, 0, 0, 0) for number in range(1000))
    tracemalloc.start()
    try:
        with pytest.raises(ObjectFormatError, match="a symbol with too long a name"):
            strip_debug(_object(symbols, names, []))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
