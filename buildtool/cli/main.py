# SPDX-License-Identifier: Apache-2.0
"""The entry point: a command group with lazy imports, error messages and exit codes."""

from __future__ import annotations

import errno
import importlib
import io
import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from buildtool import __version__
from buildtool.core.errors import EXIT_FAILED, EXIT_USAGE, BuildtoolError, system_reason

if TYPE_CHECKING:
    from buildtool.cli.annotations import StepLog
    from buildtool.core.diagnostics import Diagnostic

# name: (module in buildtool.cli, line for --help). Modules are imported on use, so that --version is fast.
COMMANDS = {
    "init": ("init", "Make a new project."),
    "keygen": ("keygen", "Make an Ed25519 signing key."),
    "compile": ("compile", "Compile eBPF sources to objects."),
    "generate": ("generate", "Make headers by the project's commands."),
    "vmlinux": ("vmlinux", "Make vmlinux.h, the types of a kernel."),
    "btf": ("btf", "Make types for kernels without BTF."),
    "sign": ("sign", "Embed a signature in objects."),
    "verify": ("verify", "Verify signed objects and images."),
    "skeleton": ("skeleton", "Write source code that embeds a signed object."),
    "inspect": ("inspect", "Show what an object or image carries."),
    "check": ("check", "Check whether objects will load, here and on other kernels."),
    "render": ("render", "Write the Dockerfile and its archive."),
    "build": ("build", "Build the signed image."),
    "sbom": ("sbom", "Write the bill of materials of an image."),
    "publish": ("publish", "Sign an image in its registry."),
    "rebuild": ("rebuild", "Compare an image with these sources."),
    "deploy": ("deploy", "Write files that run an image: Compose, Kubernetes, Helm, systemd."),
    "images": ("images", "Prepare builder and base images."),
    "trust": ("trust", "Edit and check a trust policy."),
    "metrics": ("metrics", "Show the metrics that loaded objects declare."),
    "top": ("top", "Show live what declared metrics count."),
    "maps": ("maps", "Show the pinned maps of loaded objects."),
    "load": ("load", "Verify and load objects on this host."),
    "doctor": ("doctor", "Check this host and report missing tools."),
}
# A longer name in a message would fill the terminal.
MAX_SHOWN_NAME = 200
# Commands for steps of the Dockerfile only.
STEPS = ("agree", "grant")


class LazyGroup(click.Group):
    """A group that imports the module of a command on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of commands in the order of work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return command *name*."""
        if name not in COMMANDS and name not in STEPS:
            return None
        module = importlib.import_module(f"buildtool.cli.{COMMANDS[name][0] if name in COMMANDS else name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command. Raises: click.UsageError, which names the nearest command."""
        if args and args[0] not in (*COMMANDS, *STEPS) and not args[0].startswith("-"):
            from buildtool.cli.usage import guess

            raise click.UsageError(f"unknown command {args[0]!r}{guess(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Show the commands that are run.")
@click.version_option(__version__, message="%(prog)s %(version)s", prog_name="buildtool")
def cli(*, verbose: bool) -> None:
    """Build, sign, ship and verify eBPF programs in minimal container images."""
    import logging

    # A key in the environment is in the memory of every command, even of one that doesn't sign.
    if any(name.startswith("BUILDTOOL_") for name in os.environ):
        from buildtool.core.process import SECRET_VARIABLES
        from buildtool.core.secrecy import keep_out_of_core_dumps

        if any(os.environ.get(name) for name in SECRET_VARIABLES):
            keep_out_of_core_dumps()
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="buildtool: %(message)s")
    logging.getLogger("buildtool").setLevel(level)  # other libraries would log bodies of requests


def main() -> None:
    """Run the command line, and exit. Each error becomes a message and an exit code."""
    # Handle SIGTERM and SIGHUP as interrupts, so that children end and temporary files are removed.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    output = _guard_streams()
    code = run(sys.argv[1:])
    sys.stdout.flush()
    error = output.error
    if error and error.errno != errno.EPIPE:  # a reader such as head may close the pipe early
        report(f"cannot write output: {system_reason(error)}")
    sys.exit(code or (EXIT_FAILED if error else code))


class _Output(io.FileIO):
    """
    A standard stream that stores the first *error* of a write, for the end of the command.

    Therefore a failed write does not stop the command or change its exit code: a refused object
    results in 3 on a full disk, too.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write a part of *data*, or discard all of it after an error. Return the number of bytes."""
        try:
            # The result is None if the pipe is non-blocking and full.
            while (done := super().write(data)) is None:
                select.select([], [self], [])
            return done
        except OSError as error:
            self.error = self.error or error
            return len(data)


def _guard_streams() -> _Output:
    """Replace the standard streams by ones that survive failed writes. Return the one below stdout."""
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The stream is closed, so the next opened file would get its number and its output. A closed
            # stdout must fail on write, so it is opened for reading. Lost messages on stderr are acceptable.
            os.set_inheritable(os.open(os.devnull, flags), True)  # noqa: FBT003 - the function has no keyword
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    output = _Output(1, "w", closefd=False)
    for name, raw in (("stdout", output), ("stderr", _Output(2, "w", closefd=False))):
        before = getattr(sys, name)
        encoding, errors = (before.encoding, before.errors) if before else ("utf-8", "backslashreplace")
        # A name may have characters that the encoding of the output lacks.
        errors = "backslashreplace" if errors == "strict" else errors
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding, errors, line_buffering=name == "stderr" or raw.isatty()
        )
        setattr(sys, name, stream)
    return output


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def run(arguments: list[str]) -> int:
    """Run the command in *arguments*, and return the exit code."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return _run(arguments, None)
    import traceback

    from buildtool.cli.annotations import opened_log

    with opened_log(os.environ) as log:
        try:
            return _run(arguments, log)
        except (Exception, KeyboardInterrupt):  # noqa: BLE001 - it would be printed as well, but later
            # Its text may be of a file, and the runner obeys what is printed after the end of the log.
            traceback.print_exc()
            return EXIT_FAILED


def _run(arguments: list[str], log: StepLog | None) -> int:
    """Run the command in *arguments*, with annotations in *log*, and return the exit code."""
    try:
        result: Any = cli.main(args=arguments, prog_name="buildtool", standalone_mode=False, obj=log)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - _explain raises unknown errors again
        code = _explain(error)
        if log is not None:
            log.annotate(_diagnose(error))
        return code
    return result if isinstance(result, int) else 0


def _diagnose(error: BaseException) -> list[Diagnostic]:
    """Return what the annotations of *error* say: the lines of sources that it names, and its message."""
    from buildtool.core.diagnostics import ERROR, Diagnostic, locate_message

    if isinstance(error, BuildtoolError):
        message, hint = error.message, error.hint
    elif isinstance(error, click.ClickException):
        from buildtool.cli.usage import explain_usage

        message, hint = explain_usage(error)
    else:
        return []
    text = message + (f"\nhint: {hint}" if hint else "")
    own = locate_message(text, Path()) or Diagnostic(level=ERROR, message=text, source="buildtool")
    # First, because GitHub shows ten only.
    return [own, *(error.diagnostics if isinstance(error, BuildtoolError) else ())]


def _explain(error: BaseException) -> int:
    """Report *error* on stderr, and return its exit code. An unexpected exception is raised again."""
    code = EXIT_FAILED
    if isinstance(error, BuildtoolError):
        report(error.message, hint=error.hint, detail=error.detail)
        code = error.exit_code
    elif isinstance(error, click.exceptions.Exit):
        code = error.exit_code
    elif isinstance(error, click.ClickException):
        if error.format_message().startswith("Usage:"):
            click.echo(error.format_message(), err=True)  # a group without its command
        else:
            from buildtool.cli.usage import explain_usage

            message, hint = explain_usage(error)
            report(message, hint=hint)
        code = EXIT_USAGE
    elif isinstance(error, (click.Abort, KeyboardInterrupt)):
        report("interrupted")
    elif isinstance(error, ModuleNotFoundError) and not (error.name or "buildtool").startswith("buildtool"):
        # A user's builder image may be older than this version and lack a library.
        report(
            f"Python module {error.name}: not found",
            hint="install buildtool again; a builder image needs the packages that `buildtool render` lists",
        )
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT):
        report(f"cannot write output: {system_reason(error)}")
    elif isinstance(error, OSError):
        report(_name_system_error(error))
    else:
        raise error
    return code


def _name_system_error(error: OSError) -> str:
    """Return file and reason of an OSError that no module handled."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    if not name and isinstance(error, FileNotFoundError):
        name = "current directory"  # os.getcwd raises this error without a name
    return ": ".join(filter(None, (name[:MAX_SHOWN_NAME], system_reason(error))))


def report(message: str, *, hint: str | None = None, detail: str | None = None) -> None:
    """Write an error to stderr: the tool's *detail* unchanged, then *message*, then *hint*."""
    from buildtool.cli.output import clean, clean_line

    if detail:
        click.echo(clean(detail), err=True)
    click.echo(f"buildtool: error: {clean_line(message)}", err=True)
    if hint:
        click.echo(f"buildtool: hint: {clean_line(hint)}", err=True)
