# SPDX-License-Identifier: Apache-2.0
"""`buildtool doctor`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from buildtool.cli.options import config_option, json_option, read_config
from buildtool.cli.output import print_json, print_table
from buildtool.core.errors import EXIT_DONE, EXIT_FAILED
from buildtool.core.process import Runner
from buildtool.doctor import Host, examine, is_ready


@click.command("doctor")
@config_option
@json_option
def command(*, config_path: Path | None, as_json: bool) -> int:
    """
    Check this host: what is installed, what is missing, and how to install it.

    The exit code is 1 if neither Docker nor the local engine can build on this machine.
    """
    config = read_config(config_path)
    machine = Host(
        root=Path("/"),
        environ=os.environ,
        clang=config.compile.clang,
        runner=Runner(),
        architectures=config.build.arch,
        base=config.images.base,
    )
    checks = examine(machine)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        rows = [
            ("ok" if check.ok else "missing", check.name, check.needed_for, check.found, check.advice)
            for check in checks
        ]
        print_table(rows, ("", "part", "needed for", "found", "what to do"))
    return EXIT_DONE if is_ready(checks) else EXIT_FAILED
