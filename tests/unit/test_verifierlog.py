# SPDX-License-Identifier: Apache-2.0
"""The kernel verifier's log: what it objects to, and at which line, as kernels old and new write it."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from labs.vectors.builder import Part, build
from labs.vectors.code import code, makes
from labs.vectors.maps import Btf

from buildtool.check.lines import LineInfo, read_line_info
from buildtool.check.model import Outcome, SourceLine
from buildtool.check.verifierlog import read_verdict
from buildtool.core.errors import ObjectFormatError
from buildtool.objects.elf import parse_object

# 6.18
NEW = """\
0: R1=ctx() R10=fp0
; char *data = (void *)(long)ctx->data; @ bad.bpf.c:9
0: (61) r1 = *(u32 *)(r1 +0)          ; R1=pkt(r=0)
; return data[0]; @ bad.bpf.c:11
1: (71) r0 = *(u8 *)(r1 +0)
invalid access to packet, off=0 size=1, R1(id=0,off=0,r=0)
R1 offset is outside of the packet
verification time 51 usec
stack depth 0
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 3 mark_read 0
"""
# 6.1: no file and line; the function's header and the states of registers stand between.
OLD = """\
reg type unsupported for arg#0 function by_group#17
0: R1=ctx(off=0,imm=0) R10=fp0
; value = bpf_cgrp_storage_get(&groups, 0, 0, 0);
0: (85) call unknown#210
invalid func unknown#210
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
LOOP = """\
; while (1) i++; @ bad.bpf.c:22
5: (05) goto pc-4
infinite loop detected at insn 2
cur state: R1=scalar(smin=umin=1) R10=fp0 fp-8=mmmm????
old state: R1=scalar(smin=umin=1) R10=fp0 fp-8=mmmm????
processed 15 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
"""
CORE = """\
; return t->no_such_member; @ bad.bpf.c:26
0: (79) r1 = *(u64 *)(r1 +8)
func 'sched_switch' arg1 has btf_id 114 type STRUCT 'task_struct'
1: R1=trusted_ptr_task_struct()
1: <invalid CO-RE relocation>
failed to resolve CO-RE relocation <byte_off> [28] struct task_struct.no_such_member (0:0 @ offset 0)
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
# 6.18 of a program that calls ten global functions
GLOBALS = """\
Validating f0() func#10...
10: R1=ctx() R10=fp0
; int f0(struct __sk_buff *s) { return s->len; } @ d.bpf.c:3
10: (61) r0 = *(u32 *)(r1 +0)         ; R0=scalar() R1=ctx()
11: (95) exit
Func#10 ('f0') is safe for any args that match its prototype
the call stack of 8 frames is too deep !
verification time 139 usec
stack depth 0+0+0+0+0+0+0+0+0+0+0
processed 31 insns (limit 1000000) max_states_per_insn 0 total_states 3 peak_states 3 mark_read 0
"""
# 6.1
ASSUMED = """\
; return f1(s) + 2;
11: (95) exit
Func#1 is global and valid. Skipping.
Func#10 is safe for any args that match its prototype
combined stack size of 2 calls is 544. Too large
processed 31 insns (limit 1000000) max_states_per_insn 0 total_states 3 peak_states 3 mark_read 0
"""
REGISTER = """\
from 3 to 5: R0=scalar() R10=fp0
; return a; @ x.c:3
5: (95) exit
R0 !read_ok
processed 4 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


@pytest.mark.parametrize(
    ("log", "reason", "line"),
    [
        (NEW, "invalid access to packet, off=0 size=1, R1(id=0,off=0,r=0)", 11),
        (OLD, "invalid func bpf_cgrp_storage_get#210 (since Linux 6.2)", 0),
        (LOOP, "infinite loop detected at insn 2", 22),
        (CORE, "failed to resolve CO-RE relocation <byte_off> [28] struct task_struct.no_such_member", 26),
        (REGISTER, "R0 !read_ok", 3),
        (GLOBALS, "the call stack of 8 frames is too deep !", 3),
        (ASSUMED, "combined stack size of 2 calls is 544. Too large", 0),
    ],
    ids=["new", "old", "loop", "core", "register", "globals", "assumed"],
)
def test_the_objection_and_its_line(log: str, reason: str, line: int) -> None:
    """The first line after the trace, and the last line of C before it."""
    verdict = read_verdict(22, "Invalid argument", log, "libbpf: prog 'x': failed to load: -22\n")
    assert verdict.outcome is Outcome.REFUSED
    assert verdict.reason.startswith(reason)
    assert verdict.source
    assert verdict.source.line == line
    assert verdict.log == log


def test_a_program_that_loads() -> None:
    """The log of a loaded program contains only statistics."""
    verdict = read_verdict(0, "", NEW[NEW.index("verification") :], "")
    assert (verdict.outcome, verdict.instructions, verdict.peak_states) == (Outcome.LOADS, 2, 3)


def test_a_log_that_did_not_fit() -> None:
    """A truncated log without a trace still gives the objection, without a line of C."""
    verdict = read_verdict(13, "Permission denied", NEW[NEW.index("invalid") :], "")
    assert verdict.reason.startswith("invalid access to packet")
    assert verdict.source is None


def test_a_failure_before_the_kernel_verifier() -> None:
    """Libbpf's first warning names the cause; without one the error number has to do."""
    said = (
        "libbpf: prog 'x': failed to find kernel BTF type ID of 'y': -3\nlibbpf: prog 'x': failed to load\n"
    )
    verdict = read_verdict(3, "No such process", "", said)
    assert verdict.outcome is Outcome.FAILED
    assert verdict.reason == "prog 'x': failed to find kernel BTF type ID of 'y': -3"
    assert "capability is missing" in read_verdict(1, "Operation not permitted", "", "").reason
    assert read_verdict(12, "Cannot allocate memory", "", "").reason == "Cannot allocate memory"


def _line_info(btf: Btf, *records: tuple[int, int, int], count: int = -1) -> LineInfo:
    """Return the lines of an object with *records* (file, text, line) for section xdp."""
    count = len(records) if count < 0 else count
    block = struct.pack("<III", 16, btf.name(b"xdp"), count)
    block += b"".join(struct.pack("<IIII", 0, file, text, line << 10) for file, text, line in records)
    head = struct.pack("<HBBIIIIIII", 0xEB9F, 1, 0, 32, 0, 0, 0, len(block), 0, 0)
    extension = Part(name=b".BTF.ext", data=head + block)
    return read_line_info(parse_object(build(makes(code(), btf.part(), extension))))


def _lines(here: list[SourceLine]) -> LineInfo:
    btf = Btf()
    return _line_info(
        btf, *((btf.name(b"./" + s.file.encode()), btf.name(s.text.encode()), s.line) for s in here)
    )


def test_lines_that_share_a_text_are_not_many_copies() -> None:
    """Twenty thousand records of one text of 4 KB would be 80 MB if each had its own copy."""
    btf = Btf()
    text = btf.name(b"x" * 4095)
    tracemalloc.start()
    try:
        lines = _line_info(btf, *((text, text, number) for number in range(20_000)))
        assert lines.locate("xdp", SourceLine(text="x" * 4095)) == SourceLine(text="x" * 4095)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_damaged_lines_are_one_error() -> None:
    """A count beyond the section, and a name that no section can have, are found before any line is read."""
    btf = Btf()
    with pytest.raises(ObjectFormatError, match="damaged BTF"):
        _line_info(btf, (0, 0, 1), count=2)
    # A text outside of the names is found when the line is searched, and tells nothing.
    source = SourceLine(text="exit();")
    assert _line_info(btf, (1 << 20, 1 << 20, 1)).locate("xdp", source) == source


def test_where_a_line_stands() -> None:
    """A text that occurs once gets path and line from BTF. A repeated text needs the kernel's line number."""
    here = [SourceLine(text="return 0;", file="bpf/x.c", line=line) for line in (3, 9)]
    here.append(SourceLine(text="exit();", file="bpf/x.c", line=5))
    lines = _lines(here)
    assert lines.locate("xdp", SourceLine(text="exit();")) == here[2]
    assert lines.locate("xdp", SourceLine(text="return 0;", file="x.c", line=9)) == here[1]
    for unknown in (SourceLine(text="return 0;"), SourceLine(text="other();", file="x.c", line=1)):
        assert lines.locate("xdp", unknown) == unknown
