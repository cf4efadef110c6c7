# SPDX-License-Identifier: Apache-2.0
"""Brings images into a Docker engine that were made without it, and gets images out."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path

from buildtool.core.errors import EngineError, FileAccessError
from buildtool.image.docker.socket import may_answer
from buildtool.oci.write import ImageSet, write_archive

_HINT = "is the engine running? DOCKER_HOST names another one"


def load_images(images: ImageSet, reference: str) -> None:
    """
    Load *images* into the engine, called *reference*.

    Raises: EngineError, FileAccessError.
    """
    import docker
    import requests

    if not may_answer(os.environ):
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

    Raises: FileAccessError; EngineError, when the engine has it and does not give it.
    """
    import docker
    import requests

    if not may_answer(os.environ):
        return False
    try:
        client = docker.from_env()
    except (docker.errors.DockerException, requests.RequestException):
        return False  # no engine: the image may still be in a registry
    try:
        with closing(client), path.open("wb") as file:
            for chunk in client.images.get(reference).save(named=True):
                file.write(chunk)
    except (docker.errors.ImageNotFound, docker.errors.NullResource):
        return False
    except (docker.errors.DockerException, requests.RequestException) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EngineError(f"the engine did not give image {reference}: {text}", hint=_HINT) from error
    except OSError as error:
        raise FileAccessError(f"{path}: cannot write: {(error.strerror or str(error)).lower()}") from error
    return True
