# SPDX-License-Identifier: Apache-2.0
"""
Small questions to an engine on this machine, over its socket.

The docker client takes 40 ms to start, which a build in which nothing changed
feels. This answers only in the plain case (a Unix socket, no context chosen);
whatever else there is, the caller asks the client.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEFAULT_SOCKET = "/var/run/docker.sock"
TIMEOUT_SECONDS = 10
MAX_ANSWER_BYTES = 4 * 1024 * 1024


def find_socket(environ: Mapping[str, str]) -> str | None:
    """Return the path of the engine's socket, or None when only the docker client knows the way."""
    host = environ.get("DOCKER_HOST", "")
    if host:
        return host.removeprefix("unix://") if host.startswith("unix:///") else None
    settings = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/"), ".docker"), "config.json")
    try:
        chosen = "currentContext" in settings.read_text("utf-8")
    except FileNotFoundError:
        chosen = False
    except (OSError, UnicodeDecodeError):
        return None
    return None if chosen or environ.get("DOCKER_CONTEXT") else DEFAULT_SOCKET


def may_answer(environ: Mapping[str, str]) -> bool:
    """
    Say whether it is worth asking the engine's library.

    It takes long to find out that there is no socket, and leaves its own end open.
    """
    path = find_socket(environ)
    return path is None or Path(path).exists()


def inspect_image(reference: str, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """
    Return what the engine says of image *reference*: {} for none, None for no answer.

    *reference* is one of our own names; it is a part of the request as it is.
    """
    path = find_socket(environ)
    answer = _get(path, f"/images/{reference}/json") if path else b""
    head, separator, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not separator or status not in ([b"200"], [b"404"]):
        return None
    try:
        found = json.loads(body)
    except ValueError:
        return None
    if status == [b"404"]:
        # An engine's own words, not those of something else that listens there.
        return {} if isinstance(found, dict) and "such image" in str(found.get("message")).lower() else None
    return found if isinstance(found, dict) else None


def has_buildkit(path: str) -> bool:
    """Say whether an engine that builds with BuildKit answers at socket *path*."""
    head = _get(path, "/_ping").partition(b"\r\n\r\n")[0].lower()
    return b"\r\nbuilder-version: 2" in head


def _get(path: str, target: str) -> bytes:
    """Return the whole answer to GET *target*, empty when there is none in time."""
    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect(path)
            # HTTP/1.0: the answer is not in chunks and ends with the connection.
            connection.sendall(f"GET {target} HTTP/1.0\r\nHost: engine\r\n\r\n".encode("ascii"))
            while len(answer) <= MAX_ANSWER_BYTES and (chunk := connection.recv(65536)):
                answer += chunk
    except (OSError, ValueError):
        return b""
    return bytes(answer)
