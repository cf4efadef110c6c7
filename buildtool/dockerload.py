# SPDX-License-Identifier: Apache-2.0
"""Brings images into a Docker engine that were made without it, and gets images out."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path

from buildtool.enginesocket import find_socket
from buildtool.errors import EngineError, FileAccessError
from buildtool.ociwrite import ImageSet, write_archive

_HINT = "is the engine running? DOCKER_HOST names another one"


def load_images(images: ImageSet, reference: str) -> None:
    """
    Load *images* into the engine, called *reference*.

    Raises: EngineError, FileAccessError.
    """
    import docker
    import requests

    if not _may_answer():
        raise EngineError("the engine did not load the image: there is none", hint=_HINT)
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        archive = Path(work, "image.tar")
        write_archive(archive, images, reference)
        try:
            with closing(docker.from_env()) as client, archive.open("rb") as file:
                client.images.load(file)
                client.images.get(reference)
        except (docker.errors.DockerException, requests.RequestException) as error:
            text = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise EngineError(
                f"the engine did not load the image: {text}",
                hint=_HINT,
            ) from error


def save_image(reference: str, path: Path) -> bool:
    """
    Write image *reference* of the engine to archive *path*; False when no engine has it.

    Raises: FileAccessError.
    """
    import docker
    import requests

    if not _may_answer():
        return False
    try:
        with closing(docker.from_env()) as client, path.open("wb") as file:
            for chunk in client.images.get(reference).save(named=True):
                file.write(chunk)
    except (docker.errors.DockerException, requests.RequestException):
        return False
    except OSError as error:
        raise FileAccessError(f"{path}: cannot write: {(error.strerror or str(error)).lower()}") from error
    return True


def _may_answer() -> bool:
    """Say whether it is worth asking: the engine's library takes long to find out that there is no socket."""
    path = find_socket(os.environ)
    return path is None or Path(path).exists()
