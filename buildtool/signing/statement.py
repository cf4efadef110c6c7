# SPDX-License-Identifier: Apache-2.0
"""Encode and decode the signed statement (spec/sig-section.md, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeGuard

from buildtool.compile.record import SourceInfo, ToolchainInfo
from buildtool.core.digests import Digest
from buildtool.core.errors import ObjectFormatError
from buildtool.core.strictjson import (
    check_members,
    described,
    format_time,
    is_array,
    is_boolean,
    is_integer,
    is_integer_set,
    is_object,
    is_object_name,
    is_project,
    is_sha256,
    is_string,
    is_string_set,
    is_strings,
    is_time,
    parse_json_object,
    parse_time,
)
from buildtool.core.strictjson import to_bytes as encode
from buildtool.objects.describe import MapInfo, ObjectContents, ProgramInfo, describe_object
from buildtool.objects.elf import ElfObject, find_signature_section, has_signature_section
from buildtool.objects.settable import Settable
from buildtool.objects.types import UNKNOWN_PROGRAM, Declaration, declared_type, section_type
from buildtool.signing import settable as settables
from buildtool.signing.record import from_bytes as parse_record

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:buildtool:ebpf-object:v1"
MAX_RELEASE_BYTES = 128
CLOCK_TOLERANCE_SECONDS = 24 * 60 * 60  # a clock that is further before `created` is not set

_STATEMENT = {
    "_type": described(STATEMENT_TYPE, lambda value: value == STATEMENT_TYPE),
    "subject": described("an array of one object", lambda value: isinstance(value, list) and len(value) == 1),
    "predicateType": described(PREDICATE_TYPE, lambda value: value == PREDICATE_TYPE),
    "predicate": is_object,
}
_SUBJECT = {"name": is_object_name, "digest": is_object}
_DIGEST = {"sha256": is_sha256}
_PREDICATE = {
    "platform": is_string,
    "project": is_project,
    "version": is_integer,
    "release": described(
        f"a string of at most {MAX_RELEASE_BYTES} bytes",
        lambda value: isinstance(value, str) and len(value.encode()) <= MAX_RELEASE_BYTES,
    ),
    "created": is_time,
    "programs": is_array,
    "maps": is_array,
    "helpers": is_integer_set,
    "kfuncs": is_string_set,
    "license": is_string,
}
_PREDICATE_OPTIONAL = {
    "notAfter": is_time,
    "toolchain": is_object,
    "source": is_object,
    "settable": is_object,
}
_PROGRAM = {"name": is_string, "section": is_string, "type": is_string}
_PROGRAM_OPTIONAL = {"attach": is_strings, "declared": is_string}
_MAP = {
    "name": is_string,
    "type": is_string,
    "keySize": is_integer,
    "valueSize": is_integer,
    "maxEntries": is_integer,
}
_MAP_OPTIONAL = {"section": is_string, "struct": is_string, "pinned": is_boolean}
_TOOLCHAIN = {"compiler": is_string, "flags": is_strings}
_SOURCE = {"path": is_string, "sha256": is_sha256}


def has_passed(not_after: int | None, now: int) -> TypeGuard[int]:
    """
    Return whether limit *not_after* of a statement or a key, the last valid second, has passed at time *now*.

    None is no limit. Source: spec/sig-section.md, section 7, steps 7 and 11.
    """
    return not_after is not None and now > not_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """
    The signed statement (spec/sig-section.md, section 6).

    *version* is the increasing integer against rollback, and *release* is text for readers.
    *created* and *not_after* are seconds since the epoch, UTC. *settable* is None without the member.
    """

    name: str
    digest: Digest
    platform: str
    project: str
    version: int
    release: str
    created: int
    not_after: int | None
    programs: tuple[ProgramInfo, ...]
    maps: tuple[MapInfo, ...]
    helpers: tuple[int, ...]
    kfuncs: tuple[str, ...]
    license: str
    toolchain: ToolchainInfo | None
    source: SourceInfo | None
    settable: Settable | None = None

    @property
    def declared(self) -> tuple[Declaration, ...]:
        """The sections that the statement declares to be loaded as others."""
        return tuple(
            dict.fromkeys(
                Declaration(program.section.removeprefix("?"), program.declared)
                for program in self.programs
                if program.declared
            )
        )

    @property
    def contents(self) -> ObjectContents:
        """The contents of the object, as the statement claims them."""
        return ObjectContents(
            programs=self.programs,
            maps=self.maps,
            helpers=self.helpers,
            kfuncs=self.kfuncs,
            license=self.license,
        )


def to_bytes(statement: Statement) -> bytes:
    """
    Return the encoding of *statement*.

    Raises: ValueError, if a time is not in the years 1970 to 9999.
    """
    predicate: dict[str, Any] = {
        "platform": statement.platform,
        "project": statement.project,
        "version": statement.version,
        "release": statement.release,
        "created": format_time(statement.created),
        "programs": [_program_to_json(program) for program in statement.programs],
        "maps": [_map_to_json(item) for item in statement.maps],
        "helpers": list(statement.helpers),
        "kfuncs": list(statement.kfuncs),
        "license": statement.license,
    }
    if statement.not_after is not None:
        predicate["notAfter"] = format_time(statement.not_after)
    if statement.toolchain is not None:
        predicate["toolchain"] = {
            "compiler": statement.toolchain.compiler,
            "flags": list(statement.toolchain.flags),
        }
    if statement.source is not None:
        predicate["source"] = {"path": statement.source.path, "sha256": statement.source.sha256}
    if statement.settable is not None:
        predicate["settable"] = settables.to_json(statement.settable)
    return encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": statement.name, "digest": {"sha256": statement.digest}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
    )


def read_statement(obj: ElfObject) -> Statement:
    """
    Return the statement in signed object *obj*. Its signatures are not verified.

    Raises: ObjectFormatError, if the section `.sig`, the record or the statement breaks a rule.
    """
    return from_bytes(parse_record(obj.contents(find_signature_section(obj))).statement)


def describe_stated(obj: ElfObject, declared: Sequence[Declaration] = ()) -> ObjectContents:
    """
    Return the contents of *obj*, with the declarations of its statement. An unsigned object has *declared*.

    Signatures are not verified. A damaged statement declares nothing.

    Raises: ObjectFormatError, as `describe_object`.
    """
    if has_signature_section(obj):
        declared = ()
        with suppress(ObjectFormatError):
            declared = read_statement(obj).declared
    return describe_object(obj, declared)


def from_bytes(data: bytes) -> Statement:
    """
    Return the statement in *data*, checked by all rules of spec/sig-section.md, section 6.

    Raises: ObjectFormatError, which names the first broken rule.
    """
    try:
        return _read_statement(parse_json_object(data))
    except ValueError as error:
        raise ObjectFormatError(f"statement: {error}") from error


def _read_statement(value: dict[str, Any]) -> Statement:
    check_members(value, "statement", _STATEMENT)
    subject = check_members(value["subject"][0], "subject", _SUBJECT)
    digest = check_members(subject["digest"], "digest", _DIGEST)
    predicate = check_members(value["predicate"], "predicate", _PREDICATE, **_PREDICATE_OPTIONAL)
    maps = tuple(map(_read_map, predicate["maps"]))
    return Statement(
        name=subject["name"],
        digest=Digest(digest["sha256"]),
        platform=predicate["platform"],
        project=predicate["project"],
        version=predicate["version"],
        release=predicate["release"],
        created=parse_time(predicate["created"]),
        not_after=parse_time(predicate["notAfter"]) if "notAfter" in predicate else None,
        programs=tuple(map(_read_program, predicate["programs"])),
        maps=maps,
        helpers=tuple(predicate["helpers"]),
        kfuncs=tuple(predicate["kfuncs"]),
        license=predicate["license"],
        toolchain=_read_toolchain(predicate["toolchain"]) if "toolchain" in predicate else None,
        source=_read_source(predicate["source"]) if "source" in predicate else None,
        settable=settables.from_json(predicate["settable"], maps) if "settable" in predicate else None,
    )


def _read_program(value: Any) -> ProgramInfo:
    check_members(value, "program", _PROGRAM, **_PROGRAM_OPTIONAL)
    section, declared = value["section"].removeprefix("?"), value.get("declared", "")
    # A declaration must not change what libbpf knows of a section, and must agree with the type.
    if "declared" in value and (
        declared_type(declared) != value["type"] or section_type(section) != UNKNOWN_PROGRAM
    ):
        raise ValueError("program: declared is wrong")
    return ProgramInfo(
        name=value["name"],
        section=value["section"],
        type=value["type"],
        attach=tuple(value.get("attach", ())),
        declared=declared,
    )


def _read_map(value: Any) -> MapInfo:
    check_members(value, "map", _MAP, **_MAP_OPTIONAL)
    return MapInfo(
        name=value["name"],
        type=value["type"],
        key_size=value["keySize"],
        value_size=value["valueSize"],
        max_entries=value["maxEntries"],
        section=value.get("section", ""),
        struct=value.get("struct", ""),
        pinned=value.get("pinned", False),
    )


def _read_toolchain(value: Any) -> ToolchainInfo:
    check_members(value, "toolchain", _TOOLCHAIN)
    return ToolchainInfo(compiler=value["compiler"], flags=tuple(value["flags"]))


def _read_source(value: Any) -> SourceInfo:
    check_members(value, "source", _SOURCE)
    return SourceInfo(path=value["path"], sha256=Digest(value["sha256"]))


def _program_to_json(program: ProgramInfo) -> dict[str, Any]:
    value: dict[str, Any] = {"name": program.name, "section": program.section, "type": program.type}
    if program.attach:
        value["attach"] = list(program.attach)
    if program.declared:
        value["declared"] = program.declared
    return value


def _map_to_json(item: MapInfo) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": item.name,
        "type": item.type,
        "keySize": item.key_size,
        "valueSize": item.value_size,
        "maxEntries": item.max_entries,
    }
    # Absent members keep the statements of ordinary maps as they were before these members existed.
    value |= {"section": item.section} if item.section else {}
    value |= {"struct": item.struct} if item.struct else {}
    value |= {"pinned": True} if item.pinned else {}
    return value
