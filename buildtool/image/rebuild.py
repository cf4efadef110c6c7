# SPDX-License-Identifier: Apache-2.0
"""
Rebuilds the objects of an image from this project's sources and says what differs.

What is compared is the subject: every byte of an object but the signatures. The
image is not believed: recorded flags are used only if they are of the kinds that
a configuration may have, and nothing of the image is started.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from buildtool.compile import toolchain as tools
from buildtool.compile import ziglang
from buildtool.compile.headers import Headers
from buildtool.compile.sources import CompileOptions, compile_sources
from buildtool.compile.toolchain import Toolchain
from buildtool.core.errors import (
    CompileError,
    FileAccessError,
    ObjectFormatError,
    ToolFailedError,
    ToolMissingError,
    UsageError,
)
from buildtool.core.files import read_bounded
from buildtool.core.platforms import PLATFORMS, Platform
from buildtool.core.validate import check_flag, check_relative_path
from buildtool.image.compare import ObjectKey
from buildtool.objects.elf import (
    MAX_OBJECT_BYTES,
    ElfObject,
    append_signature_section,
    blank_section,
    find_signature_section,
    has_signature_section,
    parse_object,
)
from buildtool.signing.record import from_bytes as parse_record
from buildtool.signing.statement import Statement
from buildtool.signing.statement import from_bytes as parse_statement


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionDifference:
    """A section that differs: its *section* name, both sizes, and where the first other byte is."""

    section: str
    image_size: int | None
    rebuilt_size: int | None
    first_difference: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVerdict:
    """
    What came of one object: *equal*, or why not.

    *problems* say it for people, one sentence each; *notes* are differences
    that need not matter (another compiler gave the same bytes).
    """

    platform: str
    name: str
    equal: bool
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sections: tuple[SectionDifference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shipped:
    """An object of the image, as its statement describes it."""

    obj: ElfObject
    statement: Statement
    platform: Platform
    include: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


def compare_objects(
    objects: Mapping[ObjectKey, bytes], root: Path, find: Callable[[str], Toolchain], headers: Headers | None
) -> list[ObjectVerdict]:
    """
    Rebuild *objects* from the sources below *root* and return a verdict on each, in order.

    *find* gives the compiler that is nearest to a recorded one; *headers* are those of Linux and libbpf.

    Raises: FileAccessError, ToolMissingError, ToolFailedError.
    """
    verdicts: dict[ObjectKey, ObjectVerdict] = {}
    shipped: dict[ObjectKey, _Shipped] = {}
    for (platform, name), data in objects.items():
        try:
            shipped[platform, name] = _read_shipped(platform, name, data)
        except (ObjectFormatError, UsageError) as error:
            verdicts[platform, name] = _unequal((platform, name), [error.message])
    for key, item in shipped.items():
        options = CompileOptions(root=root, headers=headers, include=item.include, flags=item.flags)
        verdicts[key] = _rebuild(key, item, options, find)
    return [verdicts[key] for key in sorted(verdicts)]


def _read_shipped(platform: str, name: str, data: bytes) -> _Shipped:
    """Read what is needed to make the object again out of its statement, none of which is believed."""
    obj = parse_object(data)
    if not has_signature_section(obj):
        raise ObjectFormatError("not signed, so nothing says how it was made")
    statement = parse_statement(parse_record(obj.contents(find_signature_section(obj))).statement)
    if statement.toolchain is None or statement.source is None:
        raise ObjectFormatError("the statement does not say how it was made")
    target = next((item for item in PLATFORMS.values() if item.oci == statement.platform), None)
    if target is None or statement.platform != platform or statement.name != name:
        raise ObjectFormatError(f"the statement is for {statement.name} on {statement.platform}")
    check_relative_path(statement.source.path)
    forced = tuple(tools.forced_flags(target))
    if statement.toolchain.flags[: len(forced)] != forced:
        raise ObjectFormatError(
            "compiled with other flags than this buildtool's: " + " ".join(statement.toolchain.flags)[:300]
        )
    include, flags = _split_flags(statement.toolchain.flags[len(forced) :])
    return _Shipped(obj=obj, statement=statement, platform=target, include=include, flags=flags)


def _split_flags(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return directories of includes and other flags; none that would name a file or a program."""
    include = []
    rest = list(words)
    while len(rest) >= 2 and rest[0] == "-I":
        include.append(check_relative_path(rest[1]))
        rest = rest[2:]
    return tuple(include), tuple(check_flag(word) for word in rest)


def _rebuild(
    key: ObjectKey, item: _Shipped, options: CompileOptions, find: Callable[[str], Toolchain]
) -> ObjectVerdict:
    record = item.statement
    assert record.source
    assert record.toolchain
    toolchain = find(record.toolchain.compiler)
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        outputs = [(item.platform, Path(work, "objects"))]
        try:
            (made,) = compile_sources(toolchain, [record.source.path], outputs, options).objects
            data = read_bounded(made.path, MAX_OBJECT_BYTES)
        except (CompileError, FileAccessError, UsageError) as error:
            return _unequal(key, [f"cannot be made again: {error.message}"])
    notes = _compare_record(record, toolchain.name, made.source.sha256)
    return _compare(key, item.obj, parse_object(data), notes)


def nearest_toolchain(configured: str) -> Callable[[str], Toolchain]:
    """
    Return what finds the compiler of a record: the *configured* or newest clang, or one of the version meant.

    That may be the clang of package ziglang: images are built where there is no other.

    Raises: ToolMissingError, ToolFailedError; so does what it returns.
    """
    usual = tools.find_toolchain(configured)

    @cache
    def find(recorded: str) -> Toolchain:
        version = re.fullmatch(r"clang (\d+)[0-9.]*", recorded)
        if usual.name == recorded or version is None:
            return usual
        for name in (f"clang-{version[1]}", ziglang.NAME):
            try:
                other = tools.find_toolchain(name)
            except (ToolMissingError, ToolFailedError):
                continue
            if other.name == recorded:
                return other
        return usual

    return find


def _compare_record(statement: Statement, compiler: str, sources: str) -> list[str]:
    assert statement.toolchain
    assert statement.source
    notes = []
    if statement.toolchain.compiler != compiler:
        notes.append(f"compiled by {statement.toolchain.compiler}, here is {compiler}")
    if statement.source.sha256 != sources:
        notes.append(f"{statement.source.path} or a file that it includes is another here")
    return notes


def _compare(key: ObjectKey, shipped: ElfObject, rebuilt: ElfObject, notes: list[str]) -> ObjectVerdict:
    """Compare the subjects: the rebuilt object gets room for signatures as the shipped one has."""
    sig = find_signature_section(shipped)
    blank, _ = append_signature_section(rebuilt, sig.size)
    if blank == blank_section(shipped, sig):
        return ObjectVerdict(platform=key[0], name=key[1], equal=True, notes=tuple(notes))
    sections = tuple(_differences(shipped, parse_object(blank)))
    names = ", ".join(item.section for item in sections) or "headers and padding"
    if not notes:
        notes = ["same sources and compiler: other headers of Linux or libbpf?"]
    return _unequal(key, [f"differs in {names}", *notes], sections)


def _differences(shipped: ElfObject, rebuilt: ElfObject) -> Iterator[SectionDifference]:
    """Yield the sections that differ, `.sig` left out; sections of one name are compared in their order."""
    ours, theirs = _contents(shipped), _contents(rebuilt)
    for name in dict.fromkeys((*ours, *theirs)):
        a, b = ours.get(name), theirs.get(name)
        if a != b:
            yield SectionDifference(
                section=name[0],
                image_size=None if a is None else len(a),
                rebuilt_size=None if b is None else len(b),
                first_difference=None if a is None or b is None else _first_difference(a, b),
            )


def _contents(obj: ElfObject) -> dict[tuple[str, int], bytes]:
    found: dict[tuple[str, int], bytes] = {}
    for section in obj.sections:
        name = section.name.decode("utf-8", "backslashreplace")
        if name in ("", ".sig"):
            continue
        number = sum(1 for known in found if known[0] == name)
        found[name, number] = obj.contents(section)
    return found


def _first_difference(a: bytes, b: bytes) -> int:
    shorter = min(len(a), len(b))
    return next((at for at in range(shorter) if a[at] != b[at]), shorter)


def _unequal(
    key: ObjectKey, problems: Iterable[str], sections: tuple[SectionDifference, ...] = ()
) -> ObjectVerdict:
    return ObjectVerdict(
        platform=key[0], name=key[1], equal=False, problems=tuple(problems), sections=sections
    )
