# SPDX-License-Identifier: Apache-2.0
"""
Read and write the compile record, `.compile.json` beside the objects of one architecture.

The record carries platform, toolchain and source of each object from `compile` to `sign`. A digest
binds each entry to the object's bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildtool.core.digests import Digest
from buildtool.core.errors import FileAccessError, ObjectFormatError
from buildtool.core.files import read_bounded, write_atomic
from buildtool.objects.elf import parse_object, unsigned_digest
from buildtool.objects.types import Declaration

RECORD_NAME = ".compile.json"  # hidden, because the loader reads all other files of a directory as objects
MAX_RECORD_BYTES = 16 * 1024 * 1024
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolchainInfo:
    """The compiler of an object: *compiler* (name and version) and its *flags*."""

    compiler: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """The source of an object: its *path* inside the project, and *sha256* of `hash_sources`."""

    path: str
    sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledObject:
    """
    An object of the compile stage: its *path*, its *name* in statements, and the facts for its statement.

    *headers* are the packages of the carried headers with their versions. This machine's have none.
    *unsigned_sha256* is the digest of the object without a signature (`unsigned_digest`), or empty.
    *inputs* are the files of the project that were compiled, relative to *root*, the directory of the
    compilation (None if unknown). *is_configured* is true if no option replaced a flag, an include directory
    or the headers of the configuration. *declared* are the types of sections that libbpf does not know.
    """

    path: Path
    name: str
    platform: str
    sha256: Digest
    toolchain: ToolchainInfo
    source: SourceInfo
    headers: Mapping[str, str] = field(default_factory=dict)
    unsigned_sha256: str = ""
    inputs: tuple[str, ...] = ()
    root: Path | None = None
    is_configured: bool = False
    declared: tuple[Declaration, ...] = ()


def write_compile_record(directory: Path, objects: Sequence[CompiledObject]) -> None:
    """
    Write the record of *objects*, which are in *directory*.

    Raises: FileAccessError.
    """
    entries = {entry.path.name: _to_json(directory, entry) for entry in objects}
    text = json.dumps({"version": _VERSION, "objects": entries}, indent=1, sort_keys=True)
    write_atomic(directory / RECORD_NAME, text.encode() + b"\n")


def read_compile_record(directory: Path) -> dict[str, CompiledObject]:
    """
    Return the entries of the record in *directory* by file name, or none without a record.

    The caller must compare an entry with the file (`is_recorded`) before it uses the entry, because the
    object may have been replaced.

    Raises: FileAccessError, if the record is unreadable or damaged.
    """
    path = directory / RECORD_NAME
    if not path.exists():
        return {}
    data = read_bounded(path, MAX_RECORD_BYTES)
    try:
        record = json.loads(data)
        if len(data) > MAX_RECORD_BYTES or record["version"] != _VERSION:
            raise ValueError("version")
        return {name: _from_json(directory / name, entry) for name, entry in record["objects"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileAccessError(
            f"{path}: not a compile record",
            hint="remove it, or run buildtool compile again",
        ) from error


def is_recorded(entry: CompiledObject, data: bytes) -> bool:
    """Return whether *data*, signed or not, is the object of *entry*."""
    if hashlib.sha256(data).hexdigest() == entry.sha256:
        return True
    if not entry.unsigned_sha256:
        return False
    try:
        return unsigned_digest(parse_object(data)) == entry.unsigned_sha256
    except ObjectFormatError:
        return False


def _to_json(directory: Path, entry: CompiledObject) -> dict[str, Any]:
    # Relative, so that the record stays true in a project that is moved.
    root = os.path.relpath(entry.root.resolve(), directory.resolve()) if entry.root else None
    return {
        "name": entry.name,
        "platform": entry.platform,
        "sha256": entry.sha256,
        "toolchain": {
            "compiler": entry.toolchain.compiler,
            "flags": list(entry.toolchain.flags),
        },
        "source": {"path": entry.source.path, "sha256": entry.source.sha256},
        "headers": dict(entry.headers),
        "unsigned": entry.unsigned_sha256,
        "inputs": list(entry.inputs),
        "root": root,
        "configured": entry.is_configured,
        "declared": [list(item) for item in entry.declared],
    }


def _from_json(path: Path, entry: dict[str, Any]) -> CompiledObject:
    toolchain, source = entry["toolchain"], entry["source"]
    return CompiledObject(
        path=path,
        name=str(entry.get("name", path.name)),
        platform=str(entry["platform"]),
        sha256=Digest(str(entry["sha256"])),
        toolchain=ToolchainInfo(
            compiler=str(toolchain["compiler"]),
            flags=tuple(str(flag) for flag in toolchain["flags"]),
        ),
        source=SourceInfo(path=str(source["path"]), sha256=Digest(str(source["sha256"]))),
        headers={str(name): str(version) for name, version in entry.get("headers", {}).items()},
        unsigned_sha256=str(entry.get("unsigned", "")),
        inputs=tuple(str(name) for name in entry.get("inputs", ())),
        root=_read_root(path.parent, entry.get("root")),
        is_configured=entry.get("configured") is True,
        declared=tuple(
            Declaration(str(section), str(loaded_as)) for section, loaded_as in entry.get("declared", ())
        ),
    )


def _read_root(directory: Path, root: Any) -> Path | None:
    if root and b"\0" in os.fsencode(str(root)):  # it raises ValueError for a lone surrogate
        raise ValueError("root")
    return Path(os.path.normpath(directory.resolve() / str(root))) if root else None
