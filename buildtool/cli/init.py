# SPDX-License-Identifier: Apache-2.0
"""`buildtool init`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from buildtool.cli.options import OutputPath
from buildtool.cli.output import say
from buildtool.config.scaffold import create_project


@click.command("init")
@click.argument("directory", metavar="[DIR]", default=".", type=OutputPath(path_type=Path))
def command(directory: Path) -> None:
    """
    Make a new project in DIR: configuration, one program, a CI workflow.

    The project gets the name of the directory. Existing files stay as they are: if one of them is
    in the way, nothing is written.
    """
    for path in create_project(directory):
        click.echo(str(path))
    place = "" if directory == Path() else f"cd {shlex.quote(str(directory))} && "
    say(f"next: {place}buildtool keygen release && buildtool build")
