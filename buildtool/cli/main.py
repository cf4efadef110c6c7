# SPDX-License-Identifier: Apache-2.0
"""Entry point: command group with lazy imports, error lines and exit codes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from buildtool.errors import EXIT_FAILED, EXIT_USAGE, BuildtoolError

# name: (module below buildtool.cli, one line for --help). Modules load when used, so --version stays fast.
COMMANDS = {
    "init": ("init", "Make a new project."),
    "keygen": ("keygen", "Make an Ed25519 signing key."),
    "compile": ("compile", "Compile eBPF sources to objects."),
    "sign": ("sign", "Embed a signature in objects."),
    "verify": ("verify", "Verify signed objects."),
    "inspect": ("inspect", "Show what an object or image carries."),
    "render": ("render", "Print the Dockerfile."),
    "build": ("build", "Build the signed image."),
    "images": ("images", "Prepare builder and base images."),
    "load": ("load", "Verify and load objects on this host."),
    "doctor": ("doctor", "Say what is here and what is missing."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return names in the order of work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return command *name*."""
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"buildtool.cli.{COMMANDS[name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Show the commands that are run.")
@click.version_option(package_name="buildtool", message="%(prog)s %(version)s", prog_name="buildtool")
def cli(*, verbose: bool) -> None:
    """Build, sign, ship and verify eBPF programs in minimal container images."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, format="buildtool: %(message)s")


def main() -> None:
    """Run the command line; every error becomes one line and an exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run with *arguments* and return the exit code."""
    try:
        result: Any = cli.main(args=arguments, prog_name="buildtool", standalone_mode=False)
    except BuildtoolError as error:
        report(error.message, hint=error.hint, detail=error.detail)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        report(error.format_message().rstrip(".").replace("\n", " "), hint="buildtool --help shows the usage")
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        report("interrupted")
        return EXIT_FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return result if isinstance(result, int) else 0


def report(message: str, *, hint: str | None = None, detail: str | None = None) -> None:
    """Write one error to stderr: detail first, as its tool wrote it, then our line and the hint."""
    if detail:
        click.echo(detail, err=True)
    click.echo(f"buildtool: error: {message}", err=True)
    if hint:
        click.echo(f"buildtool: hint: {hint}", err=True)
