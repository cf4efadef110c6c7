# SPDX-License-Identifier: Apache-2.0
"""Check objects without a kernel: collect facts, and apply the rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from buildtool.check.kernelfacts import (
    GPL_HELPERS,
    GPL_LICENSES,
    GPL_PROGRAMS,
    Release,
    helper_since,
    map_section_since,
    map_since,
    program_since,
)
from buildtool.check.lines import read_line_info
from buildtool.check.mapdefs import find_impossible_maps
from buildtool.check.memory import MapMemory, estimate_maps
from buildtool.check.model import RULES, Finding, Level, ObjectFacts, ProgramFacts
from buildtool.check.stack import FRAME_BYTES, MAX_FRAMES, Meter, Usage, read_functions
from buildtool.core.errors import ObjectFormatError
from buildtool.core.strictjson import format_time
from buildtool.metrics.declared import read_object_metrics
from buildtool.objects.btf import Btf
from buildtool.objects.capabilities import find_capabilities
from buildtool.objects.describe import ObjectContents, ProgramInfo
from buildtool.objects.elf import (
    MAX_OBJECT_BYTES,
    ElfObject,
    LinkTables,
    Symbol,
    check_relocation_tables,
    has_signature_section,
    parse_object,
    read_link_tables,
)
from buildtool.objects.helpers import helper_name
from buildtool.objects.points import STRUCT_OPS, struct_ops_sections
from buildtool.objects.tables import SHT_REL
from buildtool.objects.types import UNKNOWN_PROGRAM, Declaration
from buildtool.signing.statement import Statement, describe_stated, has_passed, read_statement

MAX_INSTRUCTIONS = 1_000_000
MUCH_MEMORY_BYTES = 64 * 1024 * 1024
MEMORY_CPUS = 16  # CPUs of an ordinary node, for the estimate of per-CPU maps
SOON_SECONDS = 30 * 24 * 3600
# Since Linux 6.13, functions of these program types may have a private stack.
_PRIVATE_STACK = frozenset(("kprobe", "tracepoint", "perf_event", "raw_tracepoint", "tracing"))
_USDT = frozenset(("usdt", "usdt.s"))
_USDT_MAP = "__bpf_usdt_specs"
_EMPTY = Usage(instructions=0, frame=0, chain=0, frames=0, varies=False, recursive=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticCheck:
    """The *facts* of an object, or None if it is unreadable, and its *findings*."""

    facts: ObjectFacts | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """An object with all input of the rules."""

    name: str
    obj: ElfObject
    contents: ObjectContents
    usage: dict[str, Usage]
    memory: MapMemory
    kfuncs: tuple[str, ...]
    statement: Statement | None
    has_relocations: bool
    struct_ops: frozenset[str]


def check_object(
    name: str,
    path: str,
    data: bytes,
    *,
    now: int,
    oldest: Release | None = None,
    size: int = 0,
    declared: Sequence[Declaration] = (),
) -> StaticCheck:
    """
    Return the facts and findings of *data*, the object called *name*, at time *now*.

    *oldest* is the oldest Linux release that must load the object. A file that is no object results
    in a finding instead of an error. *size* is that of the file, if *data* is the beginning of a larger one.
    *declared* are the types of sections that libbpf does not know, of an object without a statement.
    """
    if len(data) > MAX_OBJECT_BYTES:
        message = f"{max(size, len(data))} bytes, more than {MAX_OBJECT_BYTES}"
        return StaticCheck(facts=None, findings=(RULES["BT002"].finding(name, message),))
    try:
        obj = parse_object(data)
        contents, lines = describe_stated(obj, declared), read_line_info(obj)
        tables = read_link_tables(obj)
        usage = _measure(obj, tables, contents.programs)
        struct_ops = _struct_ops_functions(obj, tables.symbols)
        kfuncs = _kernel_functions(obj, contents)
    except ObjectFormatError as error:
        return StaticCheck(facts=None, findings=(RULES["BT001"].finding(name, error.message),))
    statement, malformed = _read_statement(name, obj)
    read = _Read(
        name=name,
        obj=obj,
        contents=contents,
        usage=usage,
        memory=estimate_maps(obj, contents.maps),
        kfuncs=kfuncs,
        statement=statement,
        has_relocations=lines.has_relocations,
        struct_ops=struct_ops,
    )
    findings = [
        *malformed,
        *_check_contents(read),
        *(found for program in contents.programs for found in _check_program(read, program)),
        *_check_times(read, now),
        *(_check_release(read, oldest) if oldest else ()),
    ]
    return StaticCheck(facts=_facts(read, path, len(data)), findings=tuple(findings))


def _kernel_functions(obj: ElfObject, contents: ObjectContents) -> tuple[str, ...]:
    """
    Return the functions of *contents* that its BTF declares in .ksyms. Without BTF, all of them count.

    A statement lists each called function that the object lacks (spec/trust-policy.md), so that none is
    hidden from a policy. libbpf looks for those of .ksyms in the kernel, and refuses other calls.
    """
    section = next((each for each in obj.sections if each.name == b".BTF"), None)
    if not contents.kfuncs or section is None:
        return contents.kfuncs
    declared = Btf(obj.contents(section), obj.order).group_names(b".ksyms")
    return tuple(name for name in contents.kfuncs if name in declared)


def _measure(obj: ElfObject, tables: LinkTables, programs: Sequence[ProgramInfo]) -> dict[str, Usage]:
    meter = Meter(read_functions(obj, tables))
    sections = {section.name.decode("utf-8", "replace"): i for i, section in enumerate(obj.sections)}
    return {p.name: meter.measure(p.name, sections[p.section]) or _EMPTY for p in programs}


def _read_statement(name: str, obj: ElfObject) -> tuple[Statement | None, list[Finding]]:
    if not has_signature_section(obj):
        return None, []
    try:
        return read_statement(obj), []
    except ObjectFormatError as error:
        return None, [RULES["BT042"].finding(name, error.message)]


def _facts(read: _Read, path: str, size: int) -> ObjectFacts:
    contents = read.contents
    programs = tuple(
        ProgramFacts(
            name=p.name,
            section=p.section,
            type=p.type,
            instructions=read.usage[p.name].instructions,
            stack_bytes=read.usage[p.name].chain,
        )
        for p in contents.programs
    )
    capabilities = find_capabilities(
        [p.loaded_as for p in contents.programs],
        helpers=contents.helpers,
        maps=[m.type for m in contents.maps],
    )
    return ObjectFacts(
        name=read.name,
        path=path,
        platform=read.statement.platform if read.statement else "",
        size=size,
        programs=programs,
        points=tuple(sorted({item.point for item in contents.maps if item.point})),
        helpers=tuple(map(helper_name, contents.helpers)),
        kfuncs=read.kfuncs,
        map_bytes=read.memory.fixed,
        map_bytes_per_cpu=read.memory.per_cpu,
        license=contents.license,
        capabilities=capabilities,
    )


def _check_contents(read: _Read) -> Iterator[Finding]:
    contents, name = read.contents, read.name
    if not contents.programs and not any(item.struct for item in contents.maps):
        yield RULES["BT006"].finding(name, "holds no program")
    if not contents.license:
        yield RULES["BT011"].finding(name, "says nothing about its license: kernels take it for proprietary")
    if (memory := read.memory.at(MEMORY_CPUS)) > MUCH_MEMORY_BYTES:
        message = f"full maps take about {memory // 2**20} MiB on {MEMORY_CPUS} CPUs"
        yield RULES["BT004"].finding(name, message)
    for map_name, reason in find_impossible_maps(read.obj):
        yield RULES["BT013"].finding(name, f"map {map_name}: {reason}")
    has_btf = any(section.name == b".BTF" for section in read.obj.sections)
    if read.has_relocations and not has_btf:
        yield RULES["BT031"].finding(name, "has CO-RE relocations, but no BTF that they refer to")
    elif not has_btf:
        yield RULES["BT030"].finding(name, "has no BTF: no maps by libbpf's macros, no lines of C in logs")
    if contents.license not in GPL_LICENSES:
        yield from _check_license(read)
    yield from _check_calls(read)
    try:
        read_object_metrics(read.obj)
    except ObjectFormatError as error:
        yield RULES["BT070"].finding(name, error.message)


def _check_calls(read: _Read) -> Iterator[Finding]:
    """Yield a finding for each called function and helper that is unknown."""
    for function in sorted(set(read.contents.kfuncs) - set(read.kfuncs)):
        message = f"calls {function}, which is neither in the object nor a kernel function (__ksym)"
        yield RULES["BT016"].finding(read.name, message)
    for number in read.contents.helpers:
        if helper_since(number) is None:
            yield RULES["BT012"].finding(
                read.name, f"calls helper number {number}, which is in no table here"
            )


def _check_license(read: _Read) -> Iterator[Finding]:
    """Yield a finding for each helper, kernel function and program type that requires a GPL license."""
    contents = read.contents
    license_text = contents.license or "none"
    wanted = [*(helper_name(n) for n in contents.helpers if n in GPL_HELPERS), *read.kfuncs]
    for what in wanted:
        yield RULES["BT010"].finding(
            read.name, f"calls {what}, for GPL programs only; license: {license_text}"
        )
    for program in contents.programs:
        if program.type in GPL_PROGRAMS:
            message = f"is of type {program.type}, for GPL programs only; license: {license_text}"
            yield RULES["BT010"].finding(read.name, message, program=program.name)


def _check_section(read: _Read, program: ProgramInfo) -> Iterator[Finding]:
    """Yield what the section of *program* cannot be loaded or attached as."""
    level = Level.WARNING if program.is_optional else None

    def finding(rule: str, message: str, level: Level | None = None) -> Finding:
        return RULES[rule].finding(read.name, message, program=program.name, level=level)

    if program.type == UNKNOWN_PROGRAM:
        yield finding("BT005", f"section {program.section!r} means no type of program to libbpf")
    if program.type == "ext":
        if not program.loaded_as.partition("/")[2]:
            yield finding("BT014", f"section {program.section!r} names no function to replace", level)
        else:
            message = f"section {program.section!r} replaces a function of a program that the start names"
            yield finding("BT014", f"{message}, so no kernel tries it here", Level.NOTE)
    if program.loaded_as.partition("/")[0] in _USDT and not any(
        item.name == _USDT_MAP for item in read.contents.maps
    ):
        yield finding("BT017", f"section {program.section!r} needs the map {_USDT_MAP}", level)
    if program.type == STRUCT_OPS and not program.is_optional and program.name not in read.struct_ops:
        yield finding("BT015", "no struct_ops map names it")


def _check_program(read: _Read, program: ProgramInfo) -> Iterator[Finding]:
    usage = read.usage[program.name]

    def finding(rule: str, message: str, level: Level | None = None) -> Finding:
        return RULES[rule].finding(read.name, message, program=program.name, level=level)

    yield from _check_section(read, program)
    if usage.instructions > MAX_INSTRUCTIONS:
        yield finding("BT003", f"{usage.instructions} instructions")
    if usage.recursive or usage.frames > MAX_FRAMES:
        what = "calls itself" if usage.recursive else f"is {usage.frames} frames deep"
        yield finding("BT023", what)
    if usage.frame > FRAME_BYTES:
        yield finding("BT020", f"a frame of {usage.frame} bytes, of {FRAME_BYTES}")
    elif usage.chain > FRAME_BYTES:
        level = Level.WARNING if program.type in _PRIVATE_STACK else Level.ERROR
        yield finding("BT021", f"{usage.chain} bytes in {usage.frames} frames, of {FRAME_BYTES}", level)
    if usage.varies:
        yield finding("BT022", "uses the stack at an offset that is not constant")


def _struct_ops_functions(obj: ElfObject, symbols: Sequence[Symbol]) -> frozenset[str]:
    """Return the names of the functions to which relocations in struct_ops sections refer."""
    names = struct_ops_sections(obj)
    tables = [
        table
        for table in obj.sections
        if table.type == SHT_REL and table.info < len(obj.sections) and obj.sections[table.info].name in names
    ]
    check_relocation_tables(obj, tables)
    return frozenset(
        symbols[relocation.symbol].name
        for table in tables
        for relocation in obj.relocations(table)
        if relocation.symbol < len(symbols)
    )


def _check_times(read: _Read, now: int) -> Iterator[Finding]:
    not_after = read.statement.not_after if read.statement else None
    if not_after is None:
        return
    if has_passed(not_after, now):
        yield RULES["BT040"].finding(read.name, f"not accepted after {format_time(not_after)}")
    elif now + SOON_SECONDS > not_after:
        yield RULES["BT041"].finding(read.name, f"not accepted after {format_time(not_after)}")


def _check_release(read: _Read, release: Release) -> Iterator[Finding]:
    """
    Yield a finding for each helper, map type and section that Linux *release* lacks.

    For an object with CO-RE relocations, the finding is a warning, because its code may test for
    the feature first. A kernel with backports may have the feature, which only a dry run shows.
    """
    level = Level.WARNING if read.has_relocations else Level.ERROR
    for program, what, since in _find_news(read.contents):
        if since > release:
            message = f"{what} came with Linux {_dotted(since)}, after {_dotted(release)}"
            yield RULES["BT050"].finding(read.name, message, program=program, level=level)


def first_release(contents: ObjectContents) -> Release | None:
    """Return the first Linux release with all that *contents* use, or None if that is not newer than 4.4."""
    return max((since for _, _, since in _find_news(contents)), default=None)


def _find_news(contents: ObjectContents) -> Iterator[tuple[str, str, Release]]:
    """Yield program, name and first release of what a kernel may be too old for."""
    found: list[tuple[str, str, Release | None]] = [
        ("", f"helper {helper_name(n)}", helper_since(n)) for n in contents.helpers
    ]
    found += [("", f"map {m.name} of type {m.type}", map_since(m.type)) for m in contents.maps]
    found += [("", f"section {m.section!r}", map_section_since(m.section)) for m in contents.maps]
    found += [
        (p.name, f"section {p.section!r}", program_since(p.type, p.loaded_as)) for p in contents.programs
    ]
    for program, what, since in found:
        if since is not None:
            yield program, what, since


def _dotted(release: Release) -> str:
    return ".".join(map(str, release))
