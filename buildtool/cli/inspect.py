# SPDX-License-Identifier: Apache-2.0
"""`buildtool inspect`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from buildtool.cli import inspectview
from buildtool.cli.inspectview import show_capabilities
from buildtool.cli.options import OutputPath, complete_files, json_option
from buildtool.cli.output import print_json, say
from buildtool.core.cache import open_cache
from buildtool.core.errors import ObjectFormatError, UsageError
from buildtool.core.files import write_atomic
from buildtool.image import inspect as inspection
from buildtool.objects.elf import read_object_file
from buildtool.signing.dsse import envelope_json
from buildtool.trust.store import load_trust

_PATH = click.Path(path_type=Path)
_KINDS_HINT = (
    "inspect requires an object (.bpf.o), an image archive, an OCI layout or an image"
    " of the engine or of a registry"
)


@click.command("inspect")
@click.argument("target", metavar="OBJECT|IMAGE|ARCHIVE|LAYOUT", shell_complete=complete_files)
@click.option("--envelope", is_flag=True, help="Print the standard DSSE envelope of the signatures.")
@click.option(
    "--subject-file",
    type=OutputPath(path_type=Path),
    help="Write the file whose SHA-256 the statement names.",
)
@click.option("--trust", multiple=True, type=_PATH, help="Also verify with these keys or this policy.")
@click.option(
    "--capabilities", is_flag=True, help="Print the required capabilities and the docker run options."
)
@json_option
def command(*, target: str, capabilities: bool, as_json: bool, **given: Any) -> None:
    """
    Show what an OBJECT file or an IMAGE carries.

    IMAGE is an archive or a layout that build wrote, an image of the engine, or REGISTRY/NAME:TAG.
    """
    envelope, subject_file, trust = given["envelope"], given["subject_file"], given["trust"]
    _check_together(capabilities=capabilities, as_json=as_json, **given)
    if capabilities:
        return show_capabilities(target, as_json=as_json)
    view = inspectview.View(trust=load_trust(trust) if trust else None, now=int(time.time()))
    is_image = inspection.holds_image(target)
    if is_image and (envelope or subject_file is not None):
        option = "--envelope" if envelope else "--subject-file"
        raise UsageError(
            f"{option} requires an object, and {target} is none", hint="name the .bpf.o file that sign wrote"
        )
    value: Any
    if is_image:
        images = inspection.inspect_images(target, open_cache(os.environ))
        value = [view.image_json(image) for image in images]
        value, lines = value if value[1:] else value[0], view.images_lines(images)
    else:
        try:
            data = read_object_file(Path(target))
            if envelope or subject_file is not None:
                return _export(data, subject_file, envelope=envelope)
            report = inspection.inspect_object(Path(target).name, data)
        except ObjectFormatError as error:
            raise ObjectFormatError(f"{target}: {error.message}", hint=error.hint or _KINDS_HINT) from error
        value, lines = view.object_json(report, data), view.object_lines(report, data)
    if as_json:
        return print_json(value)
    return click.echo("\n".join(lines))


def _check_together(
    *, capabilities: bool, envelope: bool, subject_file: Path | None, trust: tuple[Path, ...], as_json: bool
) -> None:
    """Check that no given option would be without effect beside another one. Raises: UsageError."""
    asked = {
        "--capabilities": capabilities,
        "--envelope": envelope,
        "--subject-file": subject_file is not None,
    }
    chosen = [option for option, is_given in asked.items() if is_given]
    if capabilities and chosen[1:]:
        pair = chosen
    elif chosen and trust:
        pair = [chosen[0], "--trust"]
    elif chosen == ["--subject-file"] and as_json:
        pair = ["--subject-file", "--json"]
    else:
        return
    raise UsageError(
        f"{pair[0]} cannot be combined with {pair[1]}",
        hint=f"run inspect once with {pair[0]}, and once with {pair[1]}",
    )


def _export(data: bytes, subject_file: Path | None, *, envelope: bool) -> None:
    """Write the subject file and print the envelope, which other tools verify. Raises: ObjectFormatError."""
    text = envelope_json(inspection.signature_record(data))
    if subject_file is not None:
        write_atomic(subject_file, inspection.subject_file(data), replace=False)
        say(f"wrote {subject_file}")
    if envelope:
        click.echo(text)
