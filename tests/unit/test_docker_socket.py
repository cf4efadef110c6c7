# SPDX-License-Identifier: Apache-2.0
"""Questions to the engine's socket: an answer, or the docker client is asked instead."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from buildtool.image.docker.socket import DEFAULT_SOCKET, find_socket, inspect_image


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[dict[str, str]]:
    """Give an environment whose engine is a socket that answers one request with *answer*."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield {"DOCKER_HOST": f"unix://{path}"}
        thread.join()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'HTTP/1.0 200 OK\r\nA: b\r\n\r\n{"Id": "x"}', {"Id": "x"}),
        (b'HTTP/1.0 404 Not Found\r\n\r\n{"message": "No such image: x"}', {}),
        (b'HTTP/1.0 404 Not Found\r\n\r\n{"message": "page not found"}', None),
        (b"HTTP/1.0 404 Not Found\r\n\r\n404", None),
        (b"HTTP/1.0 500 Oops\r\n\r\n{}", None),
        (b"HTTP/1.0 200 OK\r\n\r\n[1]", None),
        (b"HTTP/1.0 200 OK\r\n\r\n{", None),
        (b"HTTP/1.0 200 OK", None),
        (b"220 smtp ready\r\n", None),
        (b"", None),
    ],
)
def test_only_an_engines_answer_counts(tmp_path: Path, answer: bytes, expected: object) -> None:
    """Anything else than an image or its absence is no answer."""
    with answering(tmp_path / "s", answer) as environ:
        assert inspect_image("x", environ) == expected


def test_no_engine_is_no_answer(tmp_path: Path) -> None:
    """The docker client has better words for that."""
    assert inspect_image("x", {"DOCKER_HOST": f"unix://{tmp_path}/none"}) is None


def test_socket_is_known_in_the_plain_case_only(tmp_path: Path) -> None:
    """TCP, ssh and contexts are the client's business."""
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    assert find_socket({**environ, "DOCKER_HOST": "tcp://10.0.0.1:2376"}) is None
    assert find_socket({**environ, "DOCKER_HOST": "ssh://host"}) is None
    assert find_socket({**environ, "DOCKER_HOST": "unix:///run/x.sock"}) == "/run/x.sock"
    assert find_socket(environ) == DEFAULT_SOCKET
    assert find_socket({**environ, "DOCKER_CONTEXT": "other"}) is None
    (tmp_path / "config.json").write_text('{"currentContext": "other"}')
    assert find_socket(environ) is None
