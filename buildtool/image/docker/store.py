# SPDX-License-Identifier: Apache-2.0
"""Load images of the embedded engine into a Docker engine, and export images from it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from buildtool.core.errors import EngineError, FileAccessError, system_reason
from buildtool.image.docker.client import (
    connect,
    engine_errors,
    find_engine_image,
    load_archive,
    missing_errors,
)
from buildtool.oci.write import ImageSet, write_archive


def find_image_id(reference: str) -> str:
    """Return the id of the engine's image *reference*. Empty without such an image or without an engine."""
    try:
        found = find_engine_image(reference)
    except EngineError:
        return ""
    return str(found["Id"]) if found else ""


def load_images(images: ImageSet, *references: str) -> str:
    """
    Load *images* into the engine as *references*. Return the id of the first image that lost its name, or "".

    Raises: EngineError, FileAccessError.
    """
    before = {reference: find_image_id(reference) for reference in references}
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        archive = Path(work, "image.tar")
        write_archive(archive, images, *references)
        load_archive(archive)
        for reference in references:
            if find_engine_image(reference) is None:
                raise EngineError(f"the engine did not load the image: it has no {reference}")
    return find_replaced(before)


def find_replaced(before: Mapping[str, str]) -> str:
    """
    Return the id of the first image that has lost its name in the engine since *before*, or "".

    *before* has the ids, or empty texts, by name.
    """
    return next((old for name, old in before.items() if old and old != find_image_id(name)), "")


def save_image(reference: str, path: Path) -> bool:
    """
    Write image *reference* of the engine to archive *path*. Return False if no engine has the image.

    Raises: FileAccessError; EngineError, if the engine has the image but cannot export it.
    """
    try:
        client = connect()
    except EngineError:
        return False  # without an engine, the image may still be in a registry
    problem = f"docker engine: cannot export image {reference}"
    try:
        with closing(client), path.open("wb") as file, engine_errors(problem):
            try:
                chunks = client.images.get(reference).save(named=True)
            except missing_errors():
                return False
            for chunk in chunks:
                _write(file, chunk, path)
    except OSError as error:
        raise _write_error(path, error) from error
    return True


def _write(file: BinaryIO, chunk: bytes, path: Path) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError) -> FileAccessError:
    return FileAccessError(f"{path}: cannot write: {system_reason(error)}")
