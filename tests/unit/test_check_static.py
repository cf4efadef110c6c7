# SPDX-License-Identifier: Apache-2.0
"""Checks without a kernel: an object for each rule that breaks it, and facts."""

from __future__ import annotations

import random
import re
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from labs import TOP
from labs.compile import compile_sample, find_tool
from labs.sig import NOW, RELEASE, sign, unsigned
from labs.sig import test_key as alice
from labs.vectors.builder import SHT_STRTAB, Part, Recipe, build
from labs.vectors.code import EXIT, FLAGS_OF_CODE, SHT_SYMTAB, call

from buildtool.check import static as check_static
from buildtool.check.kernelfacts import (
    _MAPS,
    _PROGRAMS,
    Release,
    check_kernel_release,
    helper_since,
    map_since,
    program_since,
)
from buildtool.check.model import RULES, Level
from buildtool.check.static import StaticCheck, check_object
from buildtool.core.platforms import PLATFORMS
from buildtool.objects.elf import MAX_OBJECT_BYTES, parse_object
from buildtool.objects.helpers import HELPER_NUMBERS
from buildtool.objects.types import MAP_TYPES, SECTION_TYPES
from buildtool.signing.sign import Origin, sign_object

HEAD = """
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
typedef unsigned int u32; typedef unsigned long long u64;
#define NOINLINE static __attribute__((noinline))
/* So many bytes of stack, which no compiler makes smaller. */
#define STACK(bytes) asm volatile("*(u64 *)(r10 - " #bytes ") = r1" ::: "memory")
"""
GPL = 'char LICENSE[] SEC("license") = "GPL";'
OTHER = 'char LICENSE[] SEC("license") = "Proprietary";'
GOOD = 'SEC("xdp") int good(void *ctx) { return 2; }'
DEEP = "NOINLINE int deep(u64 x) { STACK(300); return x & 1; }"
TWO = "int two(u64 *ctx) { STACK(300); return deep(ctx[0]); }"
BIG = 'SEC("xdp") int big(void *c) { asm volatile(".rept 1001\\n r0 = r0\\n .endr"); return 2; }'
MEMORY = """struct { __uint(type, 2); __uint(max_entries, 1024); __uint(key_size, 4);
                    __uint(value_size, 131072); } m SEC(".maps");"""
READ = """static long (*read)(void *, u32, void *) = (void *)113;
          SEC("xdp") int bad(void *c) { u64 x; return read(&x, 8, c); }"""
NEW = 'static int (*new)(void) = (void *)999; SEC("xdp") int bad(void *c) { return new(); }'
VARIES = """SEC("xdp") int bad(u64 *c)
            { STACK(64); asm volatile("r2 = r10\\n r2 += %0" :: "r"(c[0]) : "r2"); return 0; }"""
AGAIN = """NOINLINE int again(u64 x) { STACK(8); return x > 1 ? again(x - 1) + again(x - 2) : 1; }
           SEC("xdp") int bad(u64 *c) { return again(c[0]); }"""
USDT_MAP = """struct { __uint(type, 2); __uint(max_entries, 1); __uint(key_size, 4); __uint(value_size, 4); }
              __bpf_usdt_specs SEC(".maps");"""
METRIC = 'u64 n __attribute__((btf_decl_tag("metric: %s counter help N")));'
COUNTED = 'SEC("xdp") int good(void *c) { return n++ & 1; }'
EVENTS = 'struct { __uint(type, 27); __uint(max_entries, 4096); } events SEC(".maps");'
FRAMES = 'SEC("xdp") int bad(u64 *c) {{ STACK(8); return f{}(c[0]); }}'


def chain(calls: int) -> str:
    """Return functions f0 to fN, each with a frame; the last calls all others in turn."""
    first = "NOINLINE int f0(u64 x) { STACK(8); return x & 1; }"
    more = (f"NOINLINE int f{n}(u64 x) {{ STACK(8); return f{n - 1}(x) + 1; }}" for n in range(1, calls + 1))
    return "\n".join([first, *more])


# The rule, what its message says, and the source that breaks it.
SOURCES = {
    "BT003": ("1003 instructions", BIG + GPL),
    "BT004": ("128 MiB on 16", MEMORY + GOOD + GPL),
    "BT005": ("'nonsense'", f'SEC("nonsense") int bad(void *c) {{ return 0; }} {GPL}'),
    "BT006": ("no program", f"int only_a_subprogram(int x) {{ return x; }} {GPL}"),
    "BT010": ("bpf_probe_read_kernel, for GPL", READ + OTHER),
    "BT011": ("license", GOOD),
    "BT012": ("number 999", NEW + GPL),
    "BT017": ("'usdt//bin/x:p:n' needs", f'SEC("usdt//bin/x:p:n") int bad(void *c) {{ return 0; }} {GPL}'),
    "BT020": ("520 bytes, of 512", f'SEC("xdp") int bad(void *c) {{ STACK(520); return 0; }} {GPL}'),
    "BT021": ("608 bytes in 2 frames", f'{DEEP} SEC("xdp") {TWO} {GPL}'),
    "BT022": ("not constant", VARIES + GPL),
    "BT023": ("calls itself", AGAIN + GPL),
    "BT050": ("Linux 5.8, after 5.4", EVENTS + GOOD + GPL),
    "BT070": ("metric n: the name of a metric of kind counter", METRIC % "n" + COUNTED + GPL),
}
# The rule, and a source that goes as far as it may.
ALMOST = {
    "BT003": BIG.replace("1001", "998") + GPL,
    "BT004": MEMORY.replace("1024", "512") + GOOD + GPL,
    "BT005": f'SEC("?tp/sched/nonsense") int good(void *c) {{ return 0; }} {GPL}',
    "BT006": f"int a_subprogram_too(int x) {{ return x; }} {GOOD} {GPL}",
    "BT010": READ + GPL.replace("GPL", "Dual BSD/GPL"),
    "BT011": GOOD + OTHER,
    "BT012": NEW.replace("999", "211") + GPL,
    "BT017": USDT_MAP + f'SEC("usdt//bin/x:y:z") int good(void *c) {{ return 0; }} {GPL}',
    "BT020": f'SEC("xdp") int good(void *c) {{ STACK(512); return 0; }} {GPL}',
    "BT021": f'{DEEP} SEC("xdp") {TWO.replace("300", "208")} {GPL}',
    "BT022": VARIES.replace("r2 += %0", "r2 += -8") + GPL,
    "BT023": f"{chain(6)} {FRAMES.format(6)} {GPL}",
    "BT050": EVENTS + GOOD + GPL,
    "BT070": METRIC % "n_total" + COUNTED + GPL,
}


def check(data: bytes, *, now: int = NOW, oldest: Release | None = None) -> StaticCheck:
    """Check *data* as x.bpf.o."""
    return check_object("x.bpf.o", "build/x.bpf.o", data, now=now, oldest=oldest)


def compiled(directory: Path, source: str) -> bytes:
    """Compile *source* and return the object."""
    return compile_sample(directory, source=HEAD + source).read_bytes()


def broken(result: StaticCheck) -> list[str]:
    """Return the numbers of the rules that were broken."""
    return [finding.rule for finding in result.findings]


@pytest.mark.tools
@pytest.mark.parametrize("rule", SOURCES)
def test_each_rule_finds_what_breaks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Each source of the table breaks its rule only, and the message contains the amount."""
    text, source = SOURCES[rule]
    monkeypatch.setattr(check_static, "MAX_INSTRUCTIONS", 1000)  # a million take seconds
    result = check(compiled(tmp_path, source), oldest=(5, 4) if rule == "BT050" else None)
    assert broken(result) == [rule]
    finding = result.findings[0]
    assert text in finding.message
    assert (finding.level, finding.hint) == (RULES[rule].level, RULES[rule].hint)


@pytest.mark.tools
@pytest.mark.parametrize("rule", ALMOST)
def test_what_goes_as_far_as_it_may_breaks_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """Objects at the limit of each rule cause no finding."""
    monkeypatch.setattr(check_static, "MAX_INSTRUCTIONS", 1000)
    assert ALMOST.keys() == SOURCES.keys()
    result = check(compiled(tmp_path, ALMOST[rule]), oldest=(5, 8) if rule == "BT050" else None)
    assert broken(result) == []
    assert result.facts


@pytest.mark.tools
def test_struct_ops_maps_without_a_program(tmp_path: Path) -> None:
    """A struct_ops map is content enough for an object. Section .struct_ops.link requires Linux 6.4."""
    source = f'struct a_ops {{ int x; }}; SEC(".struct_ops.link") struct a_ops ops = {{ 1 }}; {GPL}'
    data = compiled(tmp_path, source)
    assert broken(check(data, oldest=(6, 4))) == []
    messages = [finding.message for finding in check(data, oldest=(5, 5)).findings]
    assert messages == [
        "map ops of type struct_ops came with Linux 5.6, after 5.5",
        "section '.struct_ops.link' came with Linux 6.4, after 5.5",
    ]


@pytest.mark.tools
def test_function_of_another_object_is_no_kernel_function(tmp_path: Path) -> None:
    """BT016, and nothing about the licence; a kernel function in .ksyms needs a GPL one."""
    license_text = 'SEC("license") char LICENSE[] = "BSD";'
    source = f'int other(int); SEC("xdp") int f(void *c) {{ return other(1); }} {license_text}'
    result = check(compiled(tmp_path, source))
    assert [(finding.rule, finding.message) for finding in result.findings] == [
        ("BT016", "calls other, which is neither in the object nor a kernel function (__ksym)")
    ]
    assert result.facts
    assert result.facts.kfuncs == ()
    source = source.replace("int other(int);", 'extern int other(int) __attribute__((section(".ksyms")));')
    assert broken(check(compiled(tmp_path, source))) == ["BT010"]


@pytest.mark.tools
def test_a_million_instructions(tmp_path: Path) -> None:
    """The limit itself: one more breaks BT003."""
    for count, rules in ((999_998, []), (999_999, ["BT003"])):
        result = check(compiled(tmp_path, BIG.replace("1001", str(count)) + GPL))
        assert broken(result) == rules


@pytest.mark.tools
def test_nine_frames_are_too_many(tmp_path: Path) -> None:
    """Nine frames are too many for a kernel, eight are not."""
    result = check(compiled(tmp_path, f"{chain(7)} {FRAMES.format(7)} {GPL}"))
    assert [(f.rule, f.message) for f in result.findings] == [("BT023", "is 9 frames deep")]


@pytest.mark.tools
def test_a_good_object_breaks_none(tmp_path: Path) -> None:
    """No finding at all, even for an old kernel."""
    result = check(compiled(tmp_path, GOOD + GPL), oldest=(5, 4))
    assert result.findings == ()
    assert result.facts


@pytest.mark.parametrize(
    "data",
    [b"", b"not an object", unsigned()[:-1], unsigned()[:100], Path("/bin/true").read_bytes()],
    ids=["empty", "text", "cut", "head", "program"],
)
def test_what_is_no_object_is_a_finding(data: bytes) -> None:
    """BT001 with the first rule of the profile that it breaks, and no facts."""
    result = check(data)
    assert (broken(result), result.facts) == (["BT001"], None)


def test_an_object_above_the_limit_is_not_parsed() -> None:
    """BT002, with the size of the whole file."""
    result = check(bytes(MAX_OBJECT_BYTES + 1))
    assert (broken(result), result.facts) == (["BT002"], None)
    (finding,) = check_object("x", "x", bytes(MAX_OBJECT_BYTES + 1), now=0, size=123_000_000).findings
    assert finding.message == f"123000000 bytes, more than {MAX_OBJECT_BYTES}"


@pytest.mark.tools
def test_tracing_programs_may_get_a_stack_for_each_function(tmp_path: Path) -> None:
    """A deep call chain is an error for an XDP program, and a warning for a tracing program."""
    result = check(compiled(tmp_path, f'{DEEP} SEC("tp_btf/sched_switch") {TWO} {GPL}'))
    assert [(f.rule, f.level) for f in result.findings] == [("BT021", Level.WARNING)]


@pytest.mark.tools
def test_types_that_are_for_gpl_programs(tmp_path: Path) -> None:
    """LSM programs and programs that call a kernel function require a GPL license."""
    source = f"""extern void bpf_rcu_read_lock(void) __attribute__((section(".ksyms")));
        SEC("lsm/file_open") int lsm(void *c) {{ bpf_rcu_read_lock(); return 0; }} {OTHER}"""
    messages = [finding.message for finding in check(compiled(tmp_path, source)).findings]
    assert [message.partition(",")[0] for message in messages] == [
        "calls bpf_rcu_read_lock",
        "is of type lsm",
    ]


@pytest.mark.tools
@pytest.mark.parametrize(
    ("gone", "rules"),
    [((".BTF", ".BTF.ext"), ["BT030"]), ((".BTF",), ["BT031"]), ((), [])],
    ids=["none", "half", "whole"],
)
def test_missing_btf(tmp_path: Path, gone: tuple[str, ...], rules: list[str]) -> None:
    """Without BTF a warning; with CO-RE relocations that refer to it, an error."""
    source = f"""struct task_struct {{ int pid; }} __attribute__((preserve_access_index));
        SEC("tp_btf/sched_switch") int core(u64 *c) {{ return ((struct task_struct *)c[1])->pid; }} {GPL}"""
    compiled(tmp_path, source)
    objcopy = find_tool("llvm-objcopy", "llvm-objcopy-19", "llvm-objcopy-22")
    removed = [f"--remove-section={name}" for name in gone]
    subprocess.run([objcopy, *removed, tmp_path / "x.bpf.o", tmp_path / "y.o"], check=True)
    assert broken(check((tmp_path / "y.o").read_bytes())) == rules


@pytest.mark.parametrize(
    ("days", "rules"), [(-1, ["BT040"]), (0, ["BT041"]), (29, ["BT041"]), (30, []), (31, [])]
)
def test_expiry(days: int, rules: list[str]) -> None:
    """An object whose time has passed is an error, one whose time is near a warning."""
    release = replace(RELEASE, not_after=NOW + days * 86400)
    origin = Origin(platform=PLATFORMS["arm64"])
    data = sign_object(parse_object(unsigned()), "x.bpf.o", alice(), release, origin)[0]
    result = check(data)
    assert [rule for rule in broken(result) if rule.startswith("BT04")] == rules
    assert result.facts
    assert result.facts.platform == "linux/arm64"


def test_a_signature_that_no_verifier_reads() -> None:
    """BT042, and the rest of the object is checked all the same."""
    data = bytearray(sign())
    assert "BT042" not in broken(check(bytes(data)))
    at = data.index(b"\x7fBPFSIG\0")
    data[at + 8] = 9  # version
    result = check(bytes(data))
    assert "BT042" in broken(result)
    assert result.facts


@pytest.mark.tools
def test_damaged_objects_give_findings_and_nothing_else(tmp_path: Path) -> None:
    """Any changed bytes result in facts or BT001, and no exception."""
    whole = compiled(tmp_path, f'{EVENTS} {DEEP} SEC("xdp") {TWO} {GPL}')
    rng = random.Random(20260101)  # noqa: S311 - no secret
    numbers = (0, 1, 8, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(whole))
    unreadable = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            at = rng.randrange(len(data))
            data[at] = rng.randrange(256)
            if rng.random() < 0.5:
                at = min(at & ~7, len(data) - 8)
                data[at : at + 8] = rng.choice(numbers).to_bytes(8, "little")
        result = check(bytes(data), oldest=(5, 4))
        unreadable += result.facts is None
    assert 100 < unreadable < 1400


ADDRESSES = {
    # The kernel accepts the first: an address below the frame, and a store 512 bytes below the frame's top.
    "r1 = r10; r1 += -513; r0 = 7; *(u8 *)(r1 + 1) = r0; exit;": [],
    "r1 = r10; r1 += -513; r0 = 7; *(u8 *)(r1 + 0) = r0; exit;": ["BT020"],
    "r1 = r10; r1 += -600; r1 += 400; r0 = *(u8 *)(r1 + 0); exit;": [],
    "r1 = r10; r1 += -600; call 35; exit;": ["BT020"],
    "r6 = r10; r6 += -600; call 35; exit;": [],
    "r2 = r10; r2 += -600; r2 += r1; r0 = *(u8 *)(r2 + 0); exit;": ["BT020", "BT022"],
}


@pytest.mark.tools
@pytest.mark.parametrize("code", ADDRESSES)
def test_addresses_alone_use_no_stack(tmp_path: Path, code: str) -> None:
    """Loads, stores and arguments of calls use the stack. Arithmetic on an address does not."""
    source = f'SEC("socket") __attribute__((naked)) int f(void) {{ asm volatile("{code}"); }} {GPL}'
    assert broken(check(compiled(tmp_path, source))) == ADDRESSES[code]


@pytest.mark.tools
def test_calls_without_end_are_unbounded(tmp_path: Path) -> None:
    """An endless call chain is reported as unbounded, and does not exhaust Python's stack."""
    source = f"{chain(1499)} {FRAMES.format(1499)} {GPL}"
    assert "BT023" in broken(check(compiled(tmp_path, source)))


@pytest.mark.parametrize(("programs", "fits"), [(10, True), (1100, False)])
def test_programs_that_reach_much_together(programs: int, *, fits: bool) -> None:
    """Each program calls a function that calls 1,000 others. One walk is cheap, thousands take minutes."""
    leaves = 1000
    # Slots: the programs (call of the hub, exit), the hub (calls of all leaves, exit), the leaves (exit).
    hub, first = 2 * programs, 2 * programs + leaves + 1
    slots = [part for i in range(programs) for part in (call(hub - 2 * i - 1, source=1), EXIT)]
    slots += [call(first + i - (hub + i) - 1, source=1) for i in range(leaves)] + [EXIT]
    starts = [*range(0, hub, 2), hub, *range(first, first + leaves)]
    names = b"\0" + b"".join(b"f%05d\0" % at for at in starts)
    symbols = bytes(24) + b"".join(
        struct.pack("<IBBHQQ", 1 + 7 * i, 0x12 if at < hub else 2, 0, 1, 8 * at, 0)
        for i, at in enumerate(starts)
    )
    parts = (
        Part(name=b"xdp", data=b"".join(slots) + EXIT * leaves, flags=FLAGS_OF_CODE),
        Part(name=b".names", data=names, type=SHT_STRTAB),
        Part(name=b".symtab", data=symbols, type=SHT_SYMTAB, fields={"link": 2, "entsize": 24}),
    )
    result = check(build(Recipe(parts=parts)))
    assert (result.facts is not None) == fits
    assert any("reach too many functions" in finding.message for finding in result.findings) != fits


@pytest.mark.tools
def test_facts_of_an_object(tmp_path: Path) -> None:
    """Instructions with called functions, stack, helpers by name, memory of maps and capabilities."""
    source = f"""
        struct {{ __uint(type, 5); __uint(max_entries, 1000); __uint(key_size, 4); __uint(value_size, 12);
               }} m SEC(".maps");
        static void *(*lookup)(void *, const void *) = (void *)1; u64 variable = 1;
        {DEEP} SEC("xdp") int two(u64 *c)
        {{ u32 k = 1; STACK(40); lookup(&m, &k); return deep(c[0]); }} {GPL}"""
    facts = check(compiled(tmp_path, source)).facts
    assert facts
    program = facts.programs[0]
    assert (program.name, program.type, program.stack_bytes) == ("two", "xdp", 304 + 48)
    dump = find_tool("llvm-objdump", "llvm-objdump-19", "llvm-objdump-22")
    done = subprocess.run([dump, "-d", tmp_path / "x.bpf.o"], capture_output=True, text=True, check=True)
    slots = [int(slot) for slot in re.findall(r"^\s+(\d+):", done.stdout, re.MULTILINE)]
    # Each function ends in an exit of one slot; both are of this program.
    assert program.instructions == sum(
        slots[i] + 1 for i in range(len(slots)) if i + 1 == len(slots) or slots[i + 1] == 0
    )
    assert facts.helpers == ("bpf_map_lookup_elem",)
    assert facts.map_bytes_per_cpu == 1000 * 16
    assert facts.map_bytes == 1000 * (48 + 8 + 8) + 16 * 1024 + 8
    assert facts.capabilities == ("BPF", "NET_ADMIN")


@pytest.mark.tools
def test_big_endian_objects_are_measured_alike(tmp_path: Path) -> None:
    """The two byte orders of one source have the same instructions and stack."""
    source = f'{DEEP} SEC("xdp") {TWO} {GPL}'
    facts = []
    for target in ("bpfel", "bpfeb"):
        path = compile_sample(tmp_path, target=target, source=HEAD + source)
        found = check(path.read_bytes()).facts
        assert found
        facts.append(found.programs)
    assert facts[0] == facts[1]


@pytest.mark.tools
def test_a_program_that_may_ask_first_is_not_failed(tmp_path: Path) -> None:
    """With CO-RE relocations code that the kernel lacks may be left out at load: a warning, no error."""
    source = f"""struct task_struct {{ int pid; }} __attribute__((preserve_access_index)); {EVENTS}
        SEC("raw_tp/sys_enter") int core(u64 *c) {{ return ((struct task_struct *)c[1])->pid; }} {GPL}"""
    result = check(compiled(tmp_path, source), oldest=(5, 4))
    assert [(f.rule, f.level) for f in result.findings] == [("BT050", Level.WARNING)]


def test_since_when_there_is_what() -> None:
    """A few well-known ones, the ends of the table, and what it does not have; its names are libbpf's."""
    assert set(_MAPS) <= set(MAP_TYPES)
    assert set(_PROGRAMS) <= set(SECTION_TYPES.values())
    names = {
        "map_lookup_elem": (3, 19),
        "ringbuf_output": (5, 8),
        "cgrp_storage_get": (6, 2),
    }
    assert {name: helper_since(HELPER_NUMBERS[f"bpf_{name}"]) for name in names} == names
    assert helper_since(max(HELPER_NUMBERS.values())) == (6, 2)
    assert helper_since(max(HELPER_NUMBERS.values()) + 1) is None
    assert (map_since("hash"), map_since("queue"), map_since("arena")) == (None, (4, 20), (6, 9))
    assert program_since("kprobe", "kprobe/x") is None
    assert program_since("xdp", "xdp") == (4, 8)
    assert program_since("tracing", "iter/task") == (5, 8)
    assert program_since("tracing", "fentry/x") == (5, 5)
    assert program_since("xdp", "?xdp.frags") == (5, 18)
    assert program_since("kprobe", "kprobe.multi/x*") == (5, 18)
    assert program_since("netfilter", "netfilter") == (6, 4)


@pytest.mark.parametrize("text", ["", "six", "6", "6.", "6.x", "-6.1"])
def test_a_release_that_is_none(text: str) -> None:
    """Text that is no Linux release is a usage error."""
    with pytest.raises(Exception, match="not a Linux release"):
        check_kernel_release(text)


def test_every_rule_is_documented_and_tried() -> None:
    """The reference has a row for each rule, in order, with its level; a test breaks each."""
    page = (TOP / "docs/reference/check-rules.md").read_text("utf-8")
    rows = re.findall(r"^\| (BT\d+) \| (\w+) \| ([^|]+) \|", page, re.MULTILINE)
    assert rows == [(rule.number, rule.level.value, rule.title) for rule in RULES.values()]
    names = (
        *("kernel/test_check.py", "vm/test_check_vm.py", "cli/test_check_opening.py", "cli/test_stale.py"),
        "labs/check.py",
    )
    tests = [Path(__file__), *(TOP / "tests" / name for name in names)]
    tried = {rule for path in tests for rule in re.findall(r"BT\d+", path.read_text("utf-8"))}
    assert set(RULES) <= tried
