# SPDX-License-Identifier: Apache-2.0
"""`buildtool grant`, a step of the Dockerfile, which is not listed among the commands."""

from __future__ import annotations

from pathlib import Path

import click

from buildtool.cli.options import checked
from buildtool.image.filecaps import check_capabilities, copy_program, read_contents
from buildtool.objects.capabilities import check_capability, program_capabilities

_PATH = click.Path(path_type=Path)


@click.command("grant", hidden=True)
@click.argument("programs", metavar="PROGRAM...", nargs=-1, required=True, type=_PATH)
@click.option("--objects", type=_PATH, required=True, help="Directory of the objects.")
@click.option("--output", type=_PATH, required=True, help="Directory for the copies.")
@click.option("--capability", multiple=True, callback=checked(check_capability), help="One of the image's.")
@click.option("--exactly", is_flag=True, help="Refuse one that the objects do not need.")
@click.option("--no-attribute", is_flag=True, help="Check only: the file gets none.")
def command(
    *,
    programs: tuple[Path, ...],
    objects: Path,
    output: Path,
    capability: tuple[str, ...],
    exactly: bool,
    no_attribute: bool,
) -> None:
    """Copy the image's static programs with file capabilities, checked against the eBPF programs."""
    check_capabilities(read_contents(sorted(objects.glob("*.bpf.o"))), capability, exactly=exactly)
    for program in programs:
        granted = () if no_attribute else program_capabilities(program.name, capability)
        copy_program(program, output / program.name, granted)
