# SPDX-License-Identifier: Apache-2.0
"""`buildtool init`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from buildtool.adopt.headers import COMPILER_HEADERS, is_usually_carried
from buildtool.adopt.render import count_lines, write_config
from buildtool.adopt.survey import Survey, survey_project
from buildtool.cli.options import OutputPath, json_option
from buildtool.cli.output import clean, print_json, say
from buildtool.config.scaffold import create_project
from buildtool.core.errors import UsageError
from buildtool.core.platforms import this_platform
from buildtool.runtime.clibrary import own_headers
from buildtool.runtime.headers import find_headers

MAX_SHOWN = 40  # notes; --json prints all


@click.command("init")
@click.argument("directory", metavar="[DIR]", required=False, type=OutputPath(path_type=Path))
@click.option(
    "--from",
    "existing",
    metavar="DIR",
    type=OutputPath(path_type=Path),
    help="Write buildtool.toml for the existing project in DIR.",
)
@json_option
def command(*, directory: Path | None, existing: Path | None, as_json: bool) -> None:
    """
    Make a new project in DIR: configuration, one program, a CI workflow.

    The project gets the name of the directory. Existing files stay as they are: if one of them is
    in the way, nothing is written.

    With --from: read the Makefiles, bpf2go lines, CMake and meson files, build scripts and sources
    of an existing project, and write a buildtool.toml that compiles its programs. A line on
    stderr names each setting that the files do not tell. No program of the project runs.
    """
    if existing is not None:
        if directory is not None:
            raise UsageError(
                "init: DIR and --from exclude each other", hint="--from writes into the existing project"
            )
        _adopt(existing, as_json=as_json)
        return
    paths = create_project(directory or Path())
    if as_json:
        print_json({"files": [str(path) for path in paths]})
        return
    for path in paths:
        click.echo(str(path))
    say(f"next: {_enter(directory)}buildtool keygen release && buildtool build")


def _enter(directory: Path | None) -> str:
    place = str(directory or "")
    return "" if directory in (None, Path()) else f"cd {shlex.quote(place)} && "


def _is_carried() -> Callable[[str], bool]:
    """Return a test for headers that compiling finds without the project; nothing is fetched for it."""
    headers = find_headers(os.environ)
    if headers is None:
        own = own_headers()
        return lambda name: name in own or is_usually_carried(name)
    names = {name.partition("/")[2] for name in headers.files} | COMPILER_HEADERS
    return names.__contains__


def _adopt(root: Path, *, as_json: bool) -> None:
    survey = survey_project(root, is_carried=_is_carried())
    path, text = write_config(root, survey)
    if as_json:
        document = {key: value for key, value in asdict(survey).items() if key != "notes"}
        print_json(
            {**document, "file": str(path), "config": text, "notes": [asdict(note) for note in survey.notes]}
        )
        return
    for note in survey.notes[:MAX_SHOWN]:
        say(str(note))
    if len(survey.notes) > MAX_SHOWN:
        say(f"{len(survey.notes) - MAX_SHOWN} more notes: --json prints all")
    click.echo(clean(str(path)))
    found, noun = (survey.files, "source") if survey.files else (survey.prebuilt, "compiled object")
    say(f"{path}: {_count(len(found), noun)}, {_count(count_lines(text), 'line')}")
    say("next: " + _enter(root) + " && ".join(_steps(survey)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _steps(survey: Survey) -> list[str]:
    """Return the commands that build what the survey found."""
    if not survey.files:
        files = " ".join(shlex.quote(name) for name in survey.prebuilt[:3])
        more = " …" if len(survey.prebuilt) > 3 else ""
        arch = this_platform().arch
        return ["buildtool keygen release", f"buildtool sign --arch {arch} {files}{more}"]
    types = [f"buildtool vmlinux --arch {','.join(survey.needs_types)}"] if survey.needs_types else []
    generate = ["buildtool generate"] if survey.generate else []
    return [*types, *generate, "buildtool keygen release", "buildtool compile"]
