# SPDX-License-Identifier: Apache-2.0
"""List the pinned maps of objects, and find one of them by name or by path, with its types."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildtool.core.errors import FileAccessError, ObjectFormatError, UsageError, system_reason
from buildtool.core.text import escape
from buildtool.metrics.bpfcall import NATIVE_ORDER, MapFacts, open_btf, read_btf
from buildtool.metrics.decode import EntryDecoder
from buildtool.metrics.maps import Map, open_map
from buildtool.metrics.pinned import DENIED, ROOT_HINT, Place, list_entries, open_object
from buildtool.objects.btf import Btf
from buildtool.objects.types import map_type

_MAX_LISTED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRow:
    """
    A pinned map: its *name*, its *object* and that object's *entry* below a shared *place*.

    *key* and *value* are types in C. *used* entries were counted, None for a map without entries to read;
    with *is_more*, there are more. *memory* is in bytes, None if the kernel does not say.
    """

    object: str
    entry: str
    place: Path
    name: str
    type: str
    key: str
    value: str
    used: int | None
    is_more: bool
    facts: MapFacts
    memory: int | None


def list_maps(places: Sequence[Place], *, max_entries: int) -> Iterator[MapRow]:
    """
    Yield the maps of all objects in *places*. At most *max_entries* of each map are counted.

    Raises: FileAccessError.
    """
    for place in places:
        for entry in list_entries(place):
            pinned = open_object(place, entry)
            if pinned is None:
                continue
            try:
                for name, source in pinned.maps.items():
                    types = make_decoder(source)
                    used, is_more = _count(name, source, max_entries)
                    yield MapRow(
                        object=pinned.name,
                        entry=pinned.entry,
                        place=place.directory,
                        name=name,
                        type=map_type(source.facts.type),
                        key=types.key.name,
                        value=types.value.name,
                        used=used,
                        is_more=is_more,
                        facts=source.facts,
                        memory=_memory(source),
                    )
            finally:
                pinned.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """
    The map that a user *named*: the path of a pin, or [OBJECT:]MAP of an object in *places*.

    OBJECT is the name of an object, or of its entry below a shared place.
    """

    named: str
    places: Sequence[Place]

    @property
    def is_path(self) -> bool:
        """True if the map is named by the path of its pin."""
        return "/" in self.named

    def open(self) -> Map | None:
        """
        Return the map, or None if there is none (any more). The caller closes it.

        Raises: FileAccessError, also for a map without entries to read; UsageError, if several have the name.
        """
        found = self._open_path() if self.is_path else self._open_named()
        if found is not None and not found.facts.is_readable:
            kind = map_type(found.facts.type)
            found.close()
            raise FileAccessError(f"{escape(self.named)}: a map of type {kind} has no entries to read")
        return found

    def _open_path(self) -> Map | None:
        try:
            return open_map(self.named)
        except FileNotFoundError:
            return None
        except OSError as error:
            hint = ROOT_HINT if error.errno in DENIED else "name the pin of a map"
            problem = f"cannot open as a map: {system_reason(error)}"
            raise FileAccessError(f"{escape(self.named)}: {problem}", hint=hint) from error

    def _open_named(self) -> Map | None:
        of, _, name = self.named.rpartition(":")
        found: dict[str, Map] = {}
        try:
            for place in self.places:
                for entry in list_entries(place):
                    self._add(found, place, entry, of, name)
            if len(found) > 1:
                listed = escape(", ".join(sorted(found)[:_MAX_LISTED]))
                raise UsageError(
                    f"{escape(self.named)}: {len(found)} maps: {listed}",
                    hint="write OBJECT:MAP or ENTRY:MAP, or the path of the pin",
                )
            return found.popitem()[1] if found else None
        finally:
            for each in found.values():
                each.close()

    def _add(self, found: dict[str, Map], place: Place, entry: str, of: str, name: str) -> None:
        """Add the map of the object in *entry* to *found*, if it is the wanted one."""
        pinned = open_object(place, entry)
        if pinned is None:
            return
        for each, source in pinned.maps.items():
            if each == name and of in ("", pinned.name, pinned.entry):
                found[f"{place.directory / entry}:{name}"] = source
            else:
                source.close()


def make_decoder(source: Map) -> EntryDecoder:
    """
    Return what decodes the entries of *source*: by its BTF, or as bytes without.

    Raises: FileAccessError.
    """
    number = source.facts.btf_id
    if not number:
        return EntryDecoder(source.facts, None)
    try:
        descriptor = open_btf(number)
        try:
            data = read_btf(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        hint = ROOT_HINT if error.errno in DENIED else None
        problem = f"cannot read its types: {system_reason(error)}"
        raise FileAccessError(f"map {escape(source.facts.name)}: {problem}", hint=hint) from error
    try:
        return EntryDecoder(source.facts, Btf(data, NATIVE_ORDER))
    except ObjectFormatError:
        return EntryDecoder(source.facts, None)


def _count(name: str, source: Map, limit: int) -> tuple[int | None, bool]:
    """Return the number of entries, at most *limit*, and whether there are more. Raises: FileAccessError."""
    if not source.facts.is_readable:
        return None, False
    if source.facts.is_array:
        return source.facts.max_entries, False
    try:
        return sum(block.count for block in source.blocks(limit)), source.cut
    except OSError as error:
        raise FileAccessError(f"map {escape(name)}: cannot read: {system_reason(error)}") from error


def _memory(source: Map) -> int | None:
    """Return the bytes that the kernel says a map has."""
    try:
        lines = Path(f"/proc/self/fdinfo/{source.descriptor}").read_text("ascii").splitlines()
    except OSError:
        return None
    words = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(words["memlock"]) if "memlock" in words else None
