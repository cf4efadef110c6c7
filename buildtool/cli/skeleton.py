# SPDX-License-Identifier: Apache-2.0
"""`buildtool skeleton`."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from buildtool.cli.options import OutputPath, json_option
from buildtool.cli.output import clean_line, print_json
from buildtool.core.errors import UsageError
from buildtool.core.process import Runner
from buildtool.skeleton.write import LANGUAGES, write_skeleton


@click.command("skeleton")
@click.argument("objects", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="OBJECT...")
@click.option(
    "--lang", "language", type=click.Choice(LANGUAGES), required=True, help="Language of the agent."
)
@click.option(
    "--output",
    "-o",
    type=OutputPath(path_type=Path),
    default=".",
    help="Directory for source and objects; default: this one.",
)
@click.option("--name", default="", help="Beginning of all names; default: the object's name.")
@click.option("--package", default="main", show_default=True, help="Package of the Go file.")
@click.option(
    "--sigverify",
    default="buildtool/sigverify",
    show_default=True,
    help="Import path of the verifier in Go.",
)
@json_option
def command(
    *,
    objects: tuple[Path, ...],
    language: str,
    output: Path,
    name: str,
    package: str,
    sigverify: str,
    as_json: bool,
) -> None:
    """
    Write source code that embeds a signed OBJECT and opens it only if its signatures are accepted.

    Name the objects of one source for all architectures of the agent. C needs bpftool.
    """
    context = click.get_current_context()
    for option in ("package", "sigverify"):
        if language != "go" and context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{option} is for --lang go", hint=f"leave --{option} out")
    files = write_skeleton(
        objects, language, output, name=name, package=package, sigverify=sigverify, runner=Runner()
    )
    if as_json:
        print_json({"files": list(map(str, files))})
        return
    for path in files:
        click.echo(clean_line(str(path)))
