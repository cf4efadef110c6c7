# SPDX-License-Identifier: Apache-2.0
"""Render all projects below a directory, with one file by which `docker buildx bake` builds them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from buildtool.build import AskPassphrase, KeySource, find_key, prepared_images, render_folder
from buildtool.config.file import CONFIG_NAME, Config, load_config
from buildtool.config.project import choose_platforms, find_sources
from buildtool.config.sourcedate import source_date
from buildtool.core.errors import BuildtoolError, FileAccessError, UsageError, system_reason
from buildtool.core.files import FORCE_REPLACES, cannot_write, hidden_prefix
from buildtool.core.process import Runner
from buildtool.core.validate import check_tag, names_registry
from buildtool.image.bake import HCL_NAME, JSON_NAME, BakeTarget, render_hcl, render_json
from buildtool.image.docker.buildx import Secret

MAX_PROJECTS = 10_000
# All paths of an earlier result.
_OURS = re.compile(
    rf"{re.escape(HCL_NAME)}|{re.escape(JSON_NAME)}|[^/]+(/(Dockerfile|buildtool-sources-[0-9a-f]+\.tar))?"
)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRequest:
    """
    A request to render the projects below *directory* into *output*, a directory that is made.

    *output* may also name the bake file in it, in JSON if the name ends in .json. *force* allows replacing an
    earlier result. *arch*, *key* and *prepared* are for all projects, as for one.
    """

    directory: Path
    output: Path
    arch: tuple[str, ...] = ()
    key: Path | str | None = None
    prepared: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What was written: the bake *file* and its *targets*."""

    file: Path
    targets: tuple[BakeTarget, ...]


def render_fleet(
    request: FleetRequest, *, environ: Mapping[str, str], ask: AskPassphrase, runner: Runner
) -> Fleet:
    """
    Render each project into a folder of its own, and write the bake file. A failure leaves nothing behind.

    *ask* is called once for each key.

    Raises: any BuildtoolError, whose message names the project.
    """
    place, name = request.output, HCL_NAME
    if place.suffix in (".hcl", ".json"):
        place, name = place.parent, place.name
    _check_place(place, force=request.force)
    roots = find_projects(request.directory, place)
    names = name_projects(request.directory, roots)
    ask = cache(ask)
    targets = []
    with _replaced(place) as new:
        for root, own in zip(roots, names, strict=True):
            try:
                rendered = _render(request, root, new / own, environ, ask, runner)
            except BuildtoolError as error:
                error.message = f"{root}: {error.message}"
                raise
            targets.append(replace(rendered, name=own, groups=_groups(request.directory, root, names)))
        text = render_json(targets) if name.endswith(".json") else render_hcl(targets)
        (new / name).write_text(text, "utf-8")
    return Fleet(file=place / name, targets=tuple(targets))


def _render(
    request: FleetRequest,
    root: Path,
    folder: Path,
    environ: Mapping[str, str],
    ask: AskPassphrase,
    runner: Runner,
) -> BakeTarget:
    """Render the project in *root* into *folder*, and return its target, yet without groups."""
    config = load_config(root / CONFIG_NAME, environ=environ, required=True)
    if request.prepared:
        config = replace(config, images=prepared_images())
    platforms = choose_platforms(request.arch, config)
    find_sources(config)
    key = find_key(request.key, config, environ, ask)
    secrets = _secrets(key)
    epoch = source_date(environ, config.root, runner)
    render_folder(config, platforms, key, folder, epoch=epoch, environ=environ, runner=runner)
    tag = _tag(config)
    return BakeTarget(
        name=folder.name,
        groups=(),
        tag=tag,
        has_registry=names_registry(tag),
        platforms=tuple(platform.oci for platform in platforms),
        epoch=epoch,
        key=secrets[0].option,
        secrets=tuple(secret.option for secret in secrets[1:]),
        reads=tuple(str(secret.path.absolute().parent) for secret in secrets if secret.path),
    )


def _tag(config: Config) -> str:
    tag = config.build.tag or f"{config.project.name.lower()}:{config.project.release}"
    return check_tag(tag if ":" in tag.rpartition("/")[2] else f"{tag}:{config.project.release}")


def _secrets(key: KeySource) -> Sequence[Secret]:
    """Return the secrets by which bake reads the private key. Raises: UsageError."""
    if key.signer is not None:
        raise UsageError(
            f"signer {key.signer.public.name}: cannot sign in a builder",
            hint="name a key's file by --key; buildtool build --sign-on host signs by other signers",
        )
    return key.secrets or (Secret(name="signing-key", path=key.path and key.path.with_suffix(".pem")),)


def find_projects(directory: Path, output: Path) -> list[Path]:
    """
    Return the directories below *directory* that have a buildtool.toml, sorted, without those in *output*.

    Hidden directories and symbolic links are left out.

    Raises: UsageError, FileAccessError.
    """
    found, waiting, skipped = [], [directory], output.resolve()
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                        waiting += [path] if (path := place / entry.name).resolve() != skipped else []
                    elif entry.name == CONFIG_NAME and entry.is_file():
                        found.append(place)
        except OSError as error:
            raise FileAccessError(f"{place}: cannot read: {system_reason(error)}") from error
        if len(found) > MAX_PROJECTS:
            raise UsageError(f"{directory}: more than {MAX_PROJECTS} projects", hint="name a directory in it")
    if not found:
        raise UsageError(f"{directory}: no project below it", hint=f"a project has a file {CONFIG_NAME}")
    return sorted(found)


def name_projects(directory: Path, roots: Sequence[Path]) -> list[str]:
    """Return a name for each of *roots*, made of its path below *directory*; bake allows A-Z a-z 0-9 _ -."""
    names: list[str] = []
    taken = {"default"}
    numbers: dict[str, int] = {}
    for root in roots:
        path = root.relative_to(directory).as_posix()
        plain = _NOT_IN_NAMES.sub("-", path if path != "." else root.resolve().name).strip("-") or "project"
        name, number = plain, numbers.get(plain, 2)
        while name in taken:
            name, number = f"{plain}-{number}", number + 1
        numbers[plain] = number
        taken.add(name)
        names.append(name)
    return names


def _groups(directory: Path, root: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the groups of the project in *root*: each directory above it, unless a target has its name."""
    above = root.relative_to(directory).parents[:-1]
    found = (_NOT_IN_NAMES.sub("-", path.as_posix()).strip("-") for path in reversed(above))
    return tuple(name for name in found if name and name not in (*names, "default"))


def _check_place(place: Path, *, force: bool) -> None:
    """Check that *place* can be made, or is an earlier result that *force* allows replacing."""
    try:
        found = sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))
        if not place.is_dir() and place.exists():
            raise UsageError(f"{place}: not a directory", hint="name a directory that does not exist yet")
    except OSError as error:
        raise cannot_write(place, error) from error
    foreign = next((name for name in found if not _OURS.fullmatch(name)), "")
    if found and (foreign or not {HCL_NAME, JSON_NAME} & {*found}):
        raise FileAccessError(
            f"{place}: not replaced: {foreign or found[0]} is not of render --bake",
            hint="choose another directory",
        )
    if found and not force:
        raise FileAccessError(f"{place}: already exists", hint=FORCE_REPLACES)


@contextmanager
def _replaced(place: Path) -> Iterator[Path]:
    """Yield a new directory, which is renamed to *place* at the end of the block."""
    try:
        place.absolute().parent.mkdir(parents=True, exist_ok=True)
        work = tempfile.mkdtemp(prefix=hidden_prefix(place), dir=place.absolute().parent)
    except OSError as error:
        raise cannot_write(place, error) from error
    new, old = Path(work, "new"), Path(work, "old")
    try:
        new.mkdir()
        yield new
        if place.exists():
            place.rename(old)
        try:
            new.rename(place)
        except BaseException:
            if old.exists():
                old.rename(place)
            raise
    except OSError as error:
        raise cannot_write(place, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
