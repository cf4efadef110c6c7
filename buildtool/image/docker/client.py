# SPDX-License-Identifier: Apache-2.0
"""
Connect, by the docker library, to the same engine as the docker command.

The library reads DOCKER_HOST and, since its version 7.2, the docker context. If a context does not
exist, the library uses the default one. This module raises an error, because an image must not go
to another engine than the named one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from buildtool.core.errors import (
    BuildtoolError,
    EngineError,
    FileAccessError,
    UsageError,
    first_line,
    system_reason,
)
from buildtool.core.files import expand_home

ENGINE_HINT = "start the engine, or name one by DOCKER_HOST or a docker context"
# A longer name in a message would fill the terminal.
_MAX_SHOWN_HOST = 200
_SETTINGS_HINT = "repair the file, or name another directory by DOCKER_CONFIG"
_SSH_HINT = "pip install 'docker[ssh]' brings what an engine over SSH needs"
_TLS_HINT = "DOCKER_CERT_PATH names the directory of ca.pem, cert.pem and key.pem"


def _library() -> Any:
    """
    Return the docker library, which is imported only here.

    The import costs a third of a second, so only commands that connect to an engine should import it.
    """
    import docker

    return docker


def missing_errors() -> tuple[type[Exception], ...]:
    """Return the library's exceptions for an image, or a path in a container, that does not exist."""
    errors = _library().errors
    return errors.NotFound, errors.NullResource


@contextmanager
def engine_errors(problem: str, *, hint: str | None = None) -> Iterator[None]:
    """
    Convert each exception of the library in the block to an EngineError with *problem*.

    For an invalid variable, settings file or answer, the library raises ValueError, AttributeError or
    plain Exception, so no list of classes is complete. A BuildtoolError passes unchanged.
    """
    try:
        yield
    except BuildtoolError:
        raise
    except Exception as error:
        if "no space left on device" in str(error):
            raise EngineError(
                f"{problem}: the engine's disk is full",
                hint="docker system prune makes room",
                detail=str(error),
            ) from error
        raise EngineError(f"{problem}: {_cause(error)}", hint=hint) from error


def connect() -> Any:
    """
    Return a client of the engine, which the caller must close.

    Raises: EngineError, if no engine answers.
    """
    settings = _find_settings(os.environ)
    if settings is not None:
        _check_settings(settings)
    use_context = _uses_context(os.environ, settings)
    host = os.environ.get("DOCKER_HOST", "")
    where = f": {host[:_MAX_SHOWN_HOST]}" if host else ""
    with engine_errors(f"no Docker engine answers{where}", hint=ENGINE_HINT):
        try:
            options = {"use_context": use_context, "environment": _environment(settings)}
            with closing(_open(_library().constants.DEFAULT_DOCKER_API_VERSION, options)) as client:
                version = client.version(api_version=False)["ApiVersion"]
            return _open(version, options)
        except _library().errors.TLSParameterError as error:
            raise EngineError(f"engine over TLS{where}: {error.msg}", hint=_TLS_HINT) from error
        except _library().errors.DockerException as error:
            if "paramiko" in str(error):
                raise EngineError(
                    f"engine over SSH{where}: Python module paramiko: not found", hint=_SSH_HINT
                ) from error
            raise


def _open(version: str, options: Mapping[str, Any]) -> Any:
    """Return a client that speaks *version* of the engine's API; nothing is sent yet."""
    client = _library().from_env(version=version, use_ssh_client=True, **options)
    if client.api.cert or client.api.verify is not True:
        # requests would prefer REQUESTS_CA_BUNDLE, which is for web servers, to the engine's authority.
        client.api.trust_env = False
    return client


def _environment(settings: Path | None) -> dict[str, str]:
    """Return the environment where the library finds certificates as docker does: beside *settings*."""
    environ = dict(os.environ)
    if environ.get("DOCKER_TLS_VERIFY") and not environ.get("DOCKER_CERT_PATH") and settings is not None:
        environ["DOCKER_CERT_PATH"] = str(settings.parent)
    return environ


def find_engine_image(reference: str) -> dict[str, Any] | None:
    """
    Return the engine's attributes of image *reference*, or None if the engine lacks the image.

    Raises: EngineError, if no engine answers.
    """
    with closing(connect()) as client, engine_errors(f"{reference}: cannot inspect the image"):
        try:
            return dict(client.images.get(reference).attrs)
        except missing_errors():
            return None


def load_archive(path: Path) -> None:
    """
    Load the images of archive *path* into the engine.

    Raises: EngineError, FileAccessError.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise FileAccessError(f"{path}: cannot read: {system_reason(error)}") from error
    with file, closing(connect()) as client, engine_errors("the engine did not load the image"):
        client.images.load(file)


def _cause(error: BaseException) -> str:
    """Return the system's reason that caused *error*, or the first line of *error*."""
    reason, cause = "", error
    while next_cause := cause.__cause__ or cause.__context__:
        cause = next_cause
        if isinstance(cause, OSError) and cause.strerror:
            reason = system_reason(cause)
    return reason or first_line(error)


def _find_settings(environ: Mapping[str, str]) -> Path | None:
    """Return the path of this user's config.json of docker, or None without a home directory."""
    if environ.get("DOCKER_CONFIG"):
        return Path(environ["DOCKER_CONFIG"], "config.json")
    try:
        return expand_home(Path("~/.docker/config.json"))
    except UsageError:
        return None


def _check_settings(settings: Path) -> None:
    """
    Check that file *settings*, if it exists, is a JSON object. The library does not check it.

    Raises: EngineError.
    """
    try:
        value = json.loads(settings.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise EngineError(f"{settings}: cannot read: {system_reason(error)}", hint=_SETTINGS_HINT) from error
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise EngineError(f"{settings}: not a JSON object", hint=_SETTINGS_HINT)


def _uses_context(environ: Mapping[str, str], settings: Path | None) -> bool:
    """
    Return whether a docker context names the engine.

    Raises: EngineError, if the context is missing or unreadable.
    """
    if environ.get("DOCKER_HOST"):
        return False
    name = environ.get("DOCKER_CONTEXT", "")
    if settings is None or not settings.is_file():
        # Without settings, the library would search contexts in another home or in the working directory.
        if name not in ("", "default"):
            raise EngineError(
                f"docker context {name!r}: cannot be read without {settings or 'a home directory'}",
                hint=f"docker context use {name} writes that file" if settings else "set HOME",
            )
        return False
    with engine_errors(
        f"docker context {name!r}: cannot be read", hint="docker context ls shows the contexts"
    ):
        found = _library().ContextAPI.get_context(name or None)
    if found is None:
        what = f"docker context {name!r}" if name else f"the current docker context of {settings}"
        raise EngineError(f"{what}: not found", hint="docker context ls shows the contexts")
    return True
