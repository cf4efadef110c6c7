# SPDX-License-Identifier: Apache-2.0
"""Passwords and tokens are sent only to their registry and only encrypted, even after redirects."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from labs.image import make_base
from labs.registry import LOGIN, FaultyRegistry, faulty, fill, log_in, run_registry

from buildtool.core.cache import Cache
from buildtool.core.errors import RegistryError
from buildtool.oci.registry import Client, find_origin, open_image, parse_reference, push_images

pytestmark = pytest.mark.usefixtures("quick_registry")


def test_password_goes_nowhere_else(tmp_path: Path) -> None:
    """A realm without encryption on another machine gets no password, and the push ends there."""

    class Asking(FaultyRegistry):
        def _allows(self, authorization: str) -> bool:
            self._body()
            self._answer(401, WWW_Authenticate='Bearer realm="http://auth.example/token"')
            return False

    Asking.fault = "bearer"
    with run_registry(Asking) as address:
        log_in(tmp_path, address)
        with pytest.raises(RegistryError, match="without encryption"):
            push_images(make_base(), f"{address}/x:1")


class Elsewhere(FaultyRegistry):
    """Redirects requests for the paths in *moved* to *target*, a URL to which the path is added."""

    moved: ClassVar[str] = ""
    target: ClassVar[str] = ""
    requests: ClassVar[list[str]] = []
    authorizations: ClassVar[list[str]] = []

    def parse_request(self) -> bool:
        """Answer with a redirect, or with a place to upload to."""
        if not super().parse_request():
            return False
        if self.moved not in f"{self.command} {self.path}":
            return True
        self._body()
        self._answer(202 if self.command == "POST" else 307, Location=self.target + self.path)
        return False


@contextmanager
def moving(moved: str, target: str) -> Iterator[str]:
    """Run a registry that has *moved* to *target*; give its address."""
    Elsewhere.moved, Elsewhere.target, Elsewhere.fault = moved, target, ""
    Elsewhere.requests.clear()
    Elsewhere.authorizations.clear()
    with run_registry(Elsewhere) as address:
        yield address


def test_passwords_of_netrc_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what `docker login` keeps is shown to a registry, and to whom it redirects."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password mine\ndefault login me password mine\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with faulty("") as address, moving("GET /v2/base/manifests", f"http://{address}") as other:
        _, reference = fill(address)
        open_image(reference.replace(address, other), Cache(directory=None), lambda _: None)
        assert Elsewhere.requests
        assert FaultyRegistry.requests
        assert not any(FaultyRegistry.authorizations + Elsewhere.authorizations)


@pytest.mark.parametrize("moved", ["GET /v2/x/manifests", "HEAD /v2/x/blobs", "POST /v2/x/blobs/uploads"])
def test_no_step_down_to_plain_http(moved: str) -> None:
    """A redirect to plain HTTP, for a manifest, a blob or an upload, is refused before anything is sent."""

    def call(address: str) -> None:
        if "manifests" in moved:
            open_image(f"{address}/x:1", Cache(directory=None), lambda _: None)
        else:
            push_images(make_base(), f"{address}/x:1")

    with moving(moved, "http://registry.example") as address, pytest.raises(RegistryError) as caught:
        call(address)
    assert caught.value.message == (f"registry {address}: redirect to 'registry.example' without encryption")


def test_token_is_for_the_encrypted_registry_alone() -> None:
    """A place to upload to at the same host, but by plain HTTP, does not get it."""
    with faulty("") as address:
        client = Client(reference=parse_reference(f"{address}/x:1"), actions="push")
        client.connect()
        client.base, client.token = f"https://{address}", "Bearer let-me-in"
        client._send("GET", f"http://{address}/v2/", 100)
        assert FaultyRegistry.authorizations[-1] == ""
        client.base = f"http://{address}"
        client._send("GET", f"http://{address}/v2/", 100)
        assert FaultyRegistry.authorizations[-1] == "Bearer let-me-in"


def test_token_does_not_follow_a_redirect() -> None:
    """Another server, to which the registry redirects, does not get it."""
    with faulty("") as address, moving("/v2/x/", f"http://{address}") as other:
        client = Client(reference=parse_reference(f"{other}/x:1"), actions="pull")
        client.connect()
        client.token = "Bearer let-me-in"
        client._send("GET", f"http://{other}/v2/x/manifests/1", 100)
        assert Elsewhere.authorizations == ["Bearer let-me-in"]
        assert FaultyRegistry.authorizations[-1] == ""


def test_only_the_registry_may_ask_for_the_password(tmp_path: Path) -> None:
    """A server that answers 401 after a redirect receives no password, whatever realm it names."""
    with faulty("bearer") as thief, moving("GET /v2/x/manifests", f"http://{thief}") as address:
        log_in(tmp_path, address)
        with pytest.raises(RegistryError, match=r"not allowed to pull x \(401\)"):
            open_image(f"{address}/x:1", Cache(directory=None), lambda _: None)
        assert FaultyRegistry.requests
        assert not any(FaultyRegistry.authorizations)


def test_helper_that_keeps_passwords_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential helper of `docker login` is started without key and passphrase in its environment."""
    helper, seen = tmp_path / "docker-credential-lab", tmp_path / "seen"
    answer = json.dumps({"Username": LOGIN[0], "Secret": LOGIN[1]})
    helper.write_text(f"#!/bin/sh\nenv >{seen}\necho '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("BUILDTOOL_KEY_PASSPHRASE", "correct horse")
    monkeypatch.setenv("ANY_NAME", "-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----\n")
    with faulty("bearer") as address:
        (tmp_path / "docker/config.json").write_text(json.dumps({"credHelpers": {address: "lab"}}))
        push_images(make_base(), f"{address}/x:1")
    assert "ANY_NAME=\n" in seen.read_text()
    assert "horse" not in seen.read_text()
    assert "PRIVATE KEY" not in seen.read_text()


@pytest.mark.parametrize(
    "place",
    ["http://[", "https://x:99999/", "ftp://x/y", "//[", "https://", "http://x y/", "\x7f", "https://a..b/x"],
)
def test_a_place_that_is_none(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid Location for an upload or a redirect results in one kind of error."""
    monkeypatch.setattr(Elsewhere, "parse_request", _name_place(place))
    with moving("POST", "") as address, pytest.raises(RegistryError):
        push_images(make_base(), f"{address}/x:1")


def _name_place(place: str) -> Callable[[Elsewhere], bool]:
    def parse_request(self: Elsewhere) -> bool:
        if not FaultyRegistry.parse_request(self):
            return False
        if self.command != "POST":
            return True
        self._body()
        self._answer(202, Location=place)
        return False

    return parse_request


def test_servers_are_told_apart() -> None:
    """Scheme, host and port identify a server. Capital letters and a default port make no difference."""
    same = {"https://a.example/x", "https://A.example:443/y", "https://user@a.example/"}
    assert len({find_origin(url) for url in same}) == 1
    others = {
        "http://a.example/",
        "https://a.example:8443/",
        "https://b.example/",
        "https://a.example.b/",
        "https://[",
    }
    assert not {find_origin(url) for url in same} & {find_origin(url) for url in others}
    assert find_origin("https://[") != find_origin("https://")
