# SPDX-License-Identifier: Apache-2.0
"""`buildtool sbom`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from buildtool.cli.options import STDOUT, OutputPath, complete_files
from buildtool.core.cache import open_cache
from buildtool.core.files import staged_files
from buildtool.publish.inventory import list_image
from buildtool.publish.sbom import CYCLONEDX, FORMATS, write_sbom
from buildtool.publish.verify import open_target


@click.command("sbom")
@click.argument("image", metavar="IMAGE", shell_complete=complete_files)
@click.option(
    "--format", "kind", type=click.Choice(FORMATS), default=CYCLONEDX, show_default=True, help="Format."
)
@click.option(
    "--output", "-o", type=OutputPath(path_type=Path, allow_dash=True), help="File; default: standard output."
)
def command(*, image: str, kind: str, output: Path | None) -> None:
    """
    Write what IMAGE holds: signed objects and their sources, loader, libraries, packages of the base.

    IMAGE is a reference (REGISTRY/NAME:TAG), an OCI layout or an archive. One image always gives the
    same bytes.
    """
    with open_target(image, open_cache(os.environ)) as (source, _):
        data = write_sbom(list_image(source, source.name), kind)
    if output is None or output == STDOUT:
        sys.stdout.buffer.write(data)
        return
    with staged_files([output], replace=True) as stage:
        stage.write(output, data)
