# SPDX-License-Identifier: Apache-2.0
"""Tell what a finished image holds, read back from where the build put it: sizes, programs, kernels, keys."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from buildtool.check.static import first_release
from buildtool.core.cache import Cache
from buildtool.core.errors import BuildtoolError, ObjectFormatError
from buildtool.image.inspect import ImageReport, inspect_image, inspect_object, inspect_stored
from buildtool.image.result import BuiltImage
from buildtool.oci.read import BlobSource, open_layout, read_images
from buildtool.oci.registry import open_image
from buildtool.oci.write import full_name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectOverview:
    """
    The object *name* of *size* bytes, its *programs* and the key ids of its *signers*.

    *oldest* is the first Linux release with all that the object uses, empty if that is not newer than 4.4.
    """

    name: str
    size: int
    programs: tuple[str, ...]
    signers: tuple[str, ...]
    oldest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformOverview:
    """
    The image of one *platform*: *digest* of its manifest, and its *objects*.

    *size* is that of all layers as they are stored and transferred, in bytes, or 0 if unknown. In the store
    of an engine, the digest is the id of the image.
    """

    platform: str
    digest: str
    size: int
    objects: tuple[ObjectOverview, ...]


def describe_image(image: BuiltImage, cache: Cache, *, pushed: bool) -> tuple[PlatformOverview, ...]:
    """
    Return what *image* holds for each platform, read from its file, its registry (*pushed*) or the engine.

    Nothing is returned for output that is no image. An image that cannot be read is a warning, because it
    is built, and perhaps pushed.
    """
    if not image.reference:
        return ()
    try:
        if not (image.file or pushed):
            return (_overview(inspect_image(image.reference), 0),)
        with _open(image, cache) as source:
            sizes = {
                f"sha256:{stored.digest}": sum(layer.size for layer in stored.layers)
                for stored in read_images(source)
            }
            return tuple(_overview(report, sizes[report.digest]) for report in inspect_stored(source))
    except BuildtoolError as error:
        log.warning("%s: no overview of the finished image: %s", image.reference, error.message)
        return ()


@contextmanager
def _open(image: BuiltImage, cache: Cache) -> Iterator[BlobSource]:
    if image.file:
        with open_layout(Path(image.file)) as source:
            yield source
        return
    repository = full_name(image.reference).rpartition(":")[0]
    yield open_image(f"{repository}@{image.digest}", cache)


def _overview(report: ImageReport, size: int) -> PlatformOverview:
    return PlatformOverview(
        platform=report.platform,
        digest=report.digest,
        size=size,
        objects=tuple(_objects(report.objects)),
    )


def _objects(objects: Iterable[tuple[str, bytes]]) -> Iterator[ObjectOverview]:
    for name, data in objects:
        try:
            report = inspect_object(name, data)
        except ObjectFormatError:
            continue  # of the base image
        contents = report.contents
        release = first_release(contents) if contents else None
        yield ObjectOverview(
            name=name,
            size=report.size,
            programs=tuple(program.name for program in contents.programs) if contents else (),
            signers=tuple(entry.key_id.hex() for entry in report.record.signatures) if report.record else (),
            oldest=".".join(map(str, release)) if release else "",
        )
