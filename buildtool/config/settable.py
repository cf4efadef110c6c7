# SPDX-License-Identifier: Apache-2.0
"""[load.settable]: which constants and map sizes the loading machine may set, by object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildtool.config.values import expect, list_keys
from buildtool.core import validate
from buildtool.core.errors import UsageError
from buildtool.objects.settable import (
    MAX_ENTRIES,
    MAX_INTEGER,
    MAX_SETTABLE,
    MAX_SETTABLE_BYTES,
    MAX_SETTABLE_VALUES,
    MIN_INTEGER,
)

_HINT = "for example { min = 1, max = 1000 }, { values = [1, 2] }, { max-bytes = 15 }, { max-entries = 4096 }"
_INTEGER_KEYS = {
    "min": (MIN_INTEGER, MAX_INTEGER),
    "max": (MIN_INTEGER, MAX_INTEGER),
    "max-bytes": (1, MAX_SETTABLE_BYTES),
    "min-entries": (1, MAX_ENTRIES),
    "max-entries": (1, MAX_ENTRIES),
}
_KEYS = (*_INTEGER_KEYS, "values")
# Keys that belong together; one of the keys in brackets must be there.
_FORMS = (("min", "max"), ("values",), ("max-bytes",), ("min-entries", "max-entries"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SettableRule:
    """
    A rule about *name*, a constant or a map, as written: *bounds* by key.

    Without bounds, a constant may have any value of its type.
    """

    name: str
    bounds: Mapping[str, int | tuple[int, ...]]

    @property
    def is_map(self) -> bool:
        """Whether the rule is about the size of a map."""
        return "max-entries" in self.bounds


SettableRules = Mapping[str, tuple[SettableRule, ...]]


def parse_settable(value: Any, _: Path = Path()) -> dict[str, tuple[SettableRule, ...]]:
    """
    Return the rules in *value*, a table of objects with a table of names each.

    Raises: UsageError.
    """
    found = {}
    for owner, table in expect(value, dict, "a table of objects", hint=_HINT).items():
        try:
            validate.check_object_name(owner)
            names = expect(table, dict, "a table of constants and maps", hint=_HINT)
            rules = tuple(_parse_rule(name, bounds) for name, bounds in sorted(names.items()))
        except UsageError as error:
            raise UsageError(f"{owner}: {error.message}", hint=error.hint) from error
        if len(rules) > MAX_SETTABLE:
            raise UsageError(f"{owner}: more than {MAX_SETTABLE} names", hint="leave some out")
        if rules:
            found[owner] = rules
    return dict(sorted(found.items()))


def encode_settable(rules: SettableRules) -> str:
    """Return *rules* as JSON, which `decode_settable` reads, a line for each object."""
    lines = [
        f"{json.dumps(owner)}: {json.dumps({rule.name: dict(rule.bounds) or True for rule in items})}"
        for owner, items in rules.items()
    ]
    return "{" + ",\n ".join(lines) + "}\n"


def decode_settable(text: bytes) -> dict[str, tuple[SettableRule, ...]]:
    """
    Return the rules in JSON *text*.

    Raises: UsageError.
    """
    try:
        return parse_settable(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            "not JSON of load.settable", hint="buildtool render makes the Dockerfile again"
        ) from error


def _parse_rule(name: str, value: Any) -> SettableRule:
    try:
        validate.check_object_name(name)
        return SettableRule(name=name, bounds={} if value is True else _parse_bounds(value))
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}", hint=error.hint or _HINT) from error


def _parse_bounds(value: Any) -> dict[str, int | tuple[int, ...]]:
    table = expect(value, dict, "true, or a table of bounds", hint=_HINT)
    for key in table:
        if key not in _KEYS:
            raise UsageError(f"unknown key {key!a}", hint=f"bounds are {list_keys(_KEYS)}")
    if not any(set(table) <= set(form) and table for form in _FORMS):
        raise UsageError("bounds of different kinds" if table else "no bounds", hint=_HINT)
    bounds: dict[str, int | tuple[int, ...]] = {
        key: _parse_integer(key, given, *_INTEGER_KEYS[key])
        for key, given in table.items()
        if key != "values"
    }
    if "values" in table:
        bounds["values"] = _parse_values(table["values"])
    if "min-entries" in bounds and "max-entries" not in bounds:
        raise UsageError("the key max-entries is missing", hint=_HINT)
    for low, high in (("min", "max"), ("min-entries", "max-entries")):
        if low in bounds and high in bounds and bounds[low] > bounds[high]:  # type: ignore[operator]
            raise UsageError(f"{low} is above {high}", hint="exchange them")
    return bounds


def _parse_integer(key: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{key} must be an integer from {low} to {high}", hint=_HINT)
    return value


def _parse_values(value: Any) -> tuple[int, ...]:
    items = expect(value, list, "a list of integers", hint=_HINT)
    values = sorted({_parse_integer("values", item, MIN_INTEGER, MAX_INTEGER) for item in items})
    if not 1 <= len(values) <= MAX_SETTABLE_VALUES:
        raise UsageError(f"values must be 1 to {MAX_SETTABLE_VALUES} integers", hint=_HINT)
    return tuple(values)
