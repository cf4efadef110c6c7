# SPDX-License-Identifier: Apache-2.0
"""Brings images into a Docker engine that were made without it, and gets images out."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from buildtool.core.errors import EngineError, FileAccessError, first_line, system_reason
from buildtool.image.docker.client import (
    ENGINE_ERRORS,
    NO_IMAGE_ERRORS,
    connect,
    find_engine_image,
    load_archive,
)
from buildtool.oci.write import ImageSet, write_archive


def load_images(images: ImageSet, reference: str) -> None:
    """
    Load *images* into the engine, called *reference*.

    Raises: EngineError, FileAccessError.
    """
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        archive = Path(work, "image.tar")
        write_archive(archive, images, reference)
        load_archive(archive)
        if find_engine_image(reference) is None:
            raise EngineError(f"the engine did not load the image: it has no {reference}")


def save_image(reference: str, path: Path) -> bool:
    """
    Write image *reference* of the engine to archive *path*; False when no engine has it.

    Raises: FileAccessError; EngineError, when the engine has it and does not give it.
    """
    try:
        client = connect()
    except EngineError:
        return False  # no engine: the image may still be in a registry
    try:
        with closing(client), path.open("wb") as file:
            for chunk in client.images.get(reference).save(named=True):
                file.write(chunk)
    except NO_IMAGE_ERRORS:
        return False
    except ENGINE_ERRORS as error:
        raise EngineError(f"docker engine: cannot export image {reference}: {first_line(error)}") from error
    except OSError as error:
        raise FileAccessError(f"{path}: cannot write: {system_reason(error)}") from error
    return True
