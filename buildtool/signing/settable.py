# SPDX-License-Identifier: Apache-2.0
"""Encode and decode the member settable of a statement (spec/sig-section.md, section 6, Settable)."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

from buildtool.core.strictjson import (
    Check,
    check_members,
    described,
    is_array,
    is_integer,
    is_object_name,
    is_string,
)
from buildtool.objects.describe import MapInfo
from buildtool.objects.settable import (
    MAX_ENTRIES,
    MAX_INTEGER,
    MAX_SETTABLE,
    MAX_SETTABLE_BYTES,
    MAX_SETTABLE_VALUES,
    MIN_INTEGER,
    Settable,
    SettableMap,
    SettableVariable,
    has_settable_map,
)

Item = TypeVar("Item", SettableVariable, SettableMap)
_CANONICAL = re.compile(r"0|-?[1-9][0-9]{0,19}")


def _is_from(low: int, high: int) -> Check:
    return described(
        f"an integer from {low} to {high}", lambda value: is_integer(value) and low <= value <= high
    )


def _is_integer_text(value: Any) -> bool:
    """Return whether *value* is an integer text: one text for each integer of at most 64 bits."""
    return (
        isinstance(value, str)
        and _CANONICAL.fullmatch(value) is not None
        and MIN_INTEGER <= int(value) <= MAX_INTEGER
    )


def _is_value_list(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= MAX_SETTABLE_VALUES
        and all(map(_is_integer_text, value))
        and all(int(first) < int(second) for first, second in pairwise(value))
    )


described("the text of a decimal integer of at most 64 bits", _is_integer_text)
described(f"1 to {MAX_SETTABLE_VALUES} texts of integers in ascending order", _is_value_list)
_NAMED = {"name": is_object_name, "type": is_string}
_RANGE = _NAMED | {"min": _is_integer_text, "max": _is_integer_text}
_VALUES = _NAMED | {"values": _is_value_list}
_STRING = _NAMED | {"maxBytes": _is_from(1, MAX_SETTABLE_BYTES)}
_MAP = {
    "name": is_object_name,
    "minEntries": _is_from(1, MAX_ENTRIES),
    "maxEntries": _is_from(1, MAX_ENTRIES),
}


def to_json(settable: Settable) -> dict[str, Any]:
    """Return the member's value for *settable*."""
    members = {
        "variables": [_variable_to_json(item) for item in settable.variables],
        "maps": [
            {"name": item.name, "minEntries": item.min_entries, "maxEntries": item.max_entries}
            for item in settable.maps
        ],
    }
    return {name: items for name, items in members.items() if items}


def from_json(value: Any, maps: tuple[MapInfo, ...]) -> Settable:
    """
    Return the value of the member in a statement with *maps*.

    Raises: ValueError, which names the first broken rule.
    """
    check_members(value, "settable", {}, variables=is_array, maps=is_array)
    if not value:
        raise ValueError("settable: empty")
    settable = Settable(
        variables=_read_items(value, "variables", _read_variable), maps=_read_items(value, "maps", _read_map)
    )
    for item in settable.maps:
        if not has_settable_map(maps, item.name):
            raise ValueError(f"settable map: {item.name} is not among the maps")
    return settable


def _read_items(value: dict[str, Any], member: str, read: Callable[[Any], Item]) -> tuple[Item, ...]:
    if member not in value:
        return ()
    items = tuple(map(read, value[member]))
    if not 1 <= len(items) <= MAX_SETTABLE:
        raise ValueError(f"settable: {member} must have 1 to {MAX_SETTABLE} items")
    if not all(first.name < second.name for first, second in pairwise(items)):
        raise ValueError(f"settable: the names of {member} must ascend")
    return items


def _read_variable(value: Any) -> SettableVariable:
    where, kind = "settable variable", value.get("type") if isinstance(value, dict) else None
    if kind == "boolean":
        check_members(value, where, _NAMED)
        return SettableVariable(name=value["name"], type="boolean")
    if kind == "string":
        check_members(value, where, _STRING)
        return SettableVariable(name=value["name"], type="string", max_bytes=value["maxBytes"])
    if kind != "integer":
        raise ValueError(f"{where}: type must be boolean, integer or string")
    if "values" in value:
        check_members(value, where, _VALUES)
        return SettableVariable(name=value["name"], type="integer", values=tuple(map(int, value["values"])))
    check_members(value, where, _RANGE)
    low, high = int(value["min"]), int(value["max"])
    if low > high:
        raise ValueError(f"{where}: min is above max")
    return SettableVariable(name=value["name"], type="integer", min=low, max=high)


def _read_map(value: Any) -> SettableMap:
    check_members(value, "settable map", _MAP)
    if value["minEntries"] > value["maxEntries"]:
        raise ValueError("settable map: minEntries is above maxEntries")
    return SettableMap(name=value["name"], min_entries=value["minEntries"], max_entries=value["maxEntries"])


def _variable_to_json(item: SettableVariable) -> dict[str, Any]:
    value: dict[str, Any] = {"name": item.name, "type": item.type}
    if item.type == "string":
        value["maxBytes"] = item.max_bytes
    elif item.type == "integer" and item.values:
        value["values"] = list(map(str, item.values))
    elif item.type == "integer":
        value |= {"min": str(item.min), "max": str(item.max)}
    return value
