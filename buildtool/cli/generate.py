# SPDX-License-Identifier: Apache-2.0
"""`buildtool generate`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from buildtool.cli.options import config_option, read_config
from buildtool.cli.output import say
from buildtool.compile.generated import find_changed, run_generators, write_generated
from buildtool.core.process import Runner


@click.command("generate")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file is missing or different.")
@config_option
def command(*, check: bool, config_path: Path | None) -> int:
    """
    Run the commands of [[compile.generate]] and write their output.

    No other command of buildtool runs them. The commands run on this machine
    as you, so read them before you run those of a foreign project.
    """
    made = run_generators(read_config(config_path), runner=Runner())
    changed = find_changed(made) if check else write_generated(made)
    for path in changed:
        click.echo(os.path.relpath(path))
    if check and changed:
        say(f"{len(changed)} of {len(made)} generated files are missing or different")
    return 1 if check and changed else 0
