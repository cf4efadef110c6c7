# SPDX-License-Identifier: Apache-2.0
"""Options for directories of pins, and the loader's settings that they override."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from buildtool.cli.options import read_config
from buildtool.config.file import Config
from buildtool.core.errors import FileAccessError, UsageError
from buildtool.metrics.pinned import Place

Command = TypeVar("Command", bound=Callable[..., Any])
_PLACES_HINT = "name the directory of the loader: --pin-root DIR or --share DIR"
_DIRECTORY = click.Path(path_type=Path, readable=False)  # the reader has better words


interval_option = click.option(
    "--interval",
    type=click.FloatRange(0.05, 86400),
    default=1.0,
    show_default=True,
    help="Seconds from one reading to the next.",
)
count_option = click.option("--count", type=click.IntRange(1), help="End after this number of intervals.")


def places_options(function: Command) -> Command:
    """Add --pin-root and --share."""
    pin_root = click.option(
        "--pin-root",
        "pin_roots",
        multiple=True,
        type=_DIRECTORY,
        help="Directory of the loader's --pin-root, may be repeated; default: loader.pin-root.",
    )
    share = click.option(
        "--share",
        "shares",
        multiple=True,
        type=_DIRECTORY,
        help="Directory of the loader's --share, may be repeated; default: loader.share.",
    )
    return pin_root(share(function))


def require_directories(places: Sequence[Place]) -> None:
    """Check that all *places* exist. Raises: FileAccessError."""
    for place in places:
        if not place.directory.is_dir():
            raise FileAccessError(f"{place.directory}: not a directory", hint=_PLACES_HINT)


def choose_places(
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
