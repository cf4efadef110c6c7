# SPDX-License-Identifier: Apache-2.0
"""`buildtool agree`, a step of the Dockerfile, which is not listed among the commands."""

from __future__ import annotations

from pathlib import Path

import click

from buildtool.cli.options import checked
from buildtool.config.project import flat_name
from buildtool.core.validate import check_difference
from buildtool.objects.agreement import check_agreement
from buildtool.objects.elf import read_object_file


@click.command("agree", hidden=True)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--allow", multiple=True, callback=checked(check_difference), help="What may differ.")
def command(*, directory: Path, allow: tuple[str, ...]) -> None:
    """Check that the objects of DIRECTORY/ARCH agree between architectures."""
    objects = {
        place.name: {
            flat_name(path.relative_to(place).as_posix()): read_object_file(path)
            for path in sorted(place.rglob("*.o"))
        }
        for place in sorted(directory.iterdir())
    }
    check_agreement(objects, allow)
