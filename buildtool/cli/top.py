# SPDX-License-Identifier: Apache-2.0
"""`buildtool top`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from buildtool.cli.options import config_option, json_option
from buildtool.cli.output import output_ended, say, write_lines
from buildtool.cli.places import (
    choose_places,
    count_option,
    interval_option,
    places_options,
    require_directories,
)
from buildtool.cli.topscreen import show_live
from buildtool.cli.topview import interval_json, interval_lines
from buildtool.metrics.rates import RateMeter
from buildtool.metrics.reading import SeriesReader
from buildtool.metrics.samples import MAX_SERIES

_WITHOUT_SCREEN = ("", "dumb", "unknown")


@click.command("top")
@places_options
@interval_option
@count_option
@click.option(
    "--sort",
    type=click.Choice(["rate", "name", "value"]),
    default="rate",
    show_default=True,
    help="Order at the start.",
)
@click.option(
    "--max-series",
    type=click.IntRange(1, 1_000_000),
    default=MAX_SERIES,
    show_default=True,
    help="Most series of one metric of one object.",
)
@config_option
@json_option
def command(
    *,
    pin_roots: tuple[Path, ...],
    shares: tuple[Path, ...],
    interval: float,
    count: int | None,
    sort: str,
    max_series: int,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """
    Show live what the metrics that objects declare count: rates, histograms, CPUs.

    Keys on a terminal: r, n, v sort by rate, name, value; j, k and arrows scroll;
    q ends. Elsewhere, each interval is lines of text, or one object with --json.
    """
    places = choose_places(pin_roots, shares, config_path)
    require_directories(places)
    notes: list[str] = []
    meter = RateMeter(SeriesReader(places=places, warn=notes.append, max_series=max_series, by_cpu=True))
    try:
        if not as_json and sys.stdout.isatty() and os.environ.get("TERM", "") not in _WITHOUT_SCREEN:
            show_live(meter, notes, interval=interval, count=count, sort=sort)
        else:
            _stream(meter, notes, interval=interval, count=count, sort=sort, as_json=as_json)
    except KeyboardInterrupt:
        say("top: ended")


def _stream(
    meter: RateMeter, notes: list[str], *, interval: float, count: int | None, sort: str, as_json: bool
) -> None:
    """Print each interval, until the reader of stdout closes it."""
    meter.begin()
    due = time.monotonic()
    while not output_ended() and count != 0:
        # A reading that takes longer than an interval makes no readings in a hurry after it.
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        found = meter.read()
        for note in notes:
            say(note)
        notes.clear()
        now = time.time()
        write_lines([interval_json(found, now)] if as_json else interval_lines(found, now, sort))
        count = None if count is None else count - 1
