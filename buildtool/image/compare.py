# SPDX-License-Identifier: Apache-2.0
"""
Compare an image's programs and configuration for `rebuild --check`.

A changed loader, or an entrypoint without the loader, would accept any object. Therefore comparing
the objects alone is not enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildtool.config.compiling import OBJECT_SUFFIX
from buildtool.config.file import Config
from buildtool.config.project import find_sources, name_objects
from buildtool.core.errors import ConfigError, EngineError, FileAccessError, UsageError
from buildtool.core.platforms import Platform, oci_platform
from buildtool.image.kerneltypes import find_types
from buildtool.image.metadata import (
    LOADER_PATH,
    OBJECTS_DIRECTORY,
    PINS_PATH,
    TINI_PATH,
    TYPES_DIRECTORY,
    image_entrypoint,
)
from buildtool.image.scan import choose_capabilities
from buildtool.objects.capabilities import FILE_ATTRIBUTE, file_attribute, program_capabilities
from buildtool.oci.read import BlobSource, open_layer, read_images
from buildtool.oci.tarwriter import TarEntry
from buildtool.oci.tree import read_tree, resolve_path
from buildtool.runtime.carried import Part, find_loader, find_pins_tool, find_tini

CONFIGURATION = "configuration"
_PREFIX = OBJECTS_DIRECTORY.strip("/") + "/"
_TYPES = TYPES_DIRECTORY.strip("/") + "/"
_PROGRAMS = {LOADER_PATH: find_loader, TINI_PATH: find_tini, PINS_PATH: find_pins_tool}
_NAMES = tuple(path.rpartition("/")[2] for path in _PROGRAMS)
_PROGRAM_MODE = 0o755

ObjectKey = tuple[str, str]  # platform, name


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageContents:
    """The compared parts of a *platform*'s image: *objects* by name, *programs* by path, and *config*."""

    platform: str
    objects: Mapping[str, bytes] = field(repr=False)
    types: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    programs: Mapping[str, TarEntry] = field(repr=False)
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileVerdict:
    """The result for a file or the configuration. *equal* is None if it could not be compared."""

    platform: str
    path: str
    equal: bool | None
    problems: tuple[str, ...] = ()


def read_image_contents(source: BlobSource) -> list[ImageContents]:
    """
    Return the compared parts of each platform's image in *source*.

    Raises: ObjectFormatError, EngineError; errors of *source*.
    """
    found = []
    for image in read_images(source):
        tree = read_tree((open_layer(source, layer) for layer in image.layers), keep=_is_compared)
        objects = {
            path.removeprefix(_PREFIX): entry.data
            for path, entry in tree.items()
            if path.startswith(_PREFIX) and path.endswith(OBJECT_SUFFIX) and entry.is_file
        }
        types = {
            path.removeprefix(_TYPES): entry.data
            for path, entry in tree.items()
            if path.startswith(_TYPES) and entry.is_file
        }
        places = {path: resolve_path(tree, path) for path in _PROGRAMS}
        programs = {path: tree[place] for path, place in places.items() if place in tree}
        settings = image.config.get("config") or {}
        found.append(
            ImageContents(
                platform=image.platform, objects=objects, types=types, programs=programs, config=settings
            )
        )
    if not any(image.objects for image in found):
        raise EngineError(
            f"{source.name}: no objects in {OBJECTS_DIRECTORY}: not built by buildtool",
            hint="name an image that buildtool build made",
        )
    return found


def _is_compared(path: str) -> bool:
    is_object = path.startswith((_PREFIX, _TYPES)) and path.endswith(OBJECT_SUFFIX)
    return path.endswith(_NAMES) or is_object


def all_objects(images: Sequence[ImageContents]) -> dict[ObjectKey, bytes]:
    """Return the objects of all platforms, by platform and name."""
    return {(image.platform, name): data for image in images for name, data in image.objects.items()}


def check_files(images: Sequence[ImageContents], config: Config, data: Path | None) -> list[FileVerdict]:
    """
    Return verdicts on loader, tini, configuration and missing objects of *images*.

    *config* is the project's configuration. *data* is the directory of loaders, by default the
    installation's.

    Raises: ConfigError, UsageError.
    """
    try:
        names = name_objects(config)
        capabilities = choose_capabilities(config, find_sources(config))
    except (UsageError, FileAccessError):
        names, capabilities = {}, tuple(config.image.capabilities)
    if not config.image.grants_capabilities:
        capabilities = ()
    paths = (LOADER_PATH, TINI_PATH, *([PINS_PATH] if config.image.tools else []))
    attributes = {path: _attributes(path, capabilities) for path in paths}
    verdicts = []
    for image in images:
        verdicts += [_check_program(image, path, data, attributes[path]) for path in attributes]
        if PINS_PATH in image.programs and not config.image.tools:
            verdicts.append(_verdict(image, PINS_PATH, ["in the image, and image.tools is false"]))
        verdicts.append(_check_configuration(image, config))
        if image.types or config.load.btf:
            verdicts.append(_check_types(image, config))
        for name, source in names.items():
            if name not in image.objects:
                problem = f"not in the image, and {source} is here"
                verdicts.append(_verdict(image, f"{OBJECTS_DIRECTORY}/{name}", [problem]))
    return verdicts


def _check_types(image: ImageContents, config: Config) -> FileVerdict:
    """Compare the types of kernels with the project's signed files."""
    try:
        ours = find_types(config, _find_platform(image))
    except (ConfigError, FileAccessError) as error:
        return FileVerdict(
            platform=image.platform, path=TYPES_DIRECTORY, equal=None, problems=(error.message,)
        )
    names = sorted(ours.keys() | image.types.keys())
    different = [name for name in names if ours.get(name) != image.types.get(name)]
    return _verdict(image, TYPES_DIRECTORY, [f"{name}: another file than here" for name in different])


def _attributes(path: str, capabilities: Iterable[str]) -> dict[str, bytes]:
    """Return the attributes of the static program's file at *path* in an image of *capabilities*."""
    granted = program_capabilities(path.rpartition("/")[2], capabilities)
    return {FILE_ATTRIBUTE: file_attribute(granted)} if granted else {}


def _check_program(
    image: ImageContents, path: str, data: Path | None, attributes: Mapping[str, bytes]
) -> FileVerdict:
    found = image.programs.get(path)
    if found is None or not found.is_file:
        return _verdict(image, path, ["not in the image"])
    try:
        ours = _PROGRAMS[path](_find_platform(image), data)
    except FileAccessError as error:
        return FileVerdict(platform=image.platform, path=path, equal=None, problems=(error.message,))
    return _verdict(image, path, list(_compare_program(found, ours, attributes)))


def _find_platform(image: ImageContents) -> Platform:
    found = oci_platform(image.platform)
    if found is None:
        raise FileAccessError(f"{image.platform}: no platform that this installation knows")
    return found


def _compare_program(found: TarEntry, ours: Part, attributes: Mapping[str, bytes]) -> Iterator[str]:
    if found.data != ours.data:
        at = first_difference(found.data, ours.data)
        sizes = f"{len(found.data)} bytes in the image, {len(ours.data)} of this installation"
        yield f"{sizes}, different from byte {at} on: of another release, other packages, or changed"
    if (found.mode, found.uid, found.gid) != (_PROGRAM_MODE, 0, 0):
        yield f"mode {found.mode:04o}, owner {found.uid}:{found.gid} in the image, 0755 and 0:0 here"
    for name in sorted(dict(found.xattrs).keys() | attributes.keys()):
        theirs, expected = found.xattrs.get(name), attributes.get(name)
        if theirs != expected:
            yield f"{name}: {_hex(theirs)} in the image, {_hex(expected)} here"


def first_difference(a: bytes, b: bytes) -> int:
    """Return the offset of the first different byte, or the length of the shorter one."""
    shorter = min(len(a), len(b))
    return next((at for at in range(shorter) if a[at] != b[at]), shorter)


def _check_configuration(image: ImageContents, config: Config) -> FileVerdict:
    """Compare the members that decide what starts. The base image may set the others."""
    health = config.image.healthcheck
    wanted: dict[str, Any] = {
        "Entrypoint": image_entrypoint(config),
        "Cmd": None,
        "User": config.image.user,
    }
    if health:
        wanted["Healthcheck"] = {"Test": ["CMD", *health]}
    problems = [
        f"{name} is {_shorten(image.config.get(name))} in the image, {_shorten(value)} here"
        for name, value in wanted.items()
        if (image.config.get(name) or None) != value
    ]
    return _verdict(image, CONFIGURATION, problems)


def _verdict(image: ImageContents, path: str, problems: Sequence[str]) -> FileVerdict:
    return FileVerdict(platform=image.platform, path=path, equal=not problems, problems=tuple(problems))


def _hex(value: bytes | None) -> str:
    return "nothing" if value is None else value.hex()[:80]


def _shorten(value: Any) -> str:
    return "nothing" if value in (None, [], "") else repr(value)[:300]
