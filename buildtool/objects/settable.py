# SPDX-License-Identifier: Apache-2.0
"""What the loading machine may set in an object, and within which bounds (spec/sig-section.md, Settable)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from buildtool.core.errors import UsageError
from buildtool.objects.describe import MapInfo

MAX_SETTABLE = 128
MAX_SETTABLE_VALUES = 64
MAX_SETTABLE_BYTES = 4096
MAX_ENTRIES = 2**32 - 1
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
INNER_SUFFIX = ".inner"  # libbpf's name of the map inside a map of maps
MAPS_OF_MAPS = frozenset({"array_of_maps", "hash_of_maps"})

_INTEGER = re.compile(r"-?(0[xX][0-9a-fA-F]+|[0-9]+)")
_MAX_DIGITS = 24  # more than any integer of 64 bits has


@dataclass(frozen=True, slots=True, kw_only=True)
class SettableVariable:
    """
    A constant that may be set: its *name* and *type*.

    An integer has *min* and *max*, or *values*; a string has at most *max_bytes*.
    """

    name: str
    type: Literal["boolean", "integer", "string"]
    min: int = 0
    max: int = 0
    values: tuple[int, ...] = ()
    max_bytes: int = 0

    def describe(self) -> str:
        """Return the bounds for people."""
        if self.type == "boolean":
            return "false or true"
        if self.type == "string":
            return f"text of at most {self.max_bytes} bytes"
        if self.values:
            return "one of " + ", ".join(map(str, self.values))
        return f"an integer from {self.min} to {self.max}"

    def parse(self, text: str) -> int | str:
        """
        Return the value of *text*: a string, an integer, or 0 or 1 for a boolean.

        Raises: UsageError, if it is outside of the bounds.
        """
        if self.type == "string":
            if len(text) <= self.max_bytes and text.isascii() and text.isprintable():
                return text
        elif self.type == "boolean":
            if text in ("false", "true"):
                return int(text == "true")
        elif _INTEGER.fullmatch(text) and len(text) <= _MAX_DIGITS:
            value = int(text, 16 if "x" in text.lower() else 10)
            if value in self.values if self.values else self.min <= value <= self.max:
                return value
        raise UsageError(
            f"{text[:64]!a} is outside of the bounds, which are: {self.describe()}",
            hint="load.settable sets them; buildtool inspect OBJECT shows those of a signed object",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SettableMap:
    """A map with a number of entries that may be set, from *min_entries* to *max_entries*."""

    name: str
    min_entries: int
    max_entries: int

    def describe(self) -> str:
        """Return the bounds for people."""
        return f"{self.min_entries} to {self.max_entries} entries"

    def parse(self, text: str) -> int:
        """
        Return the number of entries in *text*.

        Raises: UsageError, if it is outside of the bounds.
        """
        if _INTEGER.fullmatch(text) and len(text) <= _MAX_DIGITS:
            value = int(text, 16 if "x" in text.lower() else 10)
            if self.min_entries <= value <= self.max_entries:
                return value
        raise UsageError(
            f"{text[:64]!a} is outside of the bounds, which are: {self.describe()}",
            hint="load.settable sets them; buildtool inspect OBJECT shows those of a signed object",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settable:
    """What may be set in an object, *variables* and *maps*, each in ascending order of the names."""

    variables: tuple[SettableVariable, ...] = ()
    maps: tuple[SettableMap, ...] = ()


def has_settable_map(maps: tuple[MapInfo, ...], name: str) -> bool:
    """Return whether *name* is one of *maps*, or the map inside of one of them."""
    if any(item.name == name for item in maps):
        return True
    outer = name.removesuffix(INNER_SUFFIX)
    return outer != name and any(item.name == outer and item.type in MAPS_OF_MAPS for item in maps)
