# SPDX-License-Identifier: Apache-2.0
"""Make the member settable of a statement: rules of the configuration, checked against the object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from buildtool.config.settable import SettableRule
from buildtool.core.errors import UsageError
from buildtool.objects.constants import Constant, has_inner_map, read_constants
from buildtool.objects.describe import MapInfo
from buildtool.objects.elf import ElfObject
from buildtool.objects.settable import (
    INNER_SUFFIX,
    MAX_SETTABLE_BYTES,
    Settable,
    SettableMap,
    SettableVariable,
    has_settable_map,
)

# libbpf and the kernel decide about their sizes.
_FIXED_TYPES = frozenset(("struct_ops", "cgroup_storage", "percpu_cgroup_storage")) | {
    f"{owner}_storage" for owner in ("sk", "inode", "task", "cgrp")
}
_RING_TYPES = frozenset(("ringbuf", "user_ringbuf"))
_PAGE_BYTES = 4096
_MAX_NAMED = 10  # constants or maps in a hint


def make_settable(
    obj: ElfObject, maps: tuple[MapInfo, ...], rules: Sequence[SettableRule]
) -> Settable | None:
    """
    Return what *rules* let the loading machine set in *obj*, which has *maps*; None without rules.

    Raises: UsageError, if the object has no such constant or map, or its type does not fit the bounds;
    ObjectFormatError.
    """
    if not rules:
        return None
    constants = read_constants(obj) if any(not rule.is_map for rule in rules) else ()
    variables, sizes = [], []
    for rule in rules:
        try:
            if rule.is_map:
                sizes.append(_make_map(obj, maps, rule))
            else:
                variables.append(_make_variable(constants, maps, rule))
        except UsageError as error:
            raise UsageError(f"load.settable: {rule.name}: {error.message}", hint=error.hint) from error
    return Settable(variables=tuple(variables), maps=tuple(sizes))


def _make_variable(
    constants: Sequence[Constant], maps: tuple[MapInfo, ...], rule: SettableRule
) -> SettableVariable:
    found = [constant for constant in constants if constant.name == rule.name]
    if not found:
        if has_settable_map(maps, rule.name):
            raise UsageError("this is a map, which has a size", hint="write { max-entries = N }")
        # The name of a constant inside a function has a dot.
        names = (item.name for item in constants if item.is_volatile and "." not in item.name)
        hint = _list_names("const volatile constants", names)
        raise UsageError("the object has no constant of this name", hint=hint)
    if len(found) > 1:
        raise UsageError("the object has two constants of this name", hint="rename one of them")
    (constant,) = found
    if not constant.is_volatile:
        raise UsageError(
            "the constant is not volatile, so the compiler has used its value",
            hint="declare it const volatile",
        )
    bounds = rule.bounds
    if constant.kind == "boolean" and not bounds:
        return SettableVariable(name=rule.name, type="boolean")
    if constant.kind == "string" and set(bounds) <= {"max-bytes"}:
        room = min(constant.bytes - 1, MAX_SETTABLE_BYTES)
        limit = bounds.get("max-bytes", room)
        assert isinstance(limit, int)
        if not 1 <= limit <= room:
            raise UsageError(f"the constant has room for {room} bytes", hint="write max-bytes = N, or true")
        return SettableVariable(name=rule.name, type="string", max_bytes=limit)
    if constant.kind == "integer" and "max-bytes" not in bounds:
        return _make_integer(constant, rule)
    wanted = {
        "boolean": "the constant is a bool: write true",
        "string": "the constant is text: write { max-bytes = N } or true",
        "integer": "the constant is an integer: write { min = N, max = N }, { values = [N] } or true",
        "other": "the constant is neither an integer, a bool nor an array of char",
    }
    raise UsageError(wanted[constant.kind], hint="docs/how-to/settings.md shows the forms")


def _make_integer(constant: Constant, rule: SettableRule) -> SettableVariable:
    values = rule.bounds.get("values", ())
    low, high = rule.bounds.get("min", constant.low), rule.bounds.get("max", constant.high)
    assert isinstance(values, tuple)
    assert isinstance(low, int)
    assert isinstance(high, int)
    for value in values or (low, high):
        if not constant.low <= value <= constant.high:
            raise UsageError(
                f"{value} is not a value of the constant's type, which has {constant.low} to {constant.high}",
                hint="narrow the bounds, or declare the constant with a wider type",
            )
    if values:
        return SettableVariable(name=rule.name, type="integer", values=values)
    if low > high:
        raise UsageError(f"min {low} is above max {high}", hint="give both min and max")
    return SettableVariable(name=rule.name, type="integer", min=low, max=high)


def _make_map(obj: ElfObject, maps: tuple[MapInfo, ...], rule: SettableRule) -> SettableMap:
    low, high = rule.bounds.get("min-entries", 1), rule.bounds["max-entries"]
    assert isinstance(low, int)
    assert isinstance(high, int)
    if not has_settable_map(maps, rule.name):
        if any(item.name == rule.name for item in read_constants(obj)):
            raise UsageError(
                "this is a constant, which has a value", hint="write { min = N, max = N } or true"
            )
        hint = _list_names("maps", (item.name for item in maps))
        raise UsageError("the object has no map of this name", hint=hint)
    kinds = [item.type for item in maps if item.name == rule.name]
    if not kinds and not has_inner_map(obj, rule.name.removesuffix(INNER_SUFFIX)):
        raise UsageError("the map of maps does not define the maps inside it", hint="declare them by __array")
    if kinds and kinds[0] in _FIXED_TYPES:
        raise UsageError(f"the size of a map of type {kinds[0]} cannot be set", hint="leave it out")
    if kinds and kinds[0] in _RING_TYPES:
        low = max(low, _PAGE_BYTES)
        if high < low or high & (high - 1):
            raise UsageError(
                f"{high} is not a size of a ring buffer, a power of two and at least {_PAGE_BYTES}",
                hint="write for example { max-entries = 1048576 }",
            )
    return SettableMap(name=rule.name, min_entries=low, max_entries=high)


def _list_names(kind: str, names: Iterable[str]) -> str:
    """Return the hint that lists *names* of *kind*, as many as a line has room for."""
    found = sorted(set(names))
    more = ", …" if found[_MAX_NAMED:] else ""
    return f"its {kind}: {', '.join(found[:_MAX_NAMED]) or 'none'}{more}"
