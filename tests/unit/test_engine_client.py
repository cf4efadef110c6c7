# SPDX-License-Identifier: Apache-2.0
"""The engine that the library talks to is the one that was named, or there is an error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from buildtool.core.errors import EngineError
from buildtool.image.docker.client import connect, find_engine_image


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
    """Whatever the library and its transport raise; the system's reason is named where there is one."""
    for host, reason in (
        (f"unix://{tmp_path}/none", "no such file or directory"),
        ("tcp://127.0.0.1:1", "connection refused"),
        ("nonsense", "Invalid bind address format: port is required: nonsense"),
        ("ssh://nobody@127.0.0.1:1", "Install paramiko package to enable ssh:// support"),
    ):
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(EngineError, match=f"^no Docker engine answers: {reason}$") as caught:
            find_engine_image("x")
        assert caught.value.hint


def test_host_goes_before_a_context(settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the docker command: a context that does not exist is not even looked for."""
    monkeypatch.setenv("DOCKER_CONTEXT", "none")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    with pytest.raises(EngineError, match="no Docker engine answers"):
        connect()


@pytest.mark.parametrize("by", ["variable", "settings"])
def test_a_context_that_does_not_exist_is_an_error(
    settings: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The library alone would ask the default engine."""
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
    """Without config.json the library would take them from the working directory, or from another home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    write_context(tmp_path, "far", "unix:///nonexistent/planted.sock")
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"currentContext": "home"}')
    write_context(tmp_path / ".docker", "far", "unix:///nonexistent/home.sock")
    with pytest.raises(EngineError, match=r"'far': cannot be read without .*/docker/config.json"):
        connect()
