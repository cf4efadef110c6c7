# SPDX-License-Identifier: Apache-2.0
"""
List what an image holds, from its files alone: signed objects, loader, init and the packages of its base.

The same image gives the same list on every machine, except for the libraries of the loader: their versions
are known to the installation that carries the same loader, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from buildtool.core.digests import Digest
from buildtool.core.errors import FileAccessError, ObjectFormatError
from buildtool.core.platforms import oci_platform
from buildtool.image.metadata import (
    LABEL_PREFIX,
    LOADER_PATH,
    OBJECTS_DIRECTORY,
    PINS_PATH,
    TINI_PATH,
    TYPES_DIRECTORY,
)
from buildtool.objects.elf import parse_object
from buildtool.oci.read import BlobSource, StoredImage, open_layer, read_images
from buildtool.oci.tree import Tree, read_tree
from buildtool.runtime.carried import Part, find_loader, find_pins_tool, find_tini
from buildtool.signing.statement import Statement, read_statement

_OBJECTS = OBJECTS_DIRECTORY.strip("/") + "/"
_TYPES = TYPES_DIRECTORY.strip("/") + "/"
# Files with the packages of Debian's distroless images, and of images that keep dpkg.
_PACKAGES = ("var/lib/dpkg/status.d/", "var/lib/dpkg/status")
_FIELDS = ("Package", "Version", "Architecture")
MAX_PACKAGES = 10_000


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class ListedPackage:
    """
    A package: *name*, *version*, *architecture*, and its *sha256* where that is known.

    It is one of Debian, or *vendored*: its sources are among the loader's.
    """

    name: str
    version: str
    architecture: str = ""
    sha256: str = ""
    vendored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedProgram:
    """A program of buildtool in the image: *path*, *sha256*, and the *packages* that it was linked with."""

    path: str
    sha256: Digest
    packages: tuple[ListedPackage, ...] = ()
    compiler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObject:
    """An object: its *name* in the image, *sha256* of the file, and its *statement*, None if it has none."""

    name: str
    sha256: Digest
    statement: Statement | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPlatform:
    """What the image of one *platform* holds; *digest* is its manifest's."""

    platform: str
    digest: Digest
    labels: Mapping[str, str]
    created: str
    objects: tuple[ListedObject, ...]
    programs: tuple[ListedProgram, ...]
    packages: tuple[ListedPackage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What image *name* of *digest* holds, for each platform."""

    name: str
    digest: Digest
    platforms: tuple[ListedPlatform, ...]

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the first platform; all have the same, but for the architecture."""
        return self.platforms[0].labels

    @property
    def title(self) -> str:
        """The name of the project, or that of the image."""
        return self.labels.get("org.opencontainers.image.title") or self.name

    @property
    def release(self) -> str:
        """The version for readers, or empty."""
        return self.labels.get("org.opencontainers.image.version", "")


def list_image(source: BlobSource, name: str) -> Inventory:
    """
    Return what the image of *source* holds. It is called *name* in documents.

    Raises: ObjectFormatError, also for an image that buildtool did not build; errors of *source*.
    """
    platforms = tuple(_list_platform(source, image) for image in read_images(source))
    if not any(platform.objects for platform in platforms):
        raise ObjectFormatError(
            f"{source.name}: no objects in {OBJECTS_DIRECTORY}: not built by buildtool",
            hint="syft lists the contents of other images",
        )
    return Inventory(name=name, digest=source.top().digest, platforms=platforms)


def _list_platform(source: BlobSource, image: StoredImage) -> ListedPlatform:
    tree = read_tree((open_layer(source, layer) for layer in image.layers), keep=_is_kept)
    config = image.config.get("config") or {}
    labels = {str(key): str(value) for key, value in (config.get("Labels") or {}).items()}
    return ListedPlatform(
        platform=image.platform,
        digest=image.digest,
        labels=labels,
        created=str(image.config.get("created") or ""),
        objects=tuple(_list_objects(tree)),
        programs=tuple(_list_programs(tree, image.platform)),
        packages=tuple(sorted(_count_packages(tree))),
    )


def _count_packages(tree: Tree) -> set[ListedPackage]:
    """Return the packages of the base. Raises: ObjectFormatError, if a list of these would be too long."""
    found: set[ListedPackage] = set()
    for package in _list_packages(tree):
        found.add(package)
        if len(found) > MAX_PACKAGES:
            raise ObjectFormatError(
                f"the base has more than {MAX_PACKAGES} packages", hint="a smaller base image has fewer"
            )
    return found


def _is_kept(path: str) -> bool:
    programs = (LOADER_PATH, PINS_PATH, TINI_PATH)
    return (
        path.startswith((_OBJECTS, _TYPES, *_PACKAGES)) or f"/{path}" in programs or path == "usr/sbin/tini"
    )


def _list_objects(tree: Tree) -> Iterator[ListedObject]:
    for path in sorted(tree):
        entry = tree[path]
        if not path.startswith((_OBJECTS, _TYPES)) or not entry.is_file:
            continue
        try:
            statement = read_statement(parse_object(entry.data))
        except ObjectFormatError:
            statement = None
        digest = Digest(hashlib.sha256(entry.data).hexdigest())
        yield ListedObject(
            name=path.removeprefix(_OBJECTS).removeprefix(_TYPES), sha256=digest, statement=statement
        )


def _list_programs(tree: Tree, platform: str) -> Iterator[ListedProgram]:
    target = oci_platform(platform)
    for path, finder in ((LOADER_PATH, find_loader), (PINS_PATH, find_pins_tool), (TINI_PATH, find_tini)):
        entry = tree.get(path.strip("/")) or tree.get(f"usr{path}")
        if entry is None or not entry.is_file:
            continue
        digest = Digest(hashlib.sha256(entry.data).hexdigest())
        try:
            part = finder(target) if target else None
        except FileAccessError:
            part = None
        if part is None or part.sha256 != digest:
            yield ListedProgram(path=path, sha256=digest)
            continue
        yield ListedProgram(
            path=path,
            sha256=digest,
            packages=tuple(sorted(_packages_of(part))),
            compiler=str(part.record.get("compiler", "")),
        )


def _packages_of(part: Part) -> Iterator[ListedPackage]:
    for key in ("packages", "vendored"):
        for name, about in part.record.get(key, {}).items():
            yield ListedPackage(
                name=name,
                version=str(about.get("version", "")),
                sha256=str(about.get("sha256", "")) if key == "packages" else "",
                vendored=key == "vendored",
            )


def _list_packages(tree: Tree) -> Iterator[ListedPackage]:
    """Yield the packages of the base. Source: Debian's control fields, deb822(5)."""
    for path in sorted(tree):
        entry = tree[path]
        if not entry.is_file or path.endswith(".md5sums"):
            continue
        if path != _PACKAGES[1] and not path.startswith(_PACKAGES[0]):
            continue
        for paragraph in entry.data.decode("utf-8", "replace").split("\n\n"):
            fields = dict(
                line.split(": ", 1)
                for line in paragraph.splitlines()
                if line.startswith(_FIELDS) and ": " in line
            )
            name, version = fields.get("Package", "").strip(), fields.get("Version", "").strip()
            if name and version:
                architecture = fields.get("Architecture", "").strip()
                yield ListedPackage(name=name, version=version, architecture=architecture)


def base_of(labels: Mapping[str, str]) -> tuple[str, str]:
    """Return name and digest of the base image that *labels* name, each perhaps empty."""
    return (
        labels.get("org.opencontainers.image.base.name", ""),
        labels.get("org.opencontainers.image.base.digest", ""),
    )


def object_version(labels: Mapping[str, str]) -> str:
    """Return the increasing version of the objects that *labels* name, or empty text."""
    return labels.get(f"{LABEL_PREFIX}object-version", "")
