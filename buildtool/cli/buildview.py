# SPDX-License-Identifier: Apache-2.0
"""How `build` says what it made, and how that is run."""

from __future__ import annotations

from dataclasses import asdict

import click

from buildtool.cli.output import print_json
from buildtool.config.file import Config
from buildtool.config.project import find_sources
from buildtool.image.result import BuiltImage
from buildtool.image.scan import choose_capabilities
from buildtool.objects.capabilities import run_options


def show_image(image: BuiltImage, config: Config, *, output: str, as_json: bool) -> None:
    """
    Print *image* of the project of *config*, which went to *output*.

    Raises: FileAccessError, UsageError.
    """
    capabilities = choose_capabilities(config, find_sources(config))
    if as_json:
        names = {"key_id": "keyId"}
        value = {names.get(name, name): value for name, value in asdict(image).items()}
        print_json(value | {"capabilities": capabilities})
        return
    is_image = bool(image.reference)
    click.echo(f"{'image ' if is_image else 'output'}  {image.file or image.reference or output}")
    if image.digest:
        click.echo(f"digest  {image.digest}")
    click.echo(f"key id  {image.key_id}")
    if not is_image:
        return
    name = "" if image.file or output else image.reference
    options = " ".join(run_options(capabilities))
    click.echo(f"run     docker run --read-only {options} {name or 'IMAGE'}")
