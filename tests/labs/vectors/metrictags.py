# SPDX-License-Identifier: Apache-2.0
"""
Metric tags, good and wrong, for each reader of declared metrics (spec/metrics.md).

`PYTHONPATH=tests python -m labs.vectors.metrictags > tests/vectors/metrics.json` writes the vectors.
"""

from __future__ import annotations

import json
from typing import Any

from buildtool.metrics.grammar import (
    MAX_HELP_CHARACTERS,
    MAX_LABELS,
    RESERVED_LABELS,
    FieldText,
    How,
    Kind,
    LabelText,
    MetricText,
)

GOOD = {
    "a_total counter help A": MetricText(name="a_total", kind=Kind.COUNTER, help="A"),
    "  a_total   counter  help   A, of  B ": MetricText(name="a_total", kind=Kind.COUNTER, help="A, of  B"),
    "depth gauge value=q.depth label=queue help Depth": MetricText(
        name="depth",
        kind=Kind.GAUGE,
        help="Depth",
        value=FieldText(path="q.depth"),
        labels=(LabelText(name="queue"),),
    ),
    "wait_seconds log2 slot=key.slot slots=40 unit=ns help help": MetricText(
        name="wait_seconds",
        kind=Kind.LOG2,
        help="help",
        slot=FieldText(path="key.slot"),
        slots=40,
        unit="ns",
    ),
    "size_bytes linear value=slots sum=sum step=100 start=5 unit=kib help S": MetricText(
        name="size_bytes",
        kind=Kind.LINEAR,
        help="S",
        value=FieldText(path="slots"),
        sum=FieldText(path="sum"),
        step=100,
        start=5,
        unit="kib",
    ),
    "build_info info label=v=value.v:text const=kind:x.y-1 help B": MetricText(
        name="build_info",
        kind=Kind.INFO,
        help="B",
        labels=(
            LabelText(name="v", field=FieldText(path="value.v"), how=How.TEXT),
            LabelText(name="kind", constant="x.y-1"),
        ),
    ),
    "a_total counter label=t=key/32%8:enum(opcua_count) label=i=ifindex:ifname(netns) help T": MetricText(
        name="a_total",
        kind=Kind.COUNTER,
        help="T",
        labels=(
            LabelText(
                name="t",
                field=FieldText(path="key", divide=32, modulo=8),
                how=How.ENUM,
                argument="opcua_count",
            ),
            LabelText(name="i", field=FieldText(path="ifindex"), how=How.IFNAME, argument="netns"),
        ),
    ),
    "a_total counter value=m[1][2].n[3] help V": MetricText(
        name="a_total", kind=Kind.COUNTER, help="V", value=FieldText(path="m[1][2].n[3]")
    ),
}

# What follows `a_total counter`, with a word of the reason.
WRONG = {
    "": "no help",
    "help": "no help",
    "help  ": "no help",
    f"help {'x' * (MAX_HELP_CHARACTERS + 1)}": "longer than",
    "help a\x1b[2J": "not printable",
    "help a\nb": "not printable",
    "value help A": "no option",
    "value= help A": "no option",
    "colour=red help A": "unknown option",
    "value=a value=b help A": "two options value",
    "unit=ms unit=s help A": "two options unit",
    "value=a..b help A": "not a field",
    "value=1a help A": "not a field",
    "value=a[x] help A": "not a field",
    "value=a[-1] help A": "not a field",
    "value=a[123456] help A": "not a field",
    "value=a.b.c.d.e.f.g.h.i help A": "not a field",
    "label=t=key/0 help A": "division by 0",
    "label=t=key%0 help A": "division by 0",
    "label=t=key%3/2 help A": "not a field",
    "label=T help A": "not a name in lower case",
    "label=_t help A": "not a name in lower case",
    "label=1t help A": "not a name in lower case",
    "label=t-u help A": "not a name in lower case",
    f"label={'t' * 129} help A": "not a name in lower case",
    "label=t:colour help A": "is not one of",
    "label=t: help A": "is not one of",
    "label=t:number(x) help A": "has no argument",
    "label=t:enum() help A": "is not one of",
    "label=t:enum(a help A": "is not one of",
    "label=t label=t help A": "two labels t",
    "label=t const=t:x help A": "two labels t",
    " ".join(f"label=l{n}" for n in range(MAX_LABELS + 1)) + " help A": "more than 16 labels",
    "const=t help A": "not LABEL:VALUE",
    "const=t: help A": "not LABEL:VALUE",
    'const=t:a"b help A': "not LABEL:VALUE",
    f"const=t:{'a' * 65} help A": "not LABEL:VALUE",
    "unit=furlong help A": "unit furlong: not one of",
    "slot=key help A": "has no option slot",
    "step=5 help A": "has no option step",
    "sum=a help A": "has no option sum",
    **{f"label={name} help A": "reserved" for name in sorted(RESERVED_LABELS)},
}

# Whole tags with a word of the reason: names, kinds and options that contradict each other.
CONTRADICTORY = {
    "": "no name",
    "a_total": "no kind",
    "a_total count help A": "is not a kind",
    "a counter help A": "ends in _total",
    "a_total gauge help A": "does not end in _total",
    "a_count gauge help A": "does not end in _count",
    "a_sum log2 value=a help A": "does not end in _sum",
    "a_bucket linear step=1 help A": "does not end in _bucket",
    "a_info gauge help A": "does not end in _info",
    "a info label=b help A": "ends in _info",
    "a_info info help A": "requires a label",
    "a_info info label=b value=c help A": "has no option value",
    "a_info info label=b unit=s help A": "has no option unit",
    "Abc_total counter help A": "lower-case",
    "aB_total counter help A": "lower-case",
    "a__b_total counter help A": "lower-case",
    "_a_total counter help A": "lower-case",
    "a_total_ counter help A": "lower-case",
    "1a_total counter help A": "lower-case",
    "a:b_total counter help A": "lower-case",
    "a-b_total counter help A": "lower-case",
    "ä_total counter help A": "lower-case",
    f"{'a' * 123}_total counter help A": "lower-case",
    "buildtool_a_total counter help A": "of the loader",
    "a_counter_total counter help A": "the word counter",
    "histogram_of_a log2 help A": "the word histogram",
    "a_ms gauge help A": "the unit ms",
    "a_nanoseconds_total counter help A": "the unit nanoseconds",
    "a_kb gauge help A": "the unit kb",
    "a_percent gauge help A": "the unit percent",
    "a_bytes_total counter help A": "no unit=",
    "a_seconds gauge help A": "no unit=",
    "a_total counter unit=bytes help A": "has bytes before",
    "a_bytes gauge unit=ms help A": "has seconds before",
    "bytes_a gauge unit=bytes help A": "has bytes before",
    "a linear value=b help A": "requires step=N",
    "a linear step=0 help A": "requires step=N",
    "a linear step=5 slot=key help A": "requires slots=N",
    "a linear step=5 slot=key slots=513 help A": "513 slots",
    "a linear step=5 slot=key slots=1 help A": "1 slots",
    "a log2 slot=key slots=65 help A": "65 slots",
    "a log2 slots=8 help A": "slots= requires slot=",
    "a log2 slot=key sum=b help A": "sum= requires",
    "a log2 step=3 help A": "has no option step",
    "a linear step=-1 help A": "not a number",
    "a linear step=9223372036854775808 help A": "not a number",
    "a linear step=\u0663 help A": "not a number",
}


def _field(field: FieldText | None) -> str | None:
    if field is None:
        return None
    divide = f"/{field.divide}" if field.divide else ""
    return f"{field.path}{divide}" + (f"%{field.modulo}" if field.modulo else "")


def describe_metric(metric: MetricText) -> dict[str, Any]:
    """Return *metric* as the vectors describe it."""
    fields = {name: _field(getattr(metric, name)) for name in ("value", "slot", "sum")}
    numbers = {name: getattr(metric, name) for name in ("slots", "step", "start")}
    labels = [
        {
            "name": label.name,
            "field": _field(label.field),
            "how": label.how,
            "argument": label.argument,
            "constant": label.constant,
        }
        for label in metric.labels
    ]
    words = {"name": metric.name, "kind": metric.kind, "help": metric.help, "unit": metric.unit}
    return {**words, **fields, **numbers, "labels": labels}


def make_document() -> str:
    """Return the vectors as JSON: tags that each reader reads alike, and tags that each reader refuses."""
    wrong = {f"a_total counter {rest}": why for rest, why in WRONG.items()} | CONTRADICTORY
    document = {
        "version": 1,
        "read": [
            {"tag": f"metric: {text}", "metric": describe_metric(metric)} for text, metric in GOOD.items()
        ],
        "refused": [{"tag": f"metric: {text}", "why": why} for text, why in wrong.items()],
    }
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    print(make_document(), end="")  # noqa: T201 - the vectors
