# SPDX-License-Identifier: Apache-2.0
"""The screen of `buildtool top`: lines of an interval, keys, and changes of the terminal's size."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from buildtool.cli.output import clean_line, output_ended
from buildtool.cli.topview import order_metrics, order_series, owner_name, rate_of, series_name, total_of
from buildtool.metrics.grammar import Kind
from buildtool.metrics.rates import Interval, MetricChange, RateMeter, SeriesChange
from buildtool.metrics.samples import convert, upper_bound

_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"
_NUMBER_CELLS = 10
_MAX_BAR_CELLS = 24
_MIN_BAR_WIDTH = 50
_SORTS = {"r": "rate", "n": "name", "v": "value"}
_STEPS = {"j": 1, "k": -1, "\x1b[B": 1, "\x1b[A": -1, " ": 10, "\x1b[6~": 10, "\x1b[5~": -10}
_KEYS = "r/n/v sort  j/k scroll  q end"


@dataclass(slots=True)
class Screen:
    """What the user chose: the order *sort*, the *first* line below the head, and the last *notes*."""

    sort: str = "rate"
    first: int = 0
    is_ended: bool = False
    bars: str = _BARS
    notes: list[str] = field(default_factory=list)

    def press(self, key: str) -> None:
        """Do what *key* means. Other keys mean nothing."""
        if key in _SORTS:
            self.sort, self.first = _SORTS[key], 0
        elif key in _STEPS:
            self.first = max(0, self.first + _STEPS[key])
        elif key == "q":
            self.is_ended = True

    def lines(self, found: Interval | None, width: int, height: int) -> list[Text]:
        """Return at most *height* lines of at most *width* cells."""
        if found is None:
            return [Text("buildtool top: the first interval"[:width])][:height]
        objects = f"{found.objects} object{'' if found.objects == 1 else 's'}"
        head = f"buildtool top  {objects}  {found.seconds:.2f} s  by {self.sort}"
        top = [Text(_fit(f"{head}  {_KEYS}", width), "reverse")]
        top += [Text(_fit(clean_line(note), width), "yellow") for note in self.notes[-2:]]
        body = [
            line
            for metric in order_metrics(found, self.sort)
            for line in self._metric(metric, found.seconds, width)
        ]
        if not body:
            body = [Text(_fit("no metrics: no pinned object declares any", width))]
        room = max(0, height - len(top))
        self.first = min(self.first, max(0, len(body) - room))
        return (top + body[self.first : self.first + room])[:height]

    def _metric(self, found: MetricChange, seconds: float, width: int) -> Iterator[Text]:
        """Yield the lines of one metric: its name and sum, its CPUs, its series."""
        metric = found.metric
        rate = rate_of(found, found.change, seconds)
        unit = f" {metric.unit}" if metric.unit and not metric.kind.is_histogram else ""
        right = "" if rate is None else f"{_short(rate)}{unit}/s"
        more = "  more series than are shown" if found.is_cut else ""
        yield _row(f"{metric.name}  {metric.kind}  {owner_name(found)}{more}", right, width, "bold")
        if found.cpus is not None:
            yield self._heat(found.cpus, width)
        only = len(found.series) == 1 and not found.metric.labels
        highest = max((each.change or 0 for each in found.series), default=0)
        for series in order_series(found, self.sort):
            yield self._series(found, series, seconds, width, "" if only else "x", highest)

    def _series(
        self, found: MetricChange, series: SeriesChange, seconds: float, width: int, named: str, highest: int
    ) -> Text:
        name = series_name(found, series)[len(found.metric.name) :] if named else ""
        rate = rate_of(found, series.change, seconds)
        value = "" if found.metric.kind is Kind.INFO else _short(total_of(found, series))
        numbers = f"{value:>{_NUMBER_CELLS}}{'' if rate is None else _short(rate) + '/s':>{_NUMBER_CELLS}}"
        cells = 0 if width < _MIN_BAR_WIDTH else min(_MAX_BAR_CELLS + _NUMBER_CELLS, width // 3)
        if series.slots:
            bar = self._histogram(found, series)
        else:
            bar = self._bar(series.change or 0, highest, min(_MAX_BAR_CELLS, cells)) if named else ""
        return _row(f"  {name}", f"{numbers}  {_fit(bar, cells)}" if bar and cells else numbers, width, "")

    def _bar(self, number: int, highest: int, cells: int) -> str:
        if not highest:
            return ""
        full, part = divmod(number * cells * 8 // highest, 8)
        return self.bars[8] * full + (self.bars[part] if part else "")

    def _histogram(self, found: MetricChange, series: SeriesChange) -> str:
        """Return a bar for each slot from the first to the last one that counted, and what these hold."""
        counted = [slot for slot, number in enumerate(series.slots) if number]
        if not counted:
            return ""
        first, last = counted[0], counted[-1]
        bars = self._heights(series.slots[first : last + 1])
        metric, end = found.metric, len(series.slots) - 1
        low = f"<={_short(convert(metric, upper_bound(metric, first)))}" if first < end else ">"
        high = f"<={_short(convert(metric, upper_bound(metric, last)))}" if last < end else "more"
        unit = f" {metric.unit}" if metric.unit else ""
        return f"|{bars}| {low}{unit}" if first == last else f"|{bars}| {low} to {high}{unit}"

    def _heat(self, cpus: Sequence[int], width: int) -> Text:
        """Return one cell for each CPU, the higher the more it counted."""
        line = Text("  cpu ")
        line.append(f"|{self._heights(cpus)}|", "red")
        line.truncate(width)
        return line

    def _heights(self, numbers: Sequence[int]) -> str:
        highest = max(numbers, default=0)
        # A number above 0 is visible beside any other.
        return "".join(self.bars[-(-number * 8 // highest)] if number else self.bars[0] for number in numbers)


def show_live(meter: RateMeter, notes: list[str], *, interval: float, count: int | None, sort: str) -> None:
    """Show each interval on the terminal, until a key, *count* or an interrupt ends it."""
    console = Console()
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    screen = Screen(sort=sort, bars=_BARS if encoding == "utf8" else _ASCII_BARS, notes=notes)
    found: Interval | None = None
    meter.begin()
    with _Keyboard() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:

        def draw() -> None:
            width, height = console.size
            live.update(Group(*screen.lines(found, width, height)), refresh=True)

        draw()
        due = time.monotonic()
        while count != 0:
            due = max(due + interval, time.monotonic())
            while (left := due - time.monotonic()) > 0:
                for key in keyboard.wait(left):
                    screen.press(key)
                if screen.is_ended or output_ended():
                    return
                draw()
            found = meter.read()
            draw()
            count = None if count is None else count - 1


class _Keyboard:
    """Keys of the terminal without the line discipline, which is restored at the end."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._files: list[int] = []
        self._wake = -1

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(os.close, self._wake)
            stack.callback(os.close, write)
            self._files = [self._wake]

            def resized(_number: int, _frame: object) -> None:
                with contextlib.suppress(BlockingIOError):
                    os.write(write, b"x")

            stack.callback(signal.signal, signal.SIGWINCH, signal.signal(signal.SIGWINCH, resized))
            if sys.stdin.isatty():
                descriptor = sys.stdin.fileno()
                stack.callback(termios.tcsetattr, descriptor, termios.TCSANOW, termios.tcgetattr(descriptor))
                tty.setcbreak(descriptor, termios.TCSANOW)
                self._files.append(descriptor)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys or another size of the terminal, at most *seconds*, and return the keys."""
        ready, _, _ = select.select(self._files, [], [], seconds)
        keys: list[str] = []
        for descriptor in ready:
            try:
                data = os.read(descriptor, 1024)
            except OSError:  # the terminal is gone
                data = b""
            if descriptor == self._wake:
                continue
            if not data:
                self._files.remove(descriptor)
            text = data.decode("ascii", "replace")
            keys += [text] if text.startswith("\x1b") else list(text)
        return keys


def _row(left: str, right: str, width: int, style: str) -> Text:
    """Return a line with *right* at its right end, which a narrow terminal cuts last."""
    room = width - cell_len(right) - 1
    if room < 8:
        return Text(_fit(f"{left} {right}", width), style)
    return Text(f"{_fit(left, room)} {right}", style)


def _fit(text: str, cells: int) -> str:
    """Return *text* with spaces at its end, or cut, to *cells* cells."""
    return set_cell_size(text, cells) if cells > 0 else ""


def _short(number: float) -> str:
    """Return *number* with about three digits and a prefix."""
    for limit, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            return f"{number / (1e3 if sign == 'k' else limit):.3g}{sign}"
    return f"{number:.4g}"
