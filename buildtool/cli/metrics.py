# SPDX-License-Identifier: Apache-2.0
"""`buildtool metrics`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from buildtool.cli.options import config_option, read_config
from buildtool.cli.output import clean, say
from buildtool.config.file import Config
from buildtool.core.errors import EXIT_DONE, EXIT_FAILED, FileAccessError, UsageError
from buildtool.metrics.exposition import Reader
from buildtool.metrics.pinned import Place
from buildtool.metrics.samples import MAX_SERIES
from buildtool.metrics.serve import DEFAULT_LISTEN, MetricsServer, parse_listen

Command = TypeVar("Command", bound=Callable[..., Any])
_OPEN_METRICS = "application/openmetrics-text"
_PLACES_HINT = "name the directory of the loader: --pin-root DIR or --share DIR"
_DIRECTORY = click.Path(path_type=Path, readable=False)  # the reader has better words


@click.group("metrics")
def command() -> None:
    """Show the metrics that loaded objects declare, from their pinned maps."""


def _options(function: Command) -> Command:
    """Add the options of both commands."""
    options = (
        click.option(
            "--pin-root",
            "pin_roots",
            multiple=True,
            type=_DIRECTORY,
            help="Directory of the loader's --pin-root, may be repeated; default: loader.pin-root.",
        ),
        click.option(
            "--share",
            "shares",
            multiple=True,
            type=_DIRECTORY,
            help="Directory of the loader's --share, may be repeated; default: loader.share.",
        ),
        click.option(
            "--max-series",
            type=click.IntRange(1, 1_000_000),
            default=MAX_SERIES,
            show_default=True,
            help="Most series of one metric of one object.",
        ),
        config_option,
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), function)


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
    places = _choose_places(pin_roots, shares, config_path)
    for place in places:
        if not place.directory.is_dir():
            raise FileAccessError(f"{place.directory}: not a directory", hint=_PLACES_HINT)
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
    places = _choose_places(pin_roots, shares, config_path)
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


def _choose_places(
    pin_roots: tuple[Path, ...], shares: tuple[Path, ...], config_path: Path | None
) -> tuple[Place, ...]:
    """Return the places to read. Raises: UsageError, ConfigError."""
    found = [Place(directory=path) for path in pin_roots]
    found += [Place(directory=path, is_shared=True) for path in shares]
    return tuple(dict.fromkeys(found)) or _configured_places(read_config(config_path))


def _configured_places(config: Config) -> tuple[Place, ...]:
    found = []
    if config.loader.pin_root:
        found.append(Place(directory=Path(config.loader.pin_root)))
    if config.loader.share:
        found.append(Place(directory=Path(config.loader.share), is_shared=True))
    if not found:
        raise UsageError("no directory of pins is named or configured", hint=_PLACES_HINT)
    return tuple(found)
