# SPDX-License-Identifier: Apache-2.0
"""
Rebuild the objects of an image from this project's sources, and report differences.

The comparison covers the subject, which is each byte of an object but the signatures. The image is
not trusted: recorded flags are used only if a configuration may contain them, and no program of the
image runs.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from buildtool.compile import toolchain as tools
from buildtool.compile import ziglang
from buildtool.compile.headers import Headers
from buildtool.compile.sources import CompileOptions, compile_sources, split_flags
from buildtool.compile.toolchain import Toolchain
from buildtool.config.file import Config
from buildtool.config.project import Piece, Unit
from buildtool.core.errors import (
    CompileError,
    FileAccessError,
    ObjectFormatError,
    ToolFailedError,
    ToolMissingError,
    UsageError,
)
from buildtool.core.flags import check_flag
from buildtool.core.platforms import Platform, oci_platform
from buildtool.core.validate import check_include, check_relative_path, is_inside
from buildtool.image.compare import ObjectKey, first_difference
from buildtool.objects.elf import (
    ElfObject,
    append_signature_section,
    blank_section,
    find_signature_section,
    has_signature_section,
    parse_object,
    read_object_file,
)
from buildtool.signing.statement import Statement, read_statement


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionDifference:
    """
    A different section: its name, both sizes in bytes, and the offset of the first different byte.

    A missing section has size None.
    """

    section: str
    image_size: int | None
    rebuilt_size: int | None
    first_difference: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVerdict:
    """
    The result for an object: *equal*, or *problems*, one sentence each.

    *notes* are differences of the input that did not change the result, such as another compiler.
    """

    platform: str
    name: str
    equal: bool
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sections: tuple[SectionDifference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shipped:
    """An object of the image, with the input that its statement records."""

    obj: ElfObject
    statement: Statement
    platform: Platform
    pieces: tuple[Piece, ...]


def compare_objects(
    objects: Mapping[ObjectKey, bytes],
    config: Config,
    find: Callable[[str], Toolchain],
    headers: Headers | None,
    find_object_linker: Callable[[], Path],
) -> list[ObjectVerdict]:
    """
    Rebuild *objects* from the sources of the project of *config*. Return a verdict on each, sorted.

    *find* returns the compiler for a recorded name and version. *headers* are those of Linux and libbpf.
    *find_object_linker* returns the bpf-probe of this machine, if an object is linked from several sources.

    Raises: FileAccessError, ToolMissingError, ToolFailedError; what finding bpf-probe raises.
    """
    verdicts: dict[ObjectKey, ObjectVerdict] = {}
    shipped: dict[ObjectKey, _Shipped] = {}
    for (platform, name), data in objects.items():
        try:
            shipped[platform, name] = _read_shipped(platform, name, data)
        except (ObjectFormatError, UsageError) as error:
            verdicts[platform, name] = _unequal((platform, name), [error.message])
    linker = find_object_linker() if any(len(item.pieces) > 1 for item in shipped.values()) else None
    for key, item in shipped.items():
        options = CompileOptions(root=config.root, headers=headers, linker=linker)
        # Directories outside the project are read only if the project's own configuration names them.
        named = [name for piece in item.pieces for name in piece.include]
        foreign = [each for each in named if not is_inside(each)]
        unnamed = [each for each in foreign if each not in config.compile.every_include]
        if unnamed:
            verdicts[key] = _unequal(
                key, [f"made with headers of {unnamed[0]}, which compile.include does not name"]
            )
        else:
            verdicts[key] = _rebuild(key, item, options, find)
    return [verdicts[key] for key in sorted(verdicts)]


def _read_shipped(platform: str, name: str, data: bytes) -> _Shipped:
    """Return the object and the input for its compilation, checked. Raises: ObjectFormatError, UsageError."""
    obj = parse_object(data)
    if not has_signature_section(obj):
        raise ObjectFormatError("not signed, so nothing says how it was made")
    statement = read_statement(obj)
    if statement.toolchain is None or statement.source is None:
        raise ObjectFormatError("the statement does not say how it was made")
    target = oci_platform(statement.platform)
    if target is None or statement.platform != platform or statement.name != name:
        raise ObjectFormatError(f"the statement is for {statement.name} on {statement.platform}")
    check_relative_path(statement.source.path)
    forced = tuple(tools.forced_flags(target))
    if statement.toolchain.flags[: len(forced)] != forced:
        raise ObjectFormatError(
            "compiled with other flags than this buildtool's: " + " ".join(statement.toolchain.flags)[:300]
        )
    pieces = split_flags(statement.toolchain.flags[len(forced) :], statement.source.path)
    return _Shipped(obj=obj, statement=statement, platform=target, pieces=tuple(map(_check_piece, pieces)))


def _check_piece(piece: Piece) -> Piece:
    """Return *piece*, checked to name no program, and files of a project only. Raises: UsageError."""
    return Piece(
        source=check_relative_path(piece.source),
        include=tuple(map(check_include, piece.include)),
        flags=tuple(map(check_flag, piece.flags)),
    )


def _rebuild(
    key: ObjectKey, item: _Shipped, options: CompileOptions, find: Callable[[str], Toolchain]
) -> ObjectVerdict:
    record = item.statement
    assert record.source
    assert record.toolchain
    toolchain = find(record.toolchain.compiler)
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        unit = Unit(path=key[1], pieces=item.pieces)
        outputs = [(item.platform, Path(work, "objects"), [unit])]
        try:
            (made,) = compile_sources(toolchain, outputs, options).objects
            data = read_object_file(made.path)
        except (CompileError, FileAccessError, UsageError) as error:
            return _unequal(key, [f"cannot be made again: {error.message}"])
    notes = _compare_record(record, toolchain.name, made.source.sha256)
    return _compare(key, item.obj, parse_object(data), notes)


def nearest_toolchain(configured: str) -> Callable[[str], Toolchain]:
    """
    Return a function that returns the compiler for a recorded name and version.

    The result is the recorded version, if it is installed, perhaps in package ziglang. Otherwise it
    is the *configured* or newest clang.

    Raises: ToolMissingError, ToolFailedError; so does the returned function.
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
    """Compare the subjects, after adding a `.sig` of the shipped object's size to the rebuilt one."""
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
    """Yield the different sections other than `.sig`. Sections with the same name are compared in order."""
    ours, theirs = _contents(shipped), _contents(rebuilt)
    for name in dict.fromkeys((*ours, *theirs)):
        a, b = ours.get(name), theirs.get(name)
        if a != b:
            yield SectionDifference(
                section=name[0],
                image_size=None if a is None else len(a),
                rebuilt_size=None if b is None else len(b),
                first_difference=None if a is None or b is None else first_difference(a, b),
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


def _unequal(
    key: ObjectKey, problems: Iterable[str], sections: tuple[SectionDifference, ...] = ()
) -> ObjectVerdict:
    return ObjectVerdict(
        platform=key[0], name=key[1], equal=False, problems=tuple(problems), sections=sections
    )
