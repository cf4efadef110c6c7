# SPDX-License-Identifier: Apache-2.0
"""Builders of other drivers, by what buildx is called with, and why a builder elsewhere does not answer."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from labs.registry import run_tls, write_certificate

from buildtool.cli.main import run
from buildtool.image.docker.reach import explain_silence

Capture = pytest.CaptureFixture[str]
BUILD = ["build", "--engine", "docker", "--arch", "arm64", "--key", "keys/release.pem", "--no-sign-image"]
# Stands where docker is: it records each command, describes a builder of DRIVER, and fails if STATUS is set.
DOCKER = """#!{python}
import json, os, pathlib, sys
words = sys.argv[1:]
with open(os.environ["RECORD"], "a") as file:
    print(json.dumps(words), file=file)
if words[:2] == ["buildx", "inspect"]:
    status = os.environ.get("STATUS", "running")
    print(f"Name: x\\nDriver: {{os.environ['DRIVER']}}\\n\\nNodes:\\nName: x0\\n{{status}}")
elif words[:2] == ["buildx", "build"]:
    sys.stdin.buffer.read()
    if "STATUS" in os.environ:
        sys.exit("ERROR: failed to build: context deadline exceeded")
    place = words[words.index("--metadata-file") + 1]
    pathlib.Path(place).write_text(json.dumps({{"containerimage.digest": "sha256:12"}}))
elif words[0] == "version":
    sys.exit("Cannot connect to the Docker daemon")
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """Make a project and a stand-in for docker; be in the project."""
    client = tmp_path / "bin/docker"
    client.parent.mkdir()
    client.write_text(DOCKER.format(python=sys.executable))
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(client.parent), prepend=os.pathsep)
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", "registry.example/base@sha256:" + "0" * 64)
    monkeypatch.chdir(tmp_path)
    assert run(["init", "project"]) == 0
    monkeypatch.chdir(tmp_path / "project")
    assert run(["keygen", "release"]) == 0
    capsys.readouterr()
    return tmp_path / "project"


def built(tmp_path: Path) -> list[Any]:
    """Return the recorded commands that built, without those that look at a base."""
    lines = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    return [words for words in lines if words[:2] == ["buildx", "build"] and "--metadata-file" in words]


@pytest.mark.parametrize("driver", ["docker-container", "kubernetes", "remote"])
def test_what_buildx_is_called_with(driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder, its caches and its output are named; no command needs an engine."""
    monkeypatch.setenv("DRIVER", driver)
    caches = ["--cache-from", "type=gha,scope=a", "--cache-to", "type=gha,scope=a,mode=max"]
    tags = ["--tag", "registry.example/agent:7", "--tag", "registry.example/agent:latest"]
    assert run([*BUILD, "--builder", "far", *caches, *tags, "--push"]) == 0
    (words,) = built(tmp_path)
    options = list(pairwise(words))
    for option in (
        ("--builder", "far"),
        ("--cache-from", "type=gha,scope=a"),
        ("--cache-to", "type=gha,scope=a,mode=max"),
        ("--tag", "registry.example/agent:7"),
        ("--tag", "registry.example/agent:latest"),
        ("--platform", "linux/arm64"),
        ("--output", "type=image,push=true,store=false,oci-mediatypes=true,rewrite-timestamp=true"),
    ):
        assert option in options


def test_stages_on_the_host_use_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --sign-on host there are two builds: the first one reads the caches, and the second one writes."""
    monkeypatch.setenv("DRIVER", "remote")
    caches = [
        "--cache-from",
        "registry.example/cache",
        "--cache-to",
        "type=registry,ref=registry.example/cache",
    ]
    command = [
        *BUILD,
        "--builder",
        "far",
        *caches,
        "--sign-on",
        "host",
        "--tag",
        "registry.example/a:1",
        "--push",
    ]
    run([*command, "--label", "org.example.team=plant", "--annotation", "org.example.team=plant"])
    first = built(tmp_path)[0]
    assert "--cache-from" in first
    for option in ("--cache-to", "--label", "--annotation", "--tag"):
        assert option not in first


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        ("Error: Deployment not ready.", "deployment not ready"),
        ("Status: inactive", "it is not running"),
        ("Endpoint: tcp://127.0.0.1:1\nStatus: inactive", "connection refused"),
        ("Endpoint: tcp://[\nStatus: inactive", "its endpoint is no address"),
    ],
)
def test_builder_that_does_not_answer(
    status: str, cause: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The error has the cause that buildx leaves out; the hint has the command that shows more."""
    monkeypatch.setenv("DRIVER", "remote")
    monkeypatch.setenv("STATUS", status)
    assert run([*BUILD, "--builder", "far", "--output", "x.tar"]) == 1
    *_, error, hint = capsys.readouterr().err.splitlines()
    assert error == f"buildtool: error: builder 'far' does not answer: {cause}"
    assert hint == "buildtool: hint: docker buildx inspect --bootstrap far shows its state"


def test_build_that_fails_elsewhere_names_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A builder that answers, and builds nothing, may lack the images."""
    monkeypatch.setenv("DRIVER", "kubernetes")
    monkeypatch.setenv("STATUS", "Status: running")
    assert run([*BUILD, "--builder", "far", "--output", "x.tar"]) == 1
    *_, error, hint = capsys.readouterr().err.splitlines()
    assert error == "buildtool: error: the build failed (exit code 1), BuildKit's message is above"
    assert "`buildtool images prepare --push REGISTRY/NAME`" in hint


def describe(port: int, **options: str) -> str:
    """Return what buildx would say of a builder at *port* with *options* of the driver."""
    driver = " ".join(f'{name}="{value}"' for name, value in options.items())
    return f"Endpoint:       tcp://127.0.0.1:{port}\nDriver Options: {driver}\nStatus:         inactive\n"


def test_why_tls_fails(tmp_path: Path) -> None:
    """The certificate of the server, of another host, or no TLS at all."""
    authority = write_certificate(tmp_path / "server.pem", "127.0.0.1", (-1, 1))
    shutil.copy(authority, tmp_path / "own.pem")
    other = write_certificate(tmp_path / "other.pem", "127.0.0.1", (-1, 1))
    with run_tls(tmp_path / "server.pem") as port:
        own = str(tmp_path / "own.pem")
        assert "its certificate is not accepted: " in explain_silence(describe(port, cacert=str(other)))
        found = explain_silence(describe(port, cacert=own, servername="elsewhere.example"))
        assert "its certificate is not accepted: Hostname mismatch" in found
        assert explain_silence(describe(port, cacert=own)) == "it accepts connections, but gives no answer"
        assert "perhaps it requires TLS" in explain_silence(describe(port))
        assert "no such file" in explain_silence(describe(port, cacert=str(tmp_path / "none.pem")))


def test_server_without_tls(tmp_path: Path) -> None:
    """A builder that was started without certificates."""
    authority = write_certificate(tmp_path / "server.pem", "127.0.0.1", (-1, 1))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = Thread(target=serve, daemon=True)
        thread.start()
        text = describe(server.getsockname()[1], cacert=str(authority))
        assert explain_silence(text).startswith("TLS fails, perhaps because of the client's certificate: ")
        thread.join()
