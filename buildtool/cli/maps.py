# SPDX-License-Identifier: Apache-2.0
"""`buildtool maps`."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from buildtool.cli.options import config_option, json_option
from buildtool.cli.output import clean_line, output_ended, print_json, print_table, say, write_lines
from buildtool.cli.places import (
    choose_places,
    count_option,
    interval_option,
    places_options,
    require_directories,
)
from buildtool.core.errors import FileAccessError, system_reason
from buildtool.core.strictjson import format_time
from buildtool.core.text import escape
from buildtool.metrics.changes import Change, MapWatch
from buildtool.metrics.decode import Entry
from buildtool.metrics.inventory import MapRow, Wanted, list_maps, make_decoder
from buildtool.metrics.samples import MAX_ENTRIES

_HEADER = ("MAP", "OBJECT", "TYPE", "KEY", "VALUE", "ENTRIES", "MEMORY")
_LIST_HINT = "`buildtool maps list` shows the maps"
_WATCHED_ENTRIES = 100_000
_COMPACT = json.JSONEncoder(separators=(",", ":"))
_READABLE = json.JSONEncoder(ensure_ascii=False)


@click.group("maps")
def command() -> None:
    """Show the pinned maps of loaded objects, and what is in them."""


@command.command("list")
@places_options
@config_option
@json_option
def list_command(
    *, pin_roots: tuple[Path, ...], shares: tuple[Path, ...], config_path: Path | None, as_json: bool
) -> None:
    """
    List the maps with their types, their entries and their size in memory.

    At most 1,000,000 entries of a map are counted.
    """
    places = choose_places(pin_roots, shares, config_path)
    require_directories(places)
    rows = list(list_maps(places, max_entries=MAX_ENTRIES))
    if as_json:
        print_json([_row_json(row) for row in rows])
    else:
        print_table([_row_cells(row) for row in rows], _HEADER)


@command.command("dump")
@click.argument("map_name", metavar="MAP")
@places_options
@click.option("--limit", type=click.IntRange(1), help="Print at most this number of entries.")
@config_option
@json_option
def dump(
    *,
    map_name: str,
    pin_roots: tuple[Path, ...],
    shares: tuple[Path, ...],
    limit: int | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """
    Print the entries of MAP: keys and values, decoded by the types of the object.

    MAP is a name from `buildtool maps list`, OBJECT:NAME if several objects have
    it, or the path of a pin. With --json, each entry is one line. A map that
    changes meanwhile may be shown in several states.
    """
    wanted = _want(map_name, pin_roots, shares, config_path)
    found = wanted.open()
    if found is None:
        raise FileAccessError(f"{escape(map_name)}: no such map", hint=_LIST_HINT)
    with found as source:
        types = make_decoder(source)
        # A map that is changed while it is read may give an entry twice, but not without an end.
        most = limit or 2 * source.facts.max_entries
        try:
            entries = (entry for block in source.blocks(most) for entry in types.entries(source, block))
            format_entry = _entry_json if as_json else _entry_text
            write_lines(map(format_entry, entries))
        except OSError as error:
            raise FileAccessError(f"{escape(map_name)}: cannot read: {system_reason(error)}") from error
        if source.cut and not output_ended():
            say(f"{map_name}: more than {most} entries: only these were printed")


@command.command("watch")
@click.argument("map_name", metavar="MAP")
@places_options
@interval_option
@count_option
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_ENTRIES),
    default=_WATCHED_ENTRIES,
    show_default=True,
    help="Watch at most this number of entries.",
)
@config_option
@json_option
def watch(
    *,
    map_name: str,
    pin_roots: tuple[Path, ...],
    shares: tuple[Path, ...],
    interval: float,
    count: int | None,
    limit: int,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """
    Print the entries of MAP that are added, changed or removed, until the command is interrupted.

    MAP is named as for `buildtool maps dump`. An update of the object may replace
    the map; the new one is watched from then on.
    """
    watched = MapWatch(_want(map_name, pin_roots, shares, config_path), limit)
    if not watched.begin():
        raise FileAccessError(f"{escape(map_name)}: no such map", hint=_LIST_HINT)
    format_change = _change_json if as_json else _change_text
    try:
        for _ in itertools.count() if count is None else range(count):
            time.sleep(interval)
            changes = watched.read()
            for line in watched.take_notes():
                say(line)
            now = time.time()
            write_lines(format_change(change, now) for change in changes)
            if output_ended():
                return
    except KeyboardInterrupt:
        say("maps: ended")


def _want(
    name: str, pin_roots: tuple[Path, ...], shares: tuple[Path, ...], config_path: Path | None
) -> Wanted:
    """Return the map that is called *name*. A path needs no directories. Raises: UsageError, ConfigError."""
    if "/" in name:
        return Wanted(named=name, places=())
    places = choose_places(pin_roots, shares, config_path)
    require_directories(places)
    return Wanted(named=name, places=places)


def _row_json(row: MapRow) -> dict[str, Any]:
    facts = row.facts
    return {
        "name": row.name,
        "object": row.object,
        "entry": row.entry or None,
        "place": str(row.place),
        "type": row.type,
        "id": facts.id,
        "key": {"type": row.key, "size": facts.key_size},
        "value": {"type": row.value, "size": facts.value_size},
        "entries": row.used,
        "entriesCut": row.is_more,
        "maxEntries": facts.max_entries,
        "memory": row.memory,
    }


def _row_cells(row: MapRow) -> Sequence[str]:
    used = "-" if row.used is None else f"{row.used}{'+' if row.is_more else ''}/{row.facts.max_entries}"
    memory = "-" if row.memory is None else str(row.memory)
    owner = f"{row.object} ({row.entry})" if row.entry else row.object
    return (row.name, owner, row.type, row.key, row.value, used, memory)


def _entry_object(entry: Entry) -> dict[str, Any]:
    found = {"key": entry.key, "value": entry.value}
    return found if entry.cpus is None else {**found, "cpus": entry.cpus}


def _entry_json(entry: Entry) -> str:
    return _COMPACT.encode(_entry_object(entry))


def _entry_text(entry: Entry) -> str:
    return "\t".join(_show(value) for value in _entry_object(entry).values())


def _change_json(change: Change, now: float) -> str:
    found: dict[str, Any] = {"time": round(now, 3), "change": change.kind, "key": change.key}
    if change.before is not None:
        found["before"] = _values(change.before)
    if change.after is not None:
        found["after"] = _values(change.after)
    return _COMPACT.encode(found)


def _values(entry: Entry) -> Any:
    """Return the value, or those of all CPUs if they have no sum."""
    return entry.cpus if entry.value is None else entry.value


def _change_text(change: Change, now: float) -> str:
    head = f"{format_time(int(now))}\t{change.kind}\t{_show(change.key)}"
    if change.before is None or change.after is None:
        entry = change.before or change.after
        return f"{head}\t{_show(_values(entry)) if entry else ''}"
    parts = _differences(_values(change.before), _values(change.after), "")
    return "\t".join((head, *map(clean_line, parts)))


def _differences(before: Any, after: Any, path: str) -> Iterator[str]:
    """Yield a text for each number or text that differs, with its path."""
    if isinstance(before, Mapping) and isinstance(after, Mapping) and before.keys() == after.keys():
        for name in before:
            yield from _differences(before[name], after[name], f"{path}.{name}" if path else name)
    elif isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)) and len(before) == len(after):
        for at, pair in enumerate(zip(before, after, strict=True)):
            yield from _differences(*pair, f"{path}[{at}]")
    elif before != after:
        yield f"{path}{': ' if path else ''}{_show(before)} -> {_show(after)}"


def _show(value: Any) -> str:
    return clean_line(_READABLE.encode(value))
