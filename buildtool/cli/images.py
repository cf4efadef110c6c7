# SPDX-License-Identifier: Apache-2.0
"""`buildtool images prepare`."""

from __future__ import annotations

import dataclasses
import json

import click

from buildtool.cli.options import complete_arch
from buildtool.image.docker.prepare import DEFAULT_ARCHITECTURES, DEFAULT_SUITE, prepare_images


@click.group("images")
def command() -> None:
    """Prepare builder and base images."""


@command.command("prepare")
@click.option(
    "--arch",
    "architectures",
    multiple=True,
    default=DEFAULT_ARCHITECTURES,
    show_default=True,
    shell_complete=complete_arch,
)
@click.option("--suite", default=DEFAULT_SUITE, show_default=True, help="Debian suite to take packages from.")
@click.option("--mirror", metavar="URI", help="Debian mirror; default: the one of this system's apt.")
@click.option("--force", is_flag=True, help="Make the images even if the engine has them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def prepare(
    *, architectures: tuple[str, ...], suite: str, mirror: str | None, force: bool, as_json: bool
) -> None:
    """Make the builder image and the distroless base from Debian packages."""
    images = prepare_images(
        architectures=architectures,
        suite=suite,
        mirror=mirror,
        force=force,
        report=lambda line: click.echo(f"images: {line}", err=True),
    )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(images), sort_keys=True))
        return
    click.echo(f"{images.builder} {images.builder_digest}")
    click.echo(f"{images.base} {images.base_digest}")
    if not images.made:
        click.echo("images: nothing to do, the engine has them", err=True)
