# SPDX-License-Identifier: Apache-2.0
"""`buildtool grant`, a step of the Dockerfile, which is not listed among the commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from buildtool.cli.options import checked
from buildtool.cli.output import say
from buildtool.config.sourcedate import source_date
from buildtool.core.files import read_bounded
from buildtool.core.platforms import find_platform
from buildtool.core.validate import check_attach, check_load, check_setting
from buildtool.image.filecaps import MAX_PROGRAM_BYTES, check_capabilities, copy_program, read_contents
from buildtool.image.finished import ImageRules, check_finished
from buildtool.objects.capabilities import check_capability, program_capabilities
from buildtool.objects.elf import read_object_file
from buildtool.objects.optional import Selection
from buildtool.signing.keys import KeyId
from buildtool.trust.store import POLICY_NAME, read_policy_file

_PATH = click.Path(path_type=Path)


@click.command("grant", hidden=True)
@click.argument("programs", metavar="PROGRAM...", nargs=-1, required=True, type=_PATH)
@click.option("--objects", type=_PATH, required=True, help="Directory of the objects.")
@click.option("--output", type=_PATH, required=True, help="Directory for the copies.")
@click.option("--capability", multiple=True, callback=checked(check_capability), help="One of the image's.")
@click.option("--exactly", is_flag=True, help="Refuse one that the objects do not need.")
@click.option("--no-attribute", is_flag=True, help="Check only: the file gets none.")
@click.option("--trust", type=_PATH, required=True, help="Directory of the image's trust store.")
@click.option("--arch", required=True, callback=checked(find_platform), help="Architecture of the objects.")
@click.option("--key-id", required=True, help="Key that signed them.")
@click.option("--attach", multiple=True, callback=checked(check_attach), help="One of the image's.")
@click.option("--load", multiple=True, callback=checked(check_load), help="One of the image's.")
@click.option("--set", multiple=True, callback=checked(check_setting), help="One of the image's.")
@click.option("--map-entries", multiple=True, callback=checked(check_setting), help="One of the image's.")
@click.option("--hand-over", is_flag=True, help="The workload loads the programs.")
@click.option("--allow-finding", multiple=True, help="Rule of check whose findings do not end the build.")
def command(
    *,
    programs: tuple[Path, ...],
    objects: Path,
    output: Path,
    capability: tuple[str, ...],
    exactly: bool,
    no_attribute: bool,
    **given: Any,
) -> None:
    """Check the eBPF programs as the image has them; copy its static programs with file capabilities."""
    paths = sorted(objects.glob("*.o"))
    rules = ImageRules(
        policy=read_policy_file(given["trust"] / POLICY_NAME).decode(),
        key_id=KeyId(given["key_id"]),
        epoch=source_date(os.environ, Path()),
        attach=given["attach"],
        load=given["load"],
        set=given["set"],
        map_entries=given["map_entries"],
        allow_findings=given["allow_finding"],
        hands_over=given["hand_over"],
    )
    # One of another architecture does not start here, unless the builder emulates that.
    loader = read_bounded(programs[0], MAX_PROGRAM_BYTES)
    found = {path.name: read_object_file(path) for path in paths}
    for warning in check_finished(found, given["arch"], rules, loader=loader):
        say(warning)
    selection = Selection(load=given["load"], attach=given["attach"], everything=given["hand_over"])
    check_capabilities(read_contents(paths), capability, exactly=exactly, selection=selection)
    for program in programs:
        granted = () if no_attribute else program_capabilities(program.name, capability)
        copy_program(program, output / program.name, granted)
