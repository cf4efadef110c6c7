# SPDX-License-Identifier: Apache-2.0
"""Time commands side by side, and print the results with missed limits."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A promise: *ours* is at most *limit*, or at most *limit* times *theirs* if that is given."""

    name: str
    unit: str
    ours: float
    limit: float
    theirs: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        """Return the number that the limit bounds: *ours*, or its ratio to *theirs*."""
        return self.ours if self.theirs is None else self.ours / self.theirs

    @property
    def kept(self) -> bool:
        """Return whether the promise holds."""
        return self.value <= self.limit

    def to_json(self) -> dict[str, object]:
        """Return the row as a JSON object."""
        names = ("name", "unit", "ours", "theirs", "limit", "note")
        return {name: getattr(self, name) for name in names} | {"value": self.value, "kept": self.kept}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """
    A program to time: *argv*, in directory *cwd*, with *env* added to the environment.

    The time ends with the program, or when the program has written *until* to stderr and gets
    SIGTERM. *cleanup* is called after each run, and is not timed.
    """

    argv: Sequence[str | Path]
    cwd: Path | None = None
    env: Mapping[str, str] | None = None
    until: bytes = b""
    cleanup: Callable[[], None] | None = None


class BenchError(Exception):
    """A row cannot be measured. The message has the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Medians in milliseconds: *wall* time, and *cpu* time of the program and its children."""

    wall: float
    cpu: float


def compare(name: str, ours: Command, theirs: Command, *, rounds: int, limit: float, note: str = "") -> Row:
    """
    Time both commands, and return the row. *limit* bounds wall time. The note also has CPU time.

    Raises: BenchError.
    """
    a, b = time_pair(ours, theirs, rounds=rounds)
    cpu = f"CPU time {a.cpu:.2f} against {b.cpu:.2f} ms, {a.cpu / b.cpu:.2f}x" if b.cpu else ""
    return Row(
        name=name,
        unit="ms",
        ours=a.wall,
        theirs=b.wall,
        limit=limit,
        note="; ".join(text for text in (note, cpu) if text),
    )


def time_pair(ours: Command, theirs: Command, *, rounds: int, warmup: int = 1) -> tuple[Timing, Timing]:
    """
    Run both commands *rounds* times, alternately, and return their median times.

    Other load of the machine then affects both equally. The first command changes each round,
    because the second may find warm caches.

    Raises: BenchError, if a run fails.
    """
    times: dict[int, list[Timing]] = {0: [], 1: []}
    commands = (ours, theirs)
    for number in range(warmup + rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            took = _time_once(commands[which])
            if number >= warmup:
                times[which].append(took)
    return _median(times[0]), _median(times[1])


def _median(runs: Sequence[Timing]) -> Timing:
    return Timing(
        wall=statistics.median(run.wall for run in runs), cpu=statistics.median(run.cpu for run in runs)
    )


def _time_once(command: Command) -> Timing:
    """Return the times of one run. Starting adds the same tenth of a millisecond to each command."""
    argv = [str(word) for word in command.argv]
    env = {**os.environ, **(command.env or {})}
    back = Path.cwd()
    if command.cwd:
        os.chdir(command.cwd)
    reader, writer = os.pipe()
    # posix_spawn does not copy this process, which would distort programs of two milliseconds.
    streams: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)
    ]
    if command.until:
        streams.append((os.POSIX_SPAWN_DUP2, writer, 2))
    start = time.perf_counter()
    child = os.posix_spawnp(argv[0], argv, env, file_actions=streams)
    os.chdir(back)
    os.close(writer)
    with FileIO(reader) as stderr:
        took = _stop_after(child, stderr, command.until) - start if command.until else 0.0
    _, status, usage = os.wait4(child, 0)
    took = took or time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise BenchError(f"exit code {code}: {' '.join(argv)[:300]}")
    if command.cleanup:
        command.cleanup()
    return Timing(wall=took * 1000, cpu=(usage.ru_utime + usage.ru_stime) * 1000)


def _stop_after(child: int, stderr: FileIO, word: bytes) -> float:
    """Return the time at which *word* arrived. Send SIGTERM then, and read until *child* ends."""
    data, came = b"", 0.0
    while read := stderr.read(65536):
        data += read
        if not came and word in data:
            came = time.perf_counter()
            os.kill(child, signal.SIGTERM)
    if not came:
        raise BenchError(f"it never said {word!r}: {data[-300:]!r}")
    return came


def print_table(rows: Sequence[Row], missing: Mapping[str, str]) -> None:
    """Print all *rows*, then the benchmarks in *missing* with the reason."""
    header = ("what", "ours", "against", "result", "limit", "")
    lines = [header]
    for row in rows:
        unit = "" if row.unit == "ms" else row.unit
        result = f"{row.value:.2f}x" if row.theirs is not None else f"{row.value:.2f} {unit}"
        limit = f"{row.limit:.2f}x" if row.theirs is not None else f"{row.limit:.2f} {unit}"
        theirs = "-" if row.theirs is None else f"{row.theirs:.2f} {row.unit}"
        lines.append(
            (row.name, f"{row.ours:.2f} {row.unit}", theirs, result, limit, "ok" if row.kept else "MISSED")
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    for row in rows:
        if row.note:
            print(f"{row.name}: {row.note}")
    for name, reason in missing.items():
        print(f"{name}: NOT MEASURED: {reason}", file=sys.stderr)
