# SPDX-License-Identifier: Apache-2.0
"""How `inspect --capabilities` shows what the programs of an object or of an image take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from buildtool.cli.output import print_json, say
from buildtool.core.errors import ObjectFormatError
from buildtool.image import inspect as inspection
from buildtool.image.filecaps import needed_capabilities
from buildtool.objects.capabilities import find_capabilities, label_capabilities, run_options
from buildtool.objects.describe import ObjectContents, describe_object
from buildtool.objects.elf import parse_object


def show_capabilities(target: str, *, as_json: bool) -> None:
    """
    Print what *target*, an object or an image, takes; the last line is for `docker run`.

    Raises: every BuildtoolError.
    """
    labels: dict[str, str] = {}
    if inspection.is_file_name(target):
        objects = {target: _contents(target, inspection.read_object(Path(target)))}
    else:
        image = inspection.inspect_image(target)
        objects, labels = {name: _contents(name, data) for name, data in image.objects}, image.labels
    programs = [row for name, contents in objects.items() for row in _rows(Path(name).name, contents)]
    # The label has what the configuration says beyond the programs; nobody signed it.
    needed = needed_capabilities(objects.values())
    given = label_capabilities(labels) or needed
    beyond = sorted(set(given) - set(needed))
    options = run_options(given)
    if as_json:
        found = {"capabilities": given, "beyondPrograms": beyond, "runOptions": options}
        return print_json(found | {"programs": programs})
    if beyond:
        say(f"{' '.join(beyond)}: by the image's label, and needed by none of these programs' types")
    for row in programs:
        # The names come from a file that nobody has vouched for.
        names = (ascii(row[key])[1:-1] for key in ("program", "section"))
        click.echo("  ".join([*names, " ".join(row["capabilities"])]))
    return click.echo(" ".join(options))


def _contents(name: str, data: bytes) -> ObjectContents:
    try:
        return describe_object(parse_object(data))
    except ObjectFormatError as error:
        raise ObjectFormatError(f"{name}: {error.message}", hint=error.hint) from error


def _rows(name: str, contents: ObjectContents) -> list[dict[str, Any]]:
    return [
        {
            "object": name,
            "program": program.name,
            "section": program.section,
            "capabilities": find_capabilities([program.section]),
        }
        for program in contents.programs
    ]
