# SPDX-License-Identifier: Apache-2.0
"""
The types of a kernel, `vmlinux.h`, for one architecture, with a record of their source beside them.

The record, `vmlinux.json`, is small enough for git, and the header of 3 MB need not be there. A compiler must
not read another header than the recorded one, so compiling compares them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from buildtool.core.errors import FileAccessError
from buildtool.core.files import made_directories, read_bounded, write_all_atomic
from buildtool.core.platforms import Platform

HEADER_NAME = "vmlinux.h"
RECORD_NAME = "vmlinux.json"
MAX_HEADER_BYTES = 64 * 1024 * 1024
_MAX_RECORD_BYTES = 64 * 1024
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TypesRecord:
    """The *arch* of a header, its *source* with that file's digest, and the digest of the header itself."""

    arch: str
    source: str
    source_sha256: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTypes:
    """A header: its *data*, *source* (package and version, or a file's name) and that file's digest."""

    data: bytes
    source: str
    source_sha256: str

    def record(self, arch: str) -> TypesRecord:
        """Return the record of these types for *arch*."""
        digest = hashlib.sha256(self.data).hexdigest()
        return TypesRecord(arch=arch, source=self.source, source_sha256=self.source_sha256, sha256=digest)


def write_types(directory: Path, made: Sequence[tuple[Platform, KernelTypes]], *, update: bool) -> list[Path]:
    """
    Write header and record of each platform of *made* below *directory*/ARCH, all or none.

    Return the paths of the headers.

    Raises: FileAccessError, also if a record is of another header, unless *update*.
    """
    files: dict[Path, bytes] = {}
    for platform, types in made:
        place = directory / platform.arch
        record = types.record(platform.arch)
        old = read_types_record(place)
        if old is not None and old.sha256 != record.sha256 and not update:
            raise FileAccessError(
                f"{place / RECORD_NAME}: records other types: {old.source}, and these are of {record.source}",
                hint="--update replaces the header and its record",
            )
        text = json.dumps({"version": _VERSION, **asdict(record)}, indent=1, sort_keys=True)
        files[place / HEADER_NAME] = types.data
        files[place / RECORD_NAME] = text.encode() + b"\n"
    with made_directories([path.parent for path in files]):
        write_all_atomic(files)
    return [path for path in files if path.name == HEADER_NAME]


def read_types_record(directory: Path) -> TypesRecord | None:
    """
    Return the record in *directory*, None without one.

    Raises: FileAccessError, if it is damaged.
    """
    path = directory / RECORD_NAME
    if not path.exists():
        return None
    try:
        document = json.loads(read_bounded(path, _MAX_RECORD_BYTES))
        if document.pop("version") != _VERSION or not all(
            isinstance(each, str) for each in document.values()
        ):
            raise ValueError("version")
        return TypesRecord(**document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileAccessError(
            f"{path}: not a record of kernel types", hint="buildtool vmlinux --update writes it anew"
        ) from error


def check_types(root: Path, names: Iterable[str], platform: Platform) -> None:
    """
    Check that each header of kernel types among *names*, read for *platform*, is the recorded one.

    A header without a record beside it passes: it has another source than this tool.

    Raises: FileAccessError.
    """
    for name in sorted({name for name in names if name.rpartition("/")[2] == HEADER_NAME}):
        path = root / name
        record = read_types_record(path.parent)
        if record is None:
            continue
        if record.arch != platform.arch:
            raise FileAccessError(
                f"{path}: the types of a kernel for {record.arch}, included for {platform.arch}",
                hint=f"buildtool vmlinux --arch {platform.arch} makes its own;"
                f" include in [compile.{platform.arch}] names its directory",
            )
        data = read_bounded(path, MAX_HEADER_BYTES)
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise FileAccessError(
                f"{path}: not the header that {RECORD_NAME} records",
                hint=f"buildtool vmlinux --arch {record.arch} makes it again; --update records another",
            )
