# SPDX-License-Identifier: Apache-2.0
"""Options that say what a statement says of the release, over the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from buildtool.cli.options import checked
from buildtool.config.file import Config
from buildtool.config.sourcedate import source_date
from buildtool.core.errors import UsageError
from buildtool.core.validate import MAX_INTEGER, check_project_name, check_release, parse_time
from buildtool.signing.sign import ReleaseInfo

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--project", callback=checked(check_project_name), help="Project name."),
    click.option("--object-version", type=click.IntRange(0, MAX_INTEGER), help="Version against rollback."),
    click.option("--release", callback=checked(check_release), help="Version for people."),
    click.option("--created", callback=checked(parse_time), help="Time of the statement; default: HEAD's."),
    click.option("--not-after", callback=checked(parse_time), help="Refuse the objects after this time."),
)


def release_options(command: Command) -> Command:
    """Add the options to *command*."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_no_release(given: dict[str, Any], arch: object) -> None:
    """
    Check that nothing *given* would change a statement: --add and --remove keep it as it is.

    Raises: UsageError.
    """
    names = ["project", "object_version", "release", "created", "not_after", "force"]
    wrong = [name for name in names if given[name] not in (None, False)] + (["arch"] if arch else [])
    if given["add"] and given["remove"]:
        wrong.append("add")
    if wrong:
        word = "remove" if given["remove"] else "add"
        option = wrong[0].replace("_", "-")
        raise UsageError(f"--{word} keeps the statement: --{option} has no place beside it")


def release_info(config: Config, given: dict[str, Any]) -> ReleaseInfo:
    """
    Put the *given* options over *config*.

    Raises: ConfigError, for a wrong SOURCE_DATE_EPOCH.
    """
    project, created = config.project, given["created"]
    return ReleaseInfo(
        project=given["project"] or project.name,
        version=project.version if given["object_version"] is None else given["object_version"],
        release=given["release"] or project.release,
        created=source_date(os.environ, config.root) if created is None else created,
        not_after=config.sign.not_after if given["not_after"] is None else given["not_after"],
    )
