# SPDX-License-Identifier: Apache-2.0
"""The docker library connects to the named engine, or an error is raised."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from buildtool.core.errors import EngineError, FileAccessError
from buildtool.image.docker.client import connect, find_engine_image, load_archive
from buildtool.image.inspect import inspect_image


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory of docker's settings of a user who names no host."""
    directory = tmp_path / "docker"
    directory.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(directory))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST")
    return directory


def write_context(directory: Path, name: str, host: str) -> None:
    """Write a context as `docker context create` does."""
    place = directory / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest()
    place.mkdir(parents=True)
    value = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host}}}
    (place / "meta.json").write_text(json.dumps(value))


def test_no_engine_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any exception of the library becomes EngineError, with the system's reason if there is one."""
    for host, reason in (
        (f"unix://{tmp_path}/none", "no such file or directory"),
        ("tcp://127.0.0.1:1", "connection refused"),
        ("nonsense", "Invalid bind address format: port is required: nonsense"),
        ("tcp://:99999", "Port out of range 0-65535"),
        ("tcp://[::1", "Invalid IPv6 URL"),
        ("tcp://127.0.0.1:abc", "Port could not be cast to integer value as 'abc'"),
    ):
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(
            EngineError, match=f"^no Docker engine answers: {re.escape(host)}: {reason}$"
        ) as caught:
            find_engine_image("x")
        assert caught.value.hint


@pytest.mark.parametrize("by", ["host", "context"])
def test_engine_over_ssh_names_what_is_missing(
    settings: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The library asks for a module that it does not require: the hint is the line that installs it."""
    host, where = "ssh://nobody@127.0.0.1:1", ""
    if by == "host":
        monkeypatch.setenv("DOCKER_HOST", host)
        where = f": {host}"
    else:
        (settings / "config.json").write_text('{"currentContext": "far"}')
        write_context(settings, "far", host)
    message = f"^engine over SSH{where}: Python module paramiko: not found$"
    with pytest.raises(EngineError, match=message) as caught:
        connect()
    assert caught.value.hint == "pip install 'docker[ssh]' brings what an engine over SSH needs"


def test_host_goes_before_a_context(settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCKER_HOST overrides the docker context, as for the docker command, even if the context is missing."""
    monkeypatch.setenv("DOCKER_CONTEXT", "none")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    with pytest.raises(EngineError, match="no Docker engine answers"):
        connect()


@pytest.mark.parametrize("by", ["variable", "settings"])
def test_a_context_that_does_not_exist_is_an_error(
    settings: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A missing context is an error, although the library would use the default engine."""
    (settings / "config.json").write_text(json.dumps({"currentContext": "far"} if by == "settings" else {}))
    if by == "variable":
        monkeypatch.setenv("DOCKER_CONTEXT", "far")
    with pytest.raises(EngineError, match=r"context .*: not found") as caught:
        connect()
    assert caught.value.hint == "docker context ls shows the contexts"


def test_a_damaged_context_is_an_error(settings: Path) -> None:
    """The library raises a plain Exception."""
    (settings / "config.json").write_text('{"currentContext": "far"}')
    write_context(settings, "far", "unix:///nonexistent/x.sock")
    (meta,) = settings.glob("contexts/meta/*/meta.json")
    for text in ("{", "{}", "[]", '{"Name": "far", "Metadata": {}, "Endpoints": {"docker": 1}}'):
        meta.write_text(text)
        with pytest.raises(EngineError, match=r"context .*: cannot be read"):
            connect()


def test_contexts_are_only_those_of_the_settings(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without config.json, contexts are not searched in the working directory or another home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    write_context(tmp_path, "far", "unix:///nonexistent/planted.sock")
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"currentContext": "home"}')
    write_context(tmp_path / ".docker", "far", "unix:///nonexistent/home.sock")
    with pytest.raises(EngineError, match=r"'far': cannot be read without .*/docker/config.json"):
        connect()


@pytest.mark.parametrize("text", ["[]", "3", "{", '"x"', "\xff", "[" * 100_000])
@pytest.mark.parametrize("host", ["", "tcp://127.0.0.1:1"])
def test_settings_that_are_no_object_are_an_error(
    settings: Path, monkeypatch: pytest.MonkeyPatch, host: str, text: str
) -> None:
    """A config.json that is no JSON object is an error, because the library reads it unchecked."""
    monkeypatch.setenv("DOCKER_HOST", host)
    (settings / "config.json").write_text(text, "latin-1")
    with pytest.raises(EngineError, match=r"/docker/config\.json: not a JSON object$"):
        connect()


def test_settings_of_strange_values_are_one_error(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the library raises a plain TypeError."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    (settings / "config.json").write_text('{"HttpHeaders": 3}')
    with pytest.raises(EngineError, match=r"no Docker engine answers: .*int"):
        connect()


def test_settings_that_cannot_be_read_are_an_error(settings: Path) -> None:
    """A directory cannot be read as a file, by root either."""
    (settings / "config.json").mkdir()
    with pytest.raises(EngineError, match=r"config\.json: cannot read: is a directory"):
        connect()


def test_user_without_a_home_has_no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without a home directory, as in containers, gets the default engine and no context."""
    for name in ("HOME", "DOCKER_CONFIG", "DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.setattr("docker.utils.utils.DEFAULT_UNIX_SOCKET", f"http+unix://{tmp_path}/none")
    with pytest.raises(EngineError, match="no Docker engine answers: "):
        connect()
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    with pytest.raises(EngineError, match="'far': cannot be read without a home directory") as caught:
        connect()
    assert caught.value.hint == "set HOME"


class _Engine(BaseHTTPRequestHandler):
    """An engine that answers every question about an image with its server's text."""

    def do_GET(self) -> None:
        """Answer the version as an engine does, so that the library goes on."""
        version = b'{"ApiVersion": "1.47", "MinAPIVersion": "1.24"}'
        body = version if self.path.endswith("/version") else self.server.text  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.mark.parametrize(
    ("ask", "text"),
    [(find_engine_image, text) for text in (b"[]", b"3", b"\xff\x00", b"<html>", b"null")]
    + [(inspect_image, text) for text in (b"[]", b"3", b"\xff\x00", b'{"Id": 1, "Os": 2}', b"null")],
)
def test_engine_that_answers_nonsense_is_one_error(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], object], text: bytes
) -> None:
    """The library raises a plain Exception, TypeError or AttributeError."""
    with HTTPServer(("127.0.0.1", 0), _Engine) as server:
        server.text = text  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        try:
            with pytest.raises(EngineError, match=r"^x: cannot inspect the image: "):
                ask("x")
        finally:
            server.shutdown()


def test_archive_that_is_not_there_is_an_error_of_the_file(tmp_path: Path) -> None:
    """A missing archive is an error of the file, and no engine is used."""
    with pytest.raises(FileAccessError, match="cannot read: no such file"):
        load_archive(tmp_path / "none.tar")
