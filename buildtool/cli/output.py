# SPDX-License-Identifier: Apache-2.0
"""Print: data to stdout, messages to stderr, decoration on a terminal only."""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from buildtool.core.text import escape

_LINES_AT_ONCE = 1024
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def print_json(value: Any) -> None:
    """Print *value* as one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, default=str))


def clean(text: str) -> str:
    """
    Return *text* with escaped control characters, except line feeds and tabs.

    File names, objects and images are untrusted, and could send commands to the terminal.
    """
    return escape(text, keep="\n\t")


def clean_line(text: str) -> str:
    """Return *text* with escaped control characters, as one line."""
    return clean(text).replace("\n", "\\n")


def say(message: str) -> None:
    """Print *message*, which is not data, on stderr."""
    click.echo(f"buildtool: {clean(message)}", err=True)


def output_ended() -> bool:
    """Return whether the reader of stdout has closed it, so that a command without an end ends."""
    # The streams of cli/main.py store the error of a write, and discard what follows.
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return getattr(raw, "error", None) is not None


def write_lines(lines: Iterable[str]) -> None:
    """
    Write *lines* as they come, many at once, until the reader of stdout closes it.

    An interrupt waits for the end of a write, so that no line is cut or written twice; the next one does not.
    """
    rest = iter(lines)
    while not output_ended() and (some := list(itertools.islice(rest, _LINES_AT_ONCE))):
        with _late_interrupt():
            sys.stdout.write("".join(f"{line}\n" for line in some))
            sys.stdout.flush()


@contextmanager
def _late_interrupt() -> Iterator[None]:
    """
    Delay the first interrupt in the block until its end.

    A handler that raises between a write and the note that it was done makes Python write the buffer again.
    """
    pending: list[int] = []

    def note(number: int, _: object) -> None:
        if pending:
            raise KeyboardInterrupt
        pending.append(number)

    numbers = [each for each in _INTERRUPTS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if pending:
        raise KeyboardInterrupt


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Print *rows*: a table with *header* on a terminal, otherwise fields separated by tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(map(clean_line, row)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(clean_line(cell)) for cell in row))  # Text disables rich's markup in values
    Console().print(table)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of *total* steps. On a terminal, it advances a bar."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
