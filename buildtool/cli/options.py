# SPDX-License-Identifier: Apache-2.0
"""Options of several commands, and the configuration that they override."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from buildtool.config.file import CONFIG_NAME, Config, load_config
from buildtool.core.errors import BuildtoolError, ConfigError, UsageError
from buildtool.core.platforms import PLATFORMS

Command = TypeVar("Command", bound=Callable[..., Any])
CONFIG_VARIABLE = "BUILDTOOL_CONFIG"

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=CONFIG_VARIABLE,
    help="Configuration file; default buildtool.toml of this directory.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


STDOUT = Path("-")


class OutputPath(click.Path):
    """
    A path of output. An empty one, from an unset variable, would mean this directory, so it is refused.

    `-` is standard output for a command with *allow_dash*. Others refuse it, because a file of this name is
    hard to remove.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises: click.BadParameter, for an empty name and for `-`."""
        if value == "-" and not self.allow_dash:
            hint = "name a file or a directory; ./- is one of this name"
            raise bad_value(UsageError("'-': cannot write there", hint=hint), param, ctx)
        if value == "":
            raise bad_value(UsageError("the name is empty", hint="name a file or a directory"), param, ctx)
        return super().convert(value, param, ctx)


def arch_option(*spellings: str, **more: Any) -> Callable[[Command], Command]:
    """Return the option --arch, or another of its *spellings*, which may be repeated."""
    return click.option("--arch", *spellings, "arch", multiple=True, shell_complete=complete_arch, **more)


def read_config(config_path: Path | None) -> Config:
    """
    Return the configuration of *config_path*, or of this directory, overridden by the environment.

    Raises: ConfigError.
    """
    try:
        return load_config(
            config_path or Path(CONFIG_NAME), environ=os.environ, required=config_path is not None
        )
    except ConfigError as error:
        context = click.get_current_context(silent=True)
        source = context.get_parameter_source("config_path") if context else None
        if source is ParameterSource.ENVIRONMENT and error.message.startswith(str(config_path)):
            error.message = f"{CONFIG_VARIABLE}: {error.message}"
        raise


def checked(check: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a click callback that applies *check* (of core/validate.py) to an option's value or values."""

    def callback(_: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(check(item) for item in value)
            return None if value is None else check(value)
        except BuildtoolError as error:
            raise bad_value(error, parameter) from error

    return callback


def bad_value(
    error: BuildtoolError, parameter: click.Parameter | None, context: click.Context | None = None
) -> click.BadParameter:
    """Return what click raises for a value of *parameter*: with message and hint of *error*."""
    found = click.BadParameter(error.message, context, parameter)
    found.__cause__ = error
    return found


def complete_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the names of files, of which an argument that is no click.Path may be one."""
    return [CompletionItem(incomplete, type="file")]


def complete_arch(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the architectures that begin with *incomplete*."""
    return [name for name in PLATFORMS if name.startswith(incomplete)]
