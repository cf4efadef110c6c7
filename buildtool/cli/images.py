# SPDX-License-Identifier: Apache-2.0
"""`buildtool images prepare`."""

from __future__ import annotations

import dataclasses
import json

import click

from buildtool.cli.options import complete_arch
from buildtool.image.docker.prepare import DEFAULT_ARCHITECTURES, DEFAULT_SUITE, prepare_images
from buildtool.image.docker.preparedregistry import RegistryStore


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
@click.option(
    "--push",
    default="",
    metavar="REPOSITORY",
    help="Push both as REPOSITORY/builder and /base instead, for builders elsewhere; requires no engine.",
)
@click.option("--force", is_flag=True, help="Make the images even if they are there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def prepare(
    *,
    architectures: tuple[str, ...],
    suite: str,
    mirror: str | None,
    push: str,
    force: bool,
    as_json: bool,
) -> None:
    """Make the builder image and the distroless base from Debian packages."""
    images = prepare_images(
        architectures=architectures,
        suite=suite,
        mirror=mirror,
        force=force,
        store=RegistryStore(push, suite, force) if push else None,
        report=lambda line: click.echo(f"images: {line}", err=True),
    )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(images), sort_keys=True))
        return
    click.echo(f"{images.builder} {images.builder_digest}")
    click.echo(f"{images.base} {images.base_digest}")
    if push:
        click.echo("for buildtool.toml:\n[images]", err=True)
        click.echo(f'builder = "{images.builder}@{images.builder_digest}"', err=True)
        click.echo(f'base = "{images.base}@{images.base_digest}"', err=True)
    if not images.made:
        place = "registry" if push else "engine"
        click.echo(f"images: nothing to do, the {place} has them", err=True)
