# SPDX-License-Identifier: Apache-2.0
"""
Find objects in directories of pins, and open their maps. Source: docs/reference/pins.md.

An update renames `next` to `current`, and removes the generation before. The maps of an object are opened
below one descriptor of `current`, so that all of them are of one generation, however long that takes.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import strerror
from pathlib import Path
from urllib.parse import unquote

from buildtool.core.errors import FileAccessError, system_reason
from buildtool.core.text import replace_bytes
from buildtool.metrics.bpfcall import (
    MAP_LOOKUP_ELEM,
    attributes_of,
    call,
    open_pin,
    read_map_facts,
    read_program_btf,
)
from buildtool.metrics.maps import Map, open_map

MAX_NAME_CHARACTERS = 255
_MAX_RECORD_BYTES = 1 << 20
_TRIES = 20
_PAUSE_SECONDS = 0.01
ROOT_HINT = "run the command as root, or with CAP_BPF, CAP_SYS_ADMIN and access to the directory"
DENIED = (errno.EACCES, errno.EPERM)
_GONE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ESTALE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A *directory* of pins: of --pin-root, or of --share with *is_shared*."""

    directory: Path
    is_shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedObject:
    """
    An object in a place: its signed *name*, its *maps* by name, open, and the ids of BTF to look into.

    *entry* is the name of its directory below a shared place, of which there is one for each version.
    """

    name: str
    place: Place
    entry: str
    maps: Mapping[str, Map]
    btf_ids: tuple[int, ...]

    def close(self) -> None:
        """Close all maps."""
        for each in self.maps.values():
            each.close()


def list_entries(place: Place) -> list[str]:
    """
    Return the names of the objects' directories in *place*, none if the directory is missing.

    Raises: FileAccessError.
    """
    try:
        with os.scandir(place.directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        hint = ROOT_HINT if error.errno in DENIED else None
        raise FileAccessError(f"{place.directory}: cannot read: {system_reason(error)}", hint=hint) from error


def open_object(place: Place, entry: str) -> PinnedObject | None:
    """
    Open the maps of the object in directory *entry* of *place*, or return None if there is none (any more).

    Raises: FileAccessError.
    """
    directory = place.directory / entry
    top = directory if place.is_shared else directory / "current"
    for _ in range(_TRIES):
        try:
            with _opened_directory(top) as below:
                if below is None:
                    return (
                        None  # removed, or never completed: an update exchanges two generations in one step
                    )
                return _open_maps(place, entry, below)
        except OSError as error:
            if error.errno not in _GONE:
                hint = ROOT_HINT if error.errno in DENIED else None
                raise FileAccessError(
                    f"{directory}: cannot read: {system_reason(error)}", hint=hint
                ) from error
        # A later update has removed this generation.
        time.sleep(_PAUSE_SECONDS)
    return None


@contextmanager
def _opened_directory(path: Path) -> Iterator[Path | None]:
    """Yield a path to the directory that is at *path* now, which stays valid if it is renamed, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _open_maps(place: Place, entry: str, below: Path) -> PinnedObject:
    name = _object_name(below) if place.is_shared else decode_name(entry)
    # First the BTF of the programs: a map that an update carried over has that of an older object.
    btf_ids = [number for number in map(_program_btf, sorted((below / "programs").iterdir())) if number]
    maps: dict[str, Map] = {}
    try:
        for path in sorted((below / "maps").iterdir()):
            maps[decode_name(path.name)] = open_map(path)
    except OSError:
        for each in maps.values():
            each.close()
        raise
    btf_ids += [each.facts.btf_id for each in maps.values() if each.facts.btf_id]
    return PinnedObject(
        name=name,
        place=place,
        entry=entry if place.is_shared else "",
        maps=maps,
        btf_ids=tuple(dict.fromkeys(btf_ids)),
    )


def _program_btf(path: Path) -> int:
    descriptor = open_pin(path, flags=0)
    try:
        return read_program_btf(descriptor)
    finally:
        os.close(descriptor)


def _object_name(below: Path) -> str:
    """Return the object's name in the record of a shared entry. Raises: OSError."""
    descriptor = open_pin(below / "record")
    try:
        size = read_map_facts(descriptor).value_size
        if size > _MAX_RECORD_BYTES:
            raise OSError(errno.EFBIG, strerror(errno.EFBIG))
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(size)
        places = (ctypes.addressof(key), ctypes.addressof(value))
        call(MAP_LOOKUP_ELEM, attributes_of(struct.pack("=IIQQQ", descriptor, 0, *places, 0)))
    finally:
        os.close(descriptor)
    return read_object_name(value.raw.rstrip(b"\0"))


def read_object_name(data: bytes) -> str:
    """Return the object's name in the record *data*, which others may have written."""
    try:
        record = json.loads(data)
        return replace_bytes(str(record["object"]))[:MAX_NAME_CHARACTERS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "unknown"


def decode_name(name: str) -> str:
    """Return the name that pin *name* stands for: a comma is a dot, and %XX a byte."""
    return replace_bytes(unquote(name.replace(",", "."), errors="replace"))[:MAX_NAME_CHARACTERS]
