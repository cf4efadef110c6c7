# SPDX-License-Identifier: Apache-2.0
"""
What settings ([OBJECT:]NAME=VALUE) mean for objects: which constant or map, and whether its bounds allow it.

loader/load/settings.c decides when an object is loaded. This module decides the same earlier, for builds and
dry runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from buildtool.core.errors import UsageError
from buildtool.objects.settable import Settable, SettableMap, SettableVariable

SET, MAP_ENTRIES = "--set", "--map-entries"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """The settings of one object, by name: values of *constants*, and *entries* of maps."""

    constants: Mapping[str, int | str] = field(default_factory=dict)
    entries: Mapping[str, int] = field(default_factory=dict)


NO_SETTINGS = LoadSettings()


def choose_settings(
    constants: Sequence[str], entries: Sequence[str], objects: Mapping[str, Settable | None]
) -> dict[str, LoadSettings]:
    """
    Return the settings of each of *objects*, which are given with what may be set in them.

    *constants* and *entries* are texts as of --set and --map-entries. Of two for one name, the later is used.

    Raises: UsageError, for a setting that means no object, or that the bounds of the object do not allow.
    """
    values: dict[str, dict[str, int | str]] = {name: {} for name in objects}
    sizes: dict[str, dict[str, int]] = {name: {} for name in objects}
    for text in constants:
        owner, name, value = _split(text)
        variables = {key: _variables(item) for key, item in objects.items()}
        found = _find(SET, text, owner, name, variables)
        values[found][name] = _parse(SET, text, variables[found][name], value)
    for text in entries:
        owner, name, value = _split(text)
        maps = {key: _maps(item) for key, item in objects.items()}
        found = _find(MAP_ENTRIES, text, owner, name, maps)
        sizes[found][name] = int(_parse(MAP_ENTRIES, text, maps[found][name], value))
    return {name: LoadSettings(constants=values[name], entries=sizes[name]) for name in objects}


def _split(text: str) -> tuple[str, str, str]:
    """Return object (or empty text), name and value of setting *text*."""
    left, _, value = text.partition("=")
    owner, colon, name = left.partition(":")
    return (owner, name, value) if colon else ("", left, value)


def _variables(settable: Settable | None) -> dict[str, SettableVariable]:
    return {item.name: item for item in settable.variables} if settable else {}


def _maps(settable: Settable | None) -> dict[str, SettableMap]:
    return {item.name: item for item in settable.maps} if settable else {}


def _find(
    key: str,
    text: str,
    owner: str,
    name: str,
    objects: Mapping[str, Mapping[str, SettableVariable] | Mapping[str, SettableMap]],
) -> str:
    """Return the object that setting *text* means."""
    if owner and owner not in objects:
        raise _wrong(key, text, f"no object {owner}", "objects: " + ", ".join(objects))
    found = [each for each, items in objects.items() if owner in ("", each) and name in items]
    if not found:
        where = f"{owner} does not let" if owner else "no object lets"
        allowed = _list(f"{each}:{item}" for each, items in objects.items() for item in items)
        raise _wrong(key, text, f"{where} {name} be set", f"load.settable allows {allowed}")
    if len(found) > 1:
        raise _wrong(key, text, f"{', '.join(found)} have {name}", f"write {found[0]}:{text}")
    return found[0]


def _parse(key: str, text: str, item: SettableVariable | SettableMap, value: str) -> int | str:
    try:
        return item.parse(value)
    except UsageError as error:
        raise _wrong(key, text, error.message, error.hint) from error


def _wrong(key: str, text: str, problem: str, hint: str | None) -> UsageError:
    return UsageError(f"{key} {text}: {problem}", hint=hint)


def _list(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return ", ".join(found[:8]) + more if found else "nothing"
