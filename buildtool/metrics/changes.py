# SPDX-License-Identifier: Apache-2.0
"""Compare the entries of a map from one reading to the next, also while updates replace the map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from buildtool.core.errors import FileAccessError, system_reason
from buildtool.core.text import escape
from buildtool.metrics.decode import Entry, EntryDecoder, split_block
from buildtool.metrics.inventory import Wanted, make_decoder
from buildtool.metrics.maps import Map


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An entry that differs: its *key*, and the entry *before* and *after*, None where there was none."""

    kind: Literal["added", "changed", "removed"]
    key: Any
    before: Entry | None = None
    after: Entry | None = None


class MapWatch:
    """Compares readings of the map *wanted*, of which the first *limit* entries are kept in memory."""

    def __init__(self, wanted: Wanted, limit: int) -> None:
        self._wanted, self._limit = wanted, limit
        self._id = 0
        self._types: EntryDecoder | None = None
        self._known: dict[bytes, bytes] = {}
        self._is_cut = self._is_gone = False
        self._notes: list[str] = []

    def begin(self) -> bool:
        """
        Read the map for the first time, and return whether it exists.

        Raises: FileAccessError; UsageError, if several maps have the name.
        """
        self.read()
        return not self._is_gone

    def read(self) -> Iterator[Change]:
        """
        Return the changes since the reading before. A map that replaces another one begins without entries.

        Raises: FileAccessError; UsageError, if several maps have the name.
        """
        name = escape(self._wanted.named)
        source = self._wanted.open()
        if source is None:
            if not self._is_gone:
                self._notes.append(f"{name}: gone; waiting for it")
            self._is_gone = True
            return iter(())
        with source:
            is_first = self._id == 0
            if source.facts.id != self._id:
                if not is_first:
                    self._notes.append(f"{name}: replaced by an update; entries begin anew")
                self._types = make_decoder(source)
                self._id, self._known, self._is_cut = source.facts.id, {}, False
            self._is_gone = False
            before, was_cut = self._known, self._is_cut
            self._known = self._read_all(source)
            if self._is_cut and not was_cut:
                self._notes.append(f"{name}: more than {self._limit} entries: only these are watched")
            shape = source
        return iter(()) if is_first else self._compare(shape, before, is_whole=not (self._is_cut or was_cut))

    def take_notes(self) -> list[str]:
        """Return lines about what happened to the map, once."""
        notes, self._notes = self._notes, []
        return notes

    def _read_all(self, source: Map) -> dict[bytes, bytes]:
        try:
            found = dict(pair for block in source.blocks(self._limit) for pair in split_block(source, block))
        except OSError as error:
            problem = f"cannot read: {system_reason(error)}"
            raise FileAccessError(f"{escape(self._wanted.named)}: {problem}") from error
        self._is_cut = source.cut
        return found

    def _compare(self, source: Map, before: dict[bytes, bytes], *, is_whole: bool) -> Iterator[Change]:
        """Yield the changes. Of a part of a map, an entry may have come in or gone out unchanged."""
        types, after = self._types, self._known
        assert types is not None
        for key, value in after.items():
            old = before.get(key)
            if old == value or (old is None and not is_whole):
                continue
            now = types.entry(source, key, value)
            was = None if old is None else types.entry(source, key, old)
            kind: Literal["added", "changed"] = "added" if was is None else "changed"
            yield Change(kind=kind, key=now.key, before=was, after=now)
        for key in before.keys() - after.keys() if is_whole else ():
            was = types.entry(source, key, before[key])
            yield Change(kind="removed", key=was.key, before=was)
