# SPDX-License-Identifier: Apache-2.0
"""Registries behind a proxy, with a private authority, busy ones, and helpers of `docker login` that fail."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from labs.cli import check_error
from labs.image import make_programs_image
from labs.registry import (
    FaultyRegistry,
    Proxy,
    SmallRegistry,
    faulty,
    fill,
    run_proxy,
    run_registry,
    run_secure_registry,
    write_certificate,
)
from labs.sig import copy_test_key, sign
from labs.sig import test_key as alice

from buildtool.cli.main import run
from buildtool.oci.registry import Answer, push_images, wanted_pause
from buildtool.oci.write import ImageSet

pytestmark = pytest.mark.usefixtures("quick_registry")
Capture = pytest.CaptureFixture[str]
PUBLISH = ("publish", "--key", "alice.pem")


@pytest.fixture(autouse=True)
def _keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy_test_key(tmp_path)
    Path("alice.pub").write_bytes(alice().public.pem)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Run a registry that speaks TLS by an authority of its own, which REQUESTS_CA_BUNDLE names."""
    authority = write_certificate(tmp_path / "server.pem", "127.0.0.1", (-1, 1), host="registry.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with run_secure_registry(tmp_path / "server.pem") as port:
        yield port


def image() -> ImageSet:
    """Return an image of one signed object."""
    return make_programs_image({"x.bpf.o": sign()}, ["amd64"])


def test_private_authority(secure: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Push, signature and verification go to a registry whose authority is named; without it, none does."""
    reference = f"127.0.0.1:{secure}/plant/agent:1"
    push_images(image(), reference)
    assert run([*PUBLISH, reference]) == 0
    assert run(["verify", reference, "--trust", "alice.pub"]) == 0
    capsys.readouterr()
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert run(["verify", f"127.0.0.1:{secure}/plant/agent:1", "--trust", "alice.pub"]) == 1
    check_error(capsys, f"registry 127.0.0.1:{secure}: ")


def test_authority_that_is_no_file(secure: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The variable is named, in one line, before anything is sent."""
    for name, cause in (("none.pem", "cannot read: no such file"), ("alice.pem", "no certificates in PEM")):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", name)
        assert run(["verify", f"127.0.0.1:{secure}/plant/agent:1", "--trust", "alice.pub"]) == 1
        check_error(capsys, f"registry 127.0.0.1:{secure}: REQUESTS_CA_BUNDLE: {name}: {cause}")


def test_proxy(secure: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry elsewhere is reached through HTTPS_PROXY, encrypted to the end, and by no other way."""
    reference = "registry.example/plant/agent:1"
    with run_proxy(secure) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        push_images(image(), reference)
        assert run([*PUBLISH, reference]) == 0
        assert run(["verify", reference, "--trust", "alice.pub"]) == 0
    assert set(Proxy.asked) == {"registry.example:443"}


def test_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The proxy is what to look at, and it is not asked again and again."""
    with run_proxy(status=407) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        assert run(["verify", "registry.example/plant/agent:1", "--trust", "alice.pub"]) == 1
    error = capsys.readouterr().err
    assert "registry registry.example: cannot connect to the proxy: " in error
    assert "407" in error
    assert "hint: check HTTPS_PROXY" in error


def test_proxy_is_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for docker, a registry on this machine is reached directly, also when a proxy is set."""
    with run_registry() as address, run_proxy() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy)
        _, reference = fill(address, image())
        assert run([*PUBLISH, reference]) == 0
        assert run(["verify", reference, "--trust", "alice.pub"]) == 0
    assert Proxy.asked == []


def write_helper(tmp_path: Path, address: str, script: str) -> None:
    """Write a credential helper and let docker's settings name it for the registry at *address*."""
    helper = tmp_path / "docker-credential-lab"
    helper.write_text(f"#!/bin/sh\n{script}\n")
    helper.chmod(0o755)
    (tmp_path / "docker/config.json").write_text(json.dumps({"credHelpers": {address: "lab"}}))


@pytest.mark.parametrize("script", ["echo no keychain; exit 1", "echo not json", "exit 0", "kill -9 $$"])
def test_helper_that_fails(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The line names docker's settings; nothing is sent without the login."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with faulty("basic") as address:
        write_helper(tmp_path, address, script)
        _, reference = fill(address, image())
        assert run([*PUBLISH, reference]) == 1
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    assert f"registry {address}: docker's settings give no login: a credential helper fails" in output.err
    assert f"docker login {address} again" in output.err
    assert not any(text.startswith("PUT") for text in FaultyRegistry.requests)


def test_helper_that_is_missing(tmp_path: Path, capsys: Capture) -> None:
    """Settings from another machine name a program that this one lacks."""
    with faulty("basic") as address:
        (tmp_path / "docker/config.json").write_text(json.dumps({"credsStore": "nowhere"}))
        _, reference = fill(address, image())
        assert run([*PUBLISH, reference]) == 1
    check_error(capsys, "docker's settings give no login: a credential helper fails")


def test_helper_without_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """A helper that knows no login is no failure: the registry decides."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with faulty("basic") as address:
        write_helper(tmp_path, address, "echo credentials not found in native keychain; exit 1")
        _, reference = fill(address, image())
        assert run([*PUBLISH, reference]) == 1
    check_error(capsys, "not allowed to push to base (401)")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("3600", 60), ("-1", 0), ("soon", 0), ("", 0), ("9" * 20, 0), ("Fri, 99 Nov", 0)],
)
def test_wanted_pause(text: str, seconds: float) -> None:
    """The registry's wish counts up to a minute; what is no time is none."""
    answer = Answer(status=429, headers={"Retry-After": text}, body=b"", url="")
    assert wanted_pause(answer) == seconds


def test_wanted_pause_until_a_date() -> None:
    """Retry-After may be a date, which may have passed."""
    for distance, low, high in ((20, 15, 20), (-20, 0, 0), (4000, 60, 60)):
        text = format_datetime(datetime.now(UTC) + timedelta(seconds=distance), usegmt=True)
        answer = Answer(status=429, headers={"Retry-After": text}, body=b"", url="")
        assert low <= wanted_pause(answer) <= high


def test_index_without_platforms(tmp_path: Path) -> None:
    """An index need not name the platforms of its images: their configurations do."""
    with run_registry() as address:
        images, reference = fill(address, make_programs_image({}, ["amd64", "arm64"]))
        index = json.loads(images.top.data)
        for entry in index["manifests"]:
            del entry["platform"]
        kind = images.top.media_type
        SmallRegistry.manifests["bare"] = (kind, json.dumps(index).encode())
        bare = reference.partition(":1")[0] + ":bare"
        assert run([*PUBLISH, bare]) == 0
        signed = [name for name in SmallRegistry.manifests if name.endswith(".sig")]
        assert len(signed) == 3
