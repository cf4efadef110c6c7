# SPDX-License-Identifier: Apache-2.0
"""Find the image that a user names: a file or directory, an image of the engine, or one in a registry."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.errors import EngineError, FileAccessError
from buildtool.core.validate import LAYOUT_SCHEME, check_image, names_registry, split_layout
from buildtool.image.docker.client import connect
from buildtool.image.docker.store import save_image
from buildtool.oci.read import BlobSource, open_layout
from buildtool.oci.registry import open_image

_ENGINE_HINT = (
    "start the engine, or name one by DOCKER_HOST; without one, name the archive that build --engine local"
    " wrote (NAME-RELEASE.oci.tar), or one of docker save"
)
_HINT = "name an archive that build wrote, an image of the engine, or REGISTRY/NAME:TAG"


def _check_engine(reference: str) -> None:
    """Check that an engine answers, which alone can have image *reference*. Raises: EngineError."""
    try:
        connect().close()
    except EngineError as error:
        raise EngineError(f"{reference}: no such file, and {error.message}", hint=_ENGINE_HINT) from error


@contextmanager
def find_image_source(target: str, cache: Cache) -> Iterator[BlobSource]:
    """
    Yield the image that *target* names.

    Raises: UsageError, FileAccessError, ObjectFormatError, RegistryError, EngineError.
    """
    if target.startswith(LAYOUT_SCHEME):
        path, digest = split_layout(target)
        with open_layout(path, Digest(digest) if digest else None) as source:
            yield source
        return
    if Path(target).exists():
        with open_layout(Path(target)) as source:
            yield source
        return
    if target.startswith((".", "/")) or target.endswith(".tar"):
        raise FileAccessError(f"{target}: no such file or directory", hint=_HINT)
    reference = check_image(target)
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        archive = Path(work, "image.tar")
        if save_image(reference, archive):
            with open_layout(archive, name=reference) as source:
                yield source
            return
    if not names_registry(reference):
        _check_engine(reference)
        raise EngineError(
            f"{reference}: no such file, no image of the Docker engine, and no registry in the name",
            hint=_HINT,
        )
    yield open_image(reference, cache, lambda _: None)
