# SPDX-License-Identifier: Apache-2.0
"""`buildtool rebuild` and its view."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from buildtool.cli.options import CONFIG_VARIABLE, complete_files, config_option, json_option, read_config
from buildtool.cli.output import clean, print_json, say
from buildtool.config.file import Config, load_config, named_variable
from buildtool.config.project import find_sources
from buildtool.core.cache import open_cache
from buildtool.core.errors import UsageError
from buildtool.core.process import Runner
from buildtool.image.compare import FileVerdict, ImageContents, all_objects, check_files, read_image_contents
from buildtool.image.rebuild import ObjectVerdict, SectionDifference, compare_objects, nearest_toolchain
from buildtool.image.source import find_image_source
from buildtool.runtime.headers import provide_headers
from buildtool.runtime.probe import find_object_linker
from buildtool.runtime.provide import find_parts
from buildtool.trust.store import load_trust

_PATH = click.Path(path_type=Path)


@click.command("rebuild")
@click.argument("image", metavar="IMAGE|ARCHIVE|LAYOUT", shell_complete=complete_files)
@click.option("--check", is_flag=True, help="Compare with the image; nothing is written.")
@click.option(
    "--objects-only", is_flag=True, help="Compare objects only, not loader, tini and configuration."
)
@click.option(
    "--trust",
    multiple=True,
    type=_PATH,
    help="Take the commit that provenance signed by this key or policy names, not this directory.",
)
@click.option("--repository", help="Directory or address from which git clones that commit; default: .")
@click.option("--clang", default="", help="Compiler; default: compile.clang, else the recorded version's.")
@config_option
@json_option
def command(
    *,
    image: str,
    check: bool,
    objects_only: bool,
    trust: tuple[Path, ...],
    repository: str | None,
    clang: str,
    config_path: Path | None,
    as_json: bool,
) -> int:
    """Rebuild the objects of IMAGE from this project's sources, or from a commit's, and compare both."""
    if not check:
        raise UsageError("rebuild requires --check", hint=f"buildtool rebuild --check {image}")
    if not trust:
        if repository is not None:
            raise UsageError(
                "--repository requires --trust", hint="--trust KEY.pub says whose provenance names a commit"
            )
        config = read_config(config_path)
        if not config.has_file:
            find_sources(config)  # without these either, this is no project
        with find_image_source(image, open_cache(os.environ)) as source:
            found = read_image_contents(source)
        about = {"image": image}
        return _compare_with(found, config, about, objects_only=objects_only, clang=clang, as_json=as_json)
    if config_path is not None:
        raise UsageError(
            "--trust: provenance names the configuration, too",
            hint=f"leave --config and {CONFIG_VARIABLE} out",
        )
    # Imported here, because the HTTP library takes as long to import as the rest.
    from buildtool.publish.revision import check_out, find_revision
    from buildtool.publish.verify import open_target

    cache = open_cache(os.environ)
    revision = find_revision(image, load_trust(trust), cache, now=int(time.time()))
    with open_target(revision.image, cache) as (source, _):
        found = read_image_contents(source)
    with check_out(revision, repository or ".", Runner()) as path:
        # Without variables of this environment: the file is what provenance names.
        config = load_config(path, environ={}, required=revision.config is not None)
        about = {
            "image": revision.image,
            "commit": revision.source.commit,
            "directory": revision.source.directory,
        }
        return _compare_with(found, config, about, objects_only=objects_only, clang=clang, as_json=as_json)


def _compare_with(
    found: Sequence[ImageContents],
    config: Config,
    about: dict[str, str],
    *,
    objects_only: bool,
    clang: str,
    as_json: bool,
) -> int:
    """Compare the image *found* with the project of *config*, print the result, and return the exit code."""
    loaders = find_parts(os.environ)
    files = [] if objects_only else check_files(found, config, loaders)
    with named_variable(config, "" if clang else "compile.clang"):
        find = nearest_toolchain(clang or config.compile.clang)
    system = config.compile.system_headers
    headers = None if system else provide_headers(os.environ, report=say, runner=Runner())
    linker = partial(find_object_linker, os.environ, report=say, runner=Runner())
    objects = compare_objects(all_objects(found), config, find, headers, linker)
    # A part that could not be compared (None) is shown, but does not count as a difference.
    equal = False not in {*(item.equal for item in objects), *(item.equal for item in files)}
    if as_json:
        verdicts = {"objects": [asdict(item) for item in objects], "files": [asdict(item) for item in files]}
        print_json({**about, "equal": equal, **verdicts})
    else:
        first = (
            [f"sources: commit {about['commit']} {about['directory']}".rstrip()] if "commit" in about else []
        )
        click.echo(clean("\n".join((*first, *object_lines(objects), *file_lines(files)))))
    return 0 if equal else 1


_WORDS = {True: "equal", False: "not equal", None: "not compared"}


def object_lines(verdicts: Iterable[ObjectVerdict]) -> Iterator[str]:
    """Yield the lines about objects."""
    for verdict in verdicts:
        yield f"{verdict.platform}  {verdict.name}  {_WORDS[verdict.equal]}"
        yield from (f"    {text}" for text in (*verdict.problems, *verdict.notes))
        yield from (f"    {item.section}: {_compare(item)}" for item in verdict.sections)


def file_lines(verdicts: Iterable[FileVerdict]) -> Iterator[str]:
    """Yield the lines about other files and the configuration."""
    for verdict in verdicts:
        yield f"{verdict.platform}  {verdict.path}  {_WORDS[verdict.equal]}"
        yield from (f"    {text}" for text in verdict.problems)


def _compare(item: SectionDifference) -> str:
    if item.first_difference is None:
        return "only in the image" if item.rebuilt_size is None else "not in the image"
    sizes = f"{item.image_size} bytes in the image, {item.rebuilt_size} rebuilt"
    return f"{sizes}, different from byte {item.first_difference} on"
