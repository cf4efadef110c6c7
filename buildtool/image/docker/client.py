# SPDX-License-Identifier: Apache-2.0
"""
Connects to the Docker engine by its library: the engine that the docker command would talk to.

The library honours DOCKER_HOST and, since its version 7.2, the docker context. It takes a
context that does not exist for the default one; here that is an error, since an image
must not go to another engine than the one that was named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import requests

from buildtool.core.errors import EngineError, first_line, system_reason

# What the library raises; errors of the connection are those of its transport.
ENGINE_ERRORS = (docker.errors.DockerException, requests.RequestException)
NO_IMAGE_ERRORS = (docker.errors.ImageNotFound, docker.errors.NullResource)
ENGINE_HINT = "start the engine, or name one by DOCKER_HOST or a docker context"
_SSH_HINT = "an engine over SSH: pip install 'docker[ssh]'"


def connect() -> Any:
    """
    Return a client of the engine; the caller closes it.

    Raises: EngineError, when no engine answers.
    """
    use_context = _uses_context(os.environ)
    try:
        return docker.from_env(use_context=use_context, use_ssh_client=True)
    except ENGINE_ERRORS as error:
        hint = _SSH_HINT if "paramiko" in str(error) else ENGINE_HINT
        raise EngineError(f"no Docker engine answers: {_cause(error)}", hint=hint) from error


def find_engine_image(reference: str) -> dict[str, Any] | None:
    """
    Return what the engine says of image *reference*, or None when it has no such image.

    Raises: EngineError, when no engine answers.
    """
    client = connect()
    try:
        return dict(client.images.get(reference).attrs)
    except NO_IMAGE_ERRORS:
        return None
    except ENGINE_ERRORS as error:
        raise EngineError(f"{reference}: cannot inspect the image: {first_line(error)}") from error
    finally:
        client.close()


def load_archive(path: Path) -> None:
    """
    Load the images of archive *path* into the engine.

    Raises: EngineError, FileAccessError.
    """
    client = connect()
    try:
        with path.open("rb") as file:
            client.images.load(file)
    except ENGINE_ERRORS as error:
        if "no space left on device" in str(error):
            raise EngineError("the engine's disk is full", detail=str(error)) from error
        raise EngineError(f"the engine did not load the image: {first_line(error)}") from error
    finally:
        client.close()


def _cause(error: BaseException) -> str:
    """Return the system's own reason below the library's errors, or the first line of *error*."""
    reason, cause = "", error
    while next_cause := cause.__cause__ or cause.__context__:
        cause = next_cause
        if isinstance(cause, OSError) and cause.strerror:
            reason = system_reason(cause)
    return reason or first_line(error)


def _uses_context(environ: Mapping[str, str]) -> bool:
    """
    Tell whether a docker context names the engine.

    Raises: EngineError, when it cannot be read.
    """
    if environ.get("DOCKER_HOST"):
        return False
    settings = Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json")
    name = environ.get("DOCKER_CONTEXT", "")
    if not settings.is_file():
        # The library would look for contexts in another home, or in the working directory.
        if name not in ("", "default"):
            raise EngineError(
                f"docker context {name!a}: cannot be read without {settings}",
                hint=f"docker context use {name} writes that file",
            )
        return False
    try:
        found = docker.ContextAPI.get_context(name or None)
    except Exception as error:  # the library raises a plain Exception for a damaged file
        raise EngineError(
            f"docker context {name!a}: cannot be read: {first_line(error)}", hint="docker context ls"
        ) from error
    if found is None:
        what = f"docker context {name!a}" if name else f"the current docker context of {settings}"
        raise EngineError(f"{what}: not found", hint="docker context ls shows the contexts")
    return True
