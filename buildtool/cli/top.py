# SPDX-License-Identifier: Apache-2.0
"""`buildtool top`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from buildtool.cli.options import config_option, json_option
from buildtool.cli.output import clean_line, output_ended, say
from buildtool.cli.places import choose_places, places_options, require_directories
from buildtool.core.strictjson import format_time
from buildtool.metrics.grammar import Kind
from buildtool.metrics.rates import Interval, Meter, MetricChange, SeriesChange
from buildtool.metrics.reading import SeriesReader
from buildtool.metrics.samples import MAX_SERIES, convert, upper_bound

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


@click.command("top")
@places_options
@click.option(
    "--interval",
    type=click.FloatRange(0.05, 86400),
    default=1.0,
    show_default=True,
    help="Seconds from one reading to the next.",
)
@click.option("--count", type=click.IntRange(1), help="End after this number of intervals.")
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
    meter = Meter(SeriesReader(places=places, warn=notes.append, max_series=max_series, by_cpu=True))
    try:
        if not as_json and sys.stdout.isatty():
            from buildtool.cli.topview import show_live  # noqa: PLC0415 - needs names of this file

            show_live(meter, notes, interval=interval, count=count, sort=sort)
        else:
            _stream(meter, notes, interval=interval, count=count, sort=sort, as_json=as_json)
    except KeyboardInterrupt:
        say("top: ended")


def _stream(
    meter: Meter, notes: list[str], *, interval: float, count: int | None, sort: str, as_json: bool
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
        lines = [_ENCODE(_interval_json(found, now))] if as_json else _interval_lines(found, now, sort)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        count = None if count is None else count - 1


def order_metrics(found: Interval, sort: str) -> list[MetricChange]:
    """Return the metrics of *found* in the order *sort*: rate, value (the greatest first) or name."""
    by_name = sorted(found.metrics, key=lambda each: (each.metric.name, *each.owner.values()))
    if sort == "rate":
        return sorted(by_name, key=lambda each: -1 if each.change is None else each.change, reverse=True)
    if sort == "value":
        return sorted(by_name, key=lambda each: sum(one.total for one in each.series), reverse=True)
    return by_name


def order_series(found: MetricChange, sort: str) -> list[SeriesChange]:
    """Return the series of *found* in the order *sort*."""
    if sort == "rate":
        return sorted(found.series, key=lambda each: -1 if each.change is None else each.change, reverse=True)
    return (
        sorted(found.series, key=lambda each: each.total, reverse=True)
        if sort == "value"
        else [*found.series]
    )


def total_of(found: MetricChange, series: SeriesChange) -> float:
    """Return the value of *series* in the base unit; of a histogram the count, which has no unit."""
    is_count = found.metric.kind.is_histogram
    return series.total if is_count else convert(found.metric, series.total)


def rate_of(found: MetricChange, change: int | None, seconds: float) -> float | None:
    """Return *change* per second, in the base unit unless it counts values of a histogram."""
    if change is None or seconds <= 0:
        return None
    return (change if found.metric.kind.is_histogram else convert(found.metric, change)) / seconds


def series_name(found: MetricChange, series: SeriesChange) -> str:
    """Return name and labels as Prometheus writes them, as one line that cannot command a terminal."""
    pairs = zip(found.metric.label_names, series.labels, strict=True)
    labels = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in pairs)
    return clean_line(f"{found.metric.name}{{{labels}}}" if labels else found.metric.name)


def owner_name(found: MetricChange) -> str:
    """Return the object's name, with entry and place where several are read."""
    owner = found.owner
    more = [owner[name] for name in ("entry", "place") if name in owner]
    return clean_line(f"{owner['object']} ({', '.join(more)})" if more else owner["object"])


def _interval_json(found: Interval, now: float) -> dict[str, Any]:
    return {
        "time": round(now, 3),
        "seconds": found.seconds,
        "objects": found.objects,
        "metrics": [_metric_json(each, found.seconds) for each in order_metrics(found, "name")],
        "problems": [{"name": each.name, "labels": dict(each.labels)} for each in found.problems],
    }


def _metric_json(found: MetricChange, seconds: float) -> dict[str, Any]:
    metric = found.metric
    cpus = None if found.cpus is None else [rate_of(found, change, seconds) for change in found.cpus]
    return {
        "name": metric.name,
        "kind": str(metric.kind),
        "unit": metric.unit,
        "object": found.owner["object"],
        "entry": found.owner.get("entry"),
        "place": found.owner.get("place"),
        "rate": rate_of(found, found.change, seconds),
        "cpus": cpus,
        "cut": found.is_cut,
        "series": [_series_json(found, each, seconds) for each in found.series],
    }


def _series_json(found: MetricChange, series: SeriesChange, seconds: float) -> dict[str, Any]:
    metric, change = found.metric, series.change
    if change is not None and not metric.kind.is_histogram:
        shown: float | None = convert(metric, change)
    else:
        shown = change
    result: dict[str, Any] = {
        "labels": dict(zip(metric.label_names, series.labels, strict=True)),
        "value": total_of(found, series),
        "change": shown,
        "rate": rate_of(found, change, seconds),
    }
    if metric.kind.is_histogram and change is not None:
        last = len(series.slots) - 1
        result["buckets"] = [
            {"le": None if slot == last else convert(metric, upper_bound(metric, slot)), "change": number}
            for slot, number in enumerate(series.slots)
        ]
    return result


def _interval_lines(found: Interval, now: float, sort: str) -> Iterator[str]:
    """Yield the series as fields between tabs: time, object, name with labels, value, rate per second."""
    for metric in order_metrics(found, sort):
        for series in order_series(metric, sort):
            rate = rate_of(metric, series.change, found.seconds)
            yield "\t".join(
                (
                    format_time(int(now)),
                    owner_name(metric),
                    series_name(metric, series),
                    "" if metric.metric.kind is Kind.INFO else f"{total_of(metric, series):.10g}",
                    "" if rate is None else f"{rate:.6g}",
                )
            )
