# SPDX-License-Identifier: Apache-2.0
"""`buildtool metrics`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from buildtool.cli.options import config_option
from buildtool.cli.output import clean, say
from buildtool.cli.places import choose_places, places_options, require_directories
from buildtool.core.errors import EXIT_DONE, EXIT_FAILED
from buildtool.metrics.exposition import Reader
from buildtool.metrics.samples import MAX_SERIES
from buildtool.metrics.serve import DEFAULT_LISTEN, MetricsServer, parse_listen

Command = TypeVar("Command", bound=Callable[..., Any])
_OPEN_METRICS = "application/openmetrics-text"


@click.group("metrics")
def command() -> None:
    """Show the metrics that loaded objects declare, from their pinned maps."""


def _options(function: Command) -> Command:
    """Add the options of both commands."""
    series = click.option(
        "--max-series",
        type=click.IntRange(1, 1_000_000),
        default=MAX_SERIES,
        show_default=True,
        help="Most series of one metric of one object.",
    )
    return places_options(series(config_option(function)))


@command.command("print")
@_options
@click.option("--openmetrics", is_flag=True, help="Print OpenMetrics in place of Prometheus' text format.")
def print_metrics(
    *,
    pin_roots: tuple[Path, ...],
    shares: tuple[Path, ...],
    max_series: int,
    config_path: Path | None,
    openmetrics: bool,
) -> int:
    """
    Print all metrics once.

    A file of these is for the textfile collector of node_exporter. The exit code
    is 1 if the metrics of an object could not be read.
    """
    places = choose_places(pin_roots, shares, config_path)
    require_directories(places)
    reader = Reader(places=places, warn=say, max_series=max_series)
    text, _ = reader.render(f"{_OPEN_METRICS};version=1.0.0" if openmetrics else "")
    # A label may be a text that a program found. What is no terminal gets the exact bytes.
    click.echo(clean(text.decode()) if sys.stdout.isatty() else text, nl=False)
    return EXIT_FAILED if reader.failed else EXIT_DONE


@command.command("serve")
@_options
@click.option(
    "--listen", default=DEFAULT_LISTEN, show_default=True, metavar="ADDRESS:PORT", help="Where to listen."
)
def serve(
    *,
    pin_roots: tuple[Path, ...],
    shares: tuple[Path, ...],
    max_series: int,
    config_path: Path | None,
    listen: str,
) -> None:
    """
    Serve all metrics over HTTP, at /metrics, until the command is interrupted.

    /healthz answers 200, or 503 after a reading that failed. Each request reads
    the maps anew, and finds objects that were loaded meanwhile.
    """
    places = choose_places(pin_roots, shares, config_path)
    host, port = parse_listen(listen)
    reader = Reader(places=places, warn=say, max_series=max_series)
    with MetricsServer(reader.render, host, port) as server:
        shown = f"[{host}]" if ":" in host else host
        say(f"metrics: http://{shown}:{server.port}/metrics")
        for place in places:
            if not place.directory.is_dir():
                say(f"{place.directory}: not a directory yet")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("metrics: ended")
