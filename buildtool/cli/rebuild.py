# SPDX-License-Identifier: Apache-2.0
"""`buildtool rebuild`: say whether an image is what these sources give."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from buildtool.cache import open_cache
from buildtool.cli.options import config_option, json_option, read_config
from buildtool.cli.output import print_json
from buildtool.errors import UsageError
from buildtool.imagesource import find_image_source
from buildtool.rebuild import ObjectVerdict, SectionDifference, check_objects, nearest_toolchain, read_objects


@click.command("rebuild")
@click.argument("image", metavar="IMAGE|ARCHIVE|LAYOUT")
@click.option("--check", is_flag=True, help="Compare with the image; nothing is written.")
@click.option("--clang", default="", help="Compiler; default: compile.clang, else the recorded version's.")
@config_option
@json_option
def command(*, image: str, check: bool, clang: str, config_path: Path | None, as_json: bool) -> int:
    """Make the objects of IMAGE again from this project's sources and say whether they are equal."""
    if not check:
        raise UsageError("rebuild compares only", hint="buildtool rebuild --check IMAGE")
    config = read_config(config_path)
    with find_image_source(image, open_cache(os.environ)) as source:
        objects = read_objects(source)
    verdicts = check_objects(objects, config.root, nearest_toolchain(clang or config.compile.clang))
    if as_json:
        print_json({"image": image, "equal": _all_equal(verdicts), "objects": [asdict(v) for v in verdicts]})
    else:
        click.echo("\n".join(line for verdict in verdicts for line in _lines(verdict)))
    return 0 if _all_equal(verdicts) else 1


def _all_equal(verdicts: Sequence[ObjectVerdict]) -> bool:
    return all(verdict.equal for verdict in verdicts)


def _lines(verdict: ObjectVerdict) -> list[str]:
    lines = [f"{verdict.platform}  {verdict.name}  {'equal' if verdict.equal else 'not equal'}"]
    lines += [f"    {text}" for text in (*verdict.problems, *verdict.notes)]
    for item in verdict.sections:
        lines.append(f"    {item.section}: {_compare(item)}")
    return lines


def _compare(item: SectionDifference) -> str:
    if item.first_difference is None:
        return "only in the image" if item.rebuilt_size is None else "not in the image"
    sizes = f"{item.image_size} bytes in the image, {item.rebuilt_size} rebuilt"
    return f"{sizes}, different from byte {item.first_difference} on"
