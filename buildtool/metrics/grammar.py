# SPDX-License-Identifier: Apache-2.0
"""Parse the text of metric tags, and check the rules for names. Source: spec/metrics.md, sections 2 to 4."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from buildtool.core.errors import MetricTagError
from buildtool.core.text import escape

PREFIX = b"metric:"
LABEL_PREFIX = b"metric-label:"
MAX_TAG_BYTES = 1024
MAX_HELP_CHARACTERS = 256
MAX_LABELS = 16
MAX_SLOTS = 512
MAX_LOG2_SLOTS = 64
MAX_NUMBER = (1 << 63) - 1
_MAX_NAME_CHARACTERS = 128
_MAX_DEPTH = 8
_MAX_SHOWN = 60

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_CONSTANT = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_STEP = r"[A-Za-z_][A-Za-z0-9_]*(?:\[\d{1,5}\])*"
_FIELD = re.compile(rf"({_STEP}(?:\.{_STEP})*)(?:/(\d{{1,10}}))?(?:%(\d{{1,10}}))?")
_HOW = re.compile(r"([a-z0-9]+)(?:\(([A-Za-z_][A-Za-z0-9_.]*)\))?")
# Labels that Prometheus or a reader of maps adds.
RESERVED_LABELS = frozenset(("le", "quantile", "job", "instance", "object", "place", "entry"))
RESERVED_NAMES = ("buildtool_",)
# Suffixes that Prometheus adds to names, and words that repeat the kind: the rules of promtool.
_SUFFIXES = ("total", "count", "sum", "bucket", "info", "created")
_KIND_WORDS = frozenset(("counter", "gauge", "histogram", "summary"))
_OTHER_UNITS = {
    "seconds": (
        *("s", "ms", "us", "ns", "sec", "m", "h", "d"),
        *("milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days"),
    ),
    "bytes": (
        *("b", "kb", "mb", "gb", "tb", "pb", "kib", "mib", "gib"),
        *("kilobytes", "megabytes", "gigabytes", "bits"),
    ),
    "ratio": ("percent", "percents"),
}


class Kind(StrEnum):
    """The kinds of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    LOG2 = "log2"
    LINEAR = "linear"
    INFO = "info"

    @property
    def is_histogram(self) -> bool:
        """True if the metric counts values by slots."""
        return self in (Kind.LOG2, Kind.LINEAR)


class How(StrEnum):
    """The ways to make a label's value of a field."""

    NUMBER = "number"
    HEX = "hex"
    ENUM = "enum"
    TEXT = "text"
    IFNAME = "ifname"
    NETNS = "netns"
    CGROUP = "cgroup"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    MAC = "mac"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricUnit:
    """A unit of the program's numbers: *base* is Prometheus' unit, of which one is *divisor* / *factor*."""

    base: str
    factor: int = 1
    divisor: int = 1


UNITS = {
    "s": MetricUnit(base="seconds"),
    "ms": MetricUnit(base="seconds", divisor=1000),
    "us": MetricUnit(base="seconds", divisor=1_000_000),
    "ns": MetricUnit(base="seconds", divisor=1_000_000_000),
    "bytes": MetricUnit(base="bytes"),
    "kib": MetricUnit(base="bytes", factor=1024),
    "percent": MetricUnit(base="ratio", divisor=100),
    "permille": MetricUnit(base="ratio", divisor=1000),
    "hz": MetricUnit(base="hertz"),
}
_BASES = frozenset(unit.base for unit in UNITS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldText:
    """A field as written: *path*, then division by *divide* and remainder of *modulo*, 0 for none."""

    path: str
    divide: int = 0
    modulo: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelText:
    """
    A label as written: *name*, *field* or None for the default, *how* or None, and the *argument* of how.

    A label with a *constant* has no field.
    """

    name: str
    field: FieldText | None = None
    how: How | None = None
    argument: str = ""
    constant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricText:
    """A metric tag as written. 0 stands for numbers that are not given."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    value: FieldText | None = None
    slot: FieldText | None = None
    sum: FieldText | None = None
    slots: int = 0
    step: int = 0
    start: int = 0
    labels: tuple[LabelText, ...] = ()


def parse_metric(text: str) -> MetricText:
    """
    Return the metric of *text*, which follows `metric:`.

    Raises: MetricTagError.
    """
    head, has_help, help_text = f" {text}".partition(" help ")
    words = head.split()
    name = words[0] if words else ""
    if len(words) < 2:
        raise MetricTagError(
            f"metric {_show(name)}: the tag has no name or no kind: {_show(text.strip())}",
            word=name,
            hint='write "metric: NAME KIND help TEXT", as the macros of <buildtool/metrics.bpf.h> do',
        )
    try:
        kind = Kind(words[1])
    except ValueError:
        raise _fault(name, f"{_show(words[1])} is not a kind: {', '.join(Kind)}") from None
    if not has_help or not help_text.strip():
        raise _fault(name, "no help text")
    given = _parse_options(name, words[2:])
    found = MetricText(name=name, kind=kind, help=_check_help(name, help_text.strip()), **given)
    _check_options(found)
    _check_name(found)
    return found


def parse_label(text: str) -> LabelText:
    """
    Return the label of *text*, which follows `metric-label:`.

    Raises: MetricTagError.
    """
    words = text.split()
    if len(words) != 1 or "=" in words[0]:
        raise MetricTagError(
            f"label {_show(text.strip())}: not NAME or NAME:HOW",
            word=words[0].partition(":")[0] if words else "",
            hint='write "metric-label: NAME:HOW" at a field of the key',
        )
    return _parse_label(f"label {_show(words[0])}", words[0])


def _parse_options(name: str, words: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    labels: list[LabelText] = []
    readers: dict[str, Callable[[str, str], Any]] = {
        "unit": _parse_unit,
        "value": _parse_field,
        "slot": _parse_field,
        "sum": _parse_field,
        "slots": _parse_number,
        "step": _parse_number,
        "start": _parse_number,
    }
    for word in words:
        option, has_value, value = word.partition("=")
        if not has_value or not value:
            raise _fault(name, f"{_show(word)} is no option, and no help begins here")
        if option == "label":
            labels.append(_parse_label(f"metric {_show(name)}", value, word=name))
        elif option == "const":
            labels.append(_parse_constant(name, value))
        elif option not in readers:
            raise _fault(name, f"unknown option {_show(option)}")
        elif option in given:
            raise _fault(name, f"two options {option}")
        else:
            given[option] = readers[option](name, value)
    _check_labels(name, labels)
    return {**given, "labels": tuple(labels)}


def _check_labels(name: str, labels: list[LabelText]) -> None:
    if len(labels) > MAX_LABELS:
        raise _fault(name, f"more than {MAX_LABELS} labels")
    names = [label.name for label in labels]
    if twice := next((each for each in names if names.count(each) > 1), None):
        raise _fault(name, f"two labels {twice}")


def check_label_name(owner: str, name: str, *, word: str) -> str:
    """
    Return the label's *name*. *owner* and *word* are for the error.

    Raises: MetricTagError.
    """
    if len(name) > _MAX_NAME_CHARACTERS or not _LABEL.fullmatch(name):
        raise MetricTagError(
            f"{owner}: label {_show(name)}: not a name in lower case", word=word, hint=_LABEL_HINT
        )
    if name in RESERVED_LABELS or name.startswith("__"):
        raise MetricTagError(
            f"{owner}: label {name}: reserved: Prometheus or a reader of maps adds it",
            word=word,
            hint=_LABEL_HINT,
        )
    return name


def _parse_label(owner: str, text: str, *, word: str = "") -> LabelText:
    rest, has_how, how_text = text.partition(":")
    name, has_field, path = rest.partition("=")
    word = word or name
    check_label_name(owner, name, word=word)
    field = _read_field(owner, path, word) if has_field else None
    if not has_how:
        return LabelText(name=name, field=field)
    found = _HOW.fullmatch(how_text)
    how, argument = (found[1], found[2] or "") if found else (how_text, "")
    if how not in set(How):
        raise MetricTagError(
            f"{owner}: label {name}: {_show(how_text)} is not one of {', '.join(How)}",
            word=word,
            hint=_LABEL_HINT,
        )
    if argument and how not in (How.ENUM, How.IFNAME):
        raise MetricTagError(f"{owner}: label {name}: {how} has no argument", word=word, hint=_LABEL_HINT)
    return LabelText(name=name, field=field, how=How(how), argument=argument)


def _parse_constant(name: str, text: str) -> LabelText:
    label, _, value = text.partition(":")
    check_label_name(f"metric {_show(name)}", label, word=name)
    if not _CONSTANT.fullmatch(value):
        raise _fault(name, f"const={_show(text)}: not LABEL:VALUE of letters, digits and _ . + -")
    return LabelText(name=label, constant=value)


def _parse_unit(name: str, text: str) -> str:
    if text not in UNITS:
        raise _fault(name, f"unit {_show(text)}: not one of {', '.join(UNITS)}")
    return text


def _parse_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_NUMBER):
        raise _fault(name, f"{_show(text)}: not a number of at most {MAX_NUMBER}")
    return int(text)


def _parse_field(name: str, text: str) -> FieldText:
    return _read_field(f"metric {_show(name)}", text, name)


def _read_field(owner: str, text: str, word: str) -> FieldText:
    found = _FIELD.fullmatch(text)
    if not found or found[1].count(".") + found[1].count("[") >= _MAX_DEPTH:
        raise MetricTagError(
            f"{owner}: {_show(text)}: not a field such as key, key.member or value.member[2]",
            word=word,
            hint=_FIELD_HINT,
        )
    if "0" in (found[2], found[3]):
        raise MetricTagError(f"{owner}: {_show(text)}: division by 0", word=word, hint=_FIELD_HINT)
    return FieldText(path=found[1], divide=int(found[2] or 0), modulo=int(found[3] or 0))


def _check_help(name: str, text: str) -> str:
    if len(text) > MAX_HELP_CHARACTERS or not text.isprintable():
        raise _fault(name, f"help is longer than {MAX_HELP_CHARACTERS} characters, or not printable")
    return text


def _check_name(metric: MetricText) -> None:
    """Check the rules for names of Prometheus, and those of `promtool check metrics`."""
    name, kind = metric.name, metric.kind
    if len(name) > _MAX_NAME_CHARACTERS or not _NAME.fullmatch(name):
        raise _fault(name, "a name has lower-case letters, digits and single underscores")
    if name.startswith(RESERVED_NAMES):
        raise _fault(name, f"names with {RESERVED_NAMES[0]} are of the loader and of readers")
    words = name.split("_")
    own = {Kind.COUNTER: "total", Kind.INFO: "info"}.get(kind, "")
    if own and words[-1] != own:
        raise _fault(name, f"the name of a metric of kind {kind} ends in _{own}")
    if not own and words[-1] in _SUFFIXES:
        raise _fault(name, f"the name of a metric of kind {kind} does not end in _{words[-1]}")
    if found := next((word for word in words if word in _KIND_WORDS), None):
        raise _fault(name, f"the name has the word {found}, which Prometheus shows as the type")
    _check_unit(metric, words[: len(words) - bool(own)])


def _check_unit(metric: MetricText, words: list[str]) -> None:
    """Check that the name ends in the base unit, and that no other unit is part of it."""
    name = metric.name
    for base, others in _OTHER_UNITS.items():
        if wrong := next((word for word in words if word in others), None):
            raise _fault(name, f"the name has the unit {wrong}: Prometheus' unit is {base}")
    base = UNITS[metric.unit].base if metric.unit else ""
    if base and (not words or words[-1] != base):
        raise _fault(name, f"with unit={metric.unit}, the name has {base} before its ending")
    if not base and (found := next((word for word in words[-1:] if word in _BASES), None)):
        raise _fault(name, f"the name has {found}, and no unit= says what the program counts")


def _check_options(metric: MetricText) -> None:
    kind = metric.kind
    allowed = {"slot", "slots", "sum", "value", "unit"} if kind.is_histogram else {"value", "unit"}
    allowed |= {"step", "start"} if kind is Kind.LINEAR else set()
    allowed -= {"value", "unit"} if kind is Kind.INFO else set()
    for option in ("value", "unit", "slot", "sum", "slots", "step", "start"):
        if getattr(metric, option) and option not in allowed:
            raise _fault(metric.name, f"a metric of kind {kind} has no option {option}")
    if kind is Kind.LINEAR and not metric.step:
        raise _fault(metric.name, "a linear histogram requires step=N, the width of a slot")
    limit = MAX_LOG2_SLOTS if kind is Kind.LOG2 else MAX_SLOTS
    if metric.slots == 1 or metric.slots > limit:
        raise _fault(metric.name, f"{metric.slots} slots, not 2 to {limit}")
    if kind is Kind.LINEAR and metric.slot and not metric.slots:
        raise _fault(metric.name, "a linear histogram with slot= requires slots=N")
    if metric.slots and not metric.slot:
        raise _fault(metric.name, "slots= requires slot=: an array has a length of its own")
    if metric.slot and metric.sum:
        raise _fault(metric.name, "sum= requires a value with an array of slots, not slot=")
    if kind is Kind.INFO and not metric.labels:
        raise _fault(metric.name, "a metric of kind info requires a label")


def _fault(name: str, problem: str) -> MetricTagError:
    return MetricTagError(
        f"metric {_show(name)}: {problem}",
        word=name,
        hint="spec/metrics.md has the form of a tag and the rules",
    )


def _show(text: str) -> str:
    """Return *text*, which may be hostile, for a message."""
    shown = escape(text)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"


_LABEL_HINT = "write label=NAME, label=NAME:HOW or label=NAME=FIELD:HOW, as label=interface=ifindex:ifname"
_FIELD_HINT = "write the members from key or value on, then /N or %N: key/32, value.slots"
