# SPDX-License-Identifier: Apache-2.0
"""
Read and write the compile record, `.compile.json` beside the objects of one architecture.

The record carries platform, toolchain and source of each object from `compile` to `sign`. A digest
binds each entry to the object's bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildtool.core.digests import Digest
from buildtool.core.errors import FileAccessError
from buildtool.core.files import read_bounded, write_atomic

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
    """

    path: Path
    name: str
    platform: str
    sha256: Digest
    toolchain: ToolchainInfo
    source: SourceInfo
    headers: Mapping[str, str] = field(default_factory=dict)


def write_compile_record(directory: Path, objects: Sequence[CompiledObject]) -> None:
    """
    Write the record of *objects*, which are in *directory*.

    Raises: FileAccessError.
    """
    entries = {entry.path.name: _to_json(entry) for entry in objects}
    text = json.dumps({"version": _VERSION, "objects": entries}, indent=1, sort_keys=True)
    write_atomic(directory / RECORD_NAME, text.encode() + b"\n")


def read_compile_record(directory: Path) -> dict[str, CompiledObject]:
    """
    Return the entries of the record in *directory* by file name, or none without a record.

    The caller must compare *sha256* with the file before it uses an entry, because the object may
    have been replaced.

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


def _to_json(entry: CompiledObject) -> dict[str, Any]:
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
    )
