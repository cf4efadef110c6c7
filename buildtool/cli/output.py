# SPDX-License-Identifier: Apache-2.0
"""How commands print: data to stdout, talk to stderr, decoration on a terminal only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click


def print_json(value: Any) -> None:
    """Print *value* as one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, default=str))


def say(message: str) -> None:
    """Tell the user something that is not data, on stderr."""
    click.echo(f"buildtool: {message}", err=True)


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Print *rows* below *header*: a rich table on a terminal, else fields separated by tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: values must not be taken for markup
    Console().print(table)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Give a function to call after each of *total* steps; draws a bar on a terminal, else nothing."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
