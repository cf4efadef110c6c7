# SPDX-License-Identifier: Apache-2.0
"""The views of `buildtool top` without a terminal, and the order and the words of all of its views."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from buildtool.cli.output import clean_line
from buildtool.core.strictjson import format_time
from buildtool.metrics.grammar import Kind
from buildtool.metrics.rates import Interval, MetricChange, SeriesChange
from buildtool.metrics.samples import convert, upper_bound

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


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


def interval_json(found: Interval, now: float) -> str:
    """Return *found* as a line of JSON. The time *now* is in seconds since 1970."""
    value = {
        "time": round(now, 3),
        "seconds": found.seconds,
        "objects": found.objects,
        "metrics": [_metric_json(each, found.seconds) for each in order_metrics(found, "name")],
        "problems": [{"name": each.name, "labels": dict(each.labels)} for each in found.problems],
    }
    return _ENCODE(value)


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


def interval_lines(found: Interval, now: float, sort: str) -> Iterator[str]:
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
