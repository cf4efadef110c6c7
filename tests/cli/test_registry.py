# SPDX-License-Identifier: Apache-2.0
"""Registries without an engine: base by digest, push, passwords, and what a registry can do wrong."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from local_samples import make_base, make_local_project
from small_registry import SmallRegistry, pushed, run_registry

from buildtool import registry as registries
from buildtool.cache import Cache
from buildtool.cli.main import run
from buildtool.errors import ObjectFormatError, RegistryError, UsageError
from buildtool.ociread import Descriptor, read_blob
from buildtool.ociwrite import ImageSet, layer_bytes
from buildtool.registry import Client, open_image, parse_reference, push_images
from buildtool.registryhttp import find_origin

BUILD = ("build", "--engine", "local", "--arch", "amd64")
LOGIN = ("robot", "secret:with:colons")


class FaultyRegistry(SmallRegistry):
    """Does wrong what *fault* says, from request number *after* on; remembers what it was asked."""

    fault: ClassVar[str] = ""
    after: ClassVar[int] = 0
    times: ClassVar[int] = 10**6
    requests: ClassVar[list[str]] = []
    authorizations: ClassVar[list[str]] = []

    def parse_request(self) -> bool:
        """Read a request, and break the connection or answer at once when that is the fault."""
        if not super().parse_request():
            return False
        cls = type(self)
        number = len(cls.requests)
        cls.requests.append(f"{self.command} {self.path}")
        authorization = self.headers.get("Authorization", "")
        cls.authorizations.append(authorization)
        if self.path.startswith("/token"):
            right = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
            body = json.dumps({"token": "let-me-in"}).encode() if authorization == right else b"{}"
            self._answer(200 if authorization == right else 401, body)
            return False
        if cls.fault in ("bearer", "basic") and not self._allows(authorization):
            return False
        if not cls.after <= number < cls.after + cls.times:
            return True
        return self._misbehave()

    def _allows(self, authorization: str) -> bool:
        host = self.headers["Host"]
        challenge = f'Bearer realm="http://{host}/token",service="lab"' if self.fault == "bearer" else "Basic"
        if authorization == "Bearer let-me-in" or (
            self.fault == "basic" and authorization.startswith("Basic ")
        ):
            return True
        self._body()
        self._answer(401, WWW_Authenticate=challenge)
        return False

    def _misbehave(self) -> bool:
        if self.fault.isdigit():
            self._body()
            self._answer(int(self.fault), b'{"errors": [{"message": "no\\nroom"}]}')
            return False
        if self.fault == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return False
        if self.fault == "short" and "/blobs/sha256" in self.path and self.command == "GET":
            data = self.blobs[self.path.rpartition("/")[2]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:10])
            self.close_connection = True
            return False
        if self.fault in ("other", "endless") and self.command == "GET" and self.path != "/v2/":
            self._answer(200, b"x" * (10 if self.fault == "other" else 30_000_000), Content_Type="text/plain")
            return False
        return True


@contextmanager
def faulty(fault: str, *, after: int = 0, times: int = 10**6) -> Iterator[str]:
    """Run a registry with *fault*; give its address."""
    FaultyRegistry.fault, FaultyRegistry.after, FaultyRegistry.times = fault, after, times
    FaultyRegistry.requests.clear()
    FaultyRegistry.authorizations.clear()
    with run_registry(FaultyRegistry) as address:
        yield address


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registries, "PAUSE_SECONDS", 0.01)
    (tmp_path / "docker").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def fill(address: str) -> tuple[ImageSet, str]:
    """Put a base into the registry and return it with its reference by digest."""
    images = make_base()
    for digest, data in images.blobs().items():
        stored = data if isinstance(data, bytes) else layer_bytes(data)
        SmallRegistry.blobs[f"sha256:{digest}"] = stored
    for document in (*images.manifests, images.top):
        SmallRegistry.manifests[f"sha256:{document.digest}"] = (document.media_type, document.data)
    SmallRegistry.manifests["1"] = (images.top.media_type, images.top.data)
    return images, f"{address}/base:1@sha256:{images.top.digest}"


def log_in(tmp_path: Path, address: str) -> None:
    """Write what `docker login` writes."""
    auth = base64.b64encode(":".join(LOGIN).encode()).decode()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))


def check_error(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Check that the one line of the error says *text*."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("buildtool: error:")]
    assert len(lines) == 1
    assert text in lines[0]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path) -> Path:
    """Make a project that needs no engine."""
    assert clang
    return make_local_project(tmp_path, monkeypatch)


def test_base_by_digest_is_pulled_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second build asks the registry nothing, not even whether it is there."""
    with faulty("") as address:
        _, reference = fill(address)
        monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", reference)
        assert run([*BUILD]) == 0
        assert FaultyRegistry.requests
    first = Path("agent-1.2.0.oci.tar").read_bytes()
    assert run([*BUILD]) == 0
    assert Path("agent-1.2.0.oci.tar").read_bytes() == first


def test_base_by_tag_is_warned_of(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names the digest to write down."""
    with faulty("") as address:
        images, _ = fill(address)
        monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", f"{address}/base:1")
        assert run([*BUILD]) == 0
    (record,) = caplog.records
    assert (
        f"has no digest, so it may be another one tomorrow: add @sha256:{images.top.digest}" in record.message
    )


def test_push_and_pull_back(project: Path, tmp_path: Path) -> None:
    """What was pushed is what the archive holds; a blob that is there is not sent again."""
    with faulty("") as address:
        assert run([*BUILD, "--arch", "arm64", "--tag", f"{address}/agent:5", "--push"]) == 0
        first = len([item for item in FaultyRegistry.requests if item.startswith("POST")])
        # Base and trust store are of both platforms; three layers and a configuration of each.
        assert first == 10
        assert run([*BUILD, "--arch", "arm64", "--tag", f"{address}/agent:5", "--push"]) == 0
        assert len([item for item in FaultyRegistry.requests if item.startswith("POST")]) == first
        digest, _ = pushed("5")
        images = open_image(f"{address}/agent@{digest}", Cache(directory=None), lambda _: None)
        assert run(["rebuild", "--check", f"{address}/agent:5"]) == 0
        assert images.top().is_index


@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_login_of_docker_is_used(project: Path, tmp_path: Path, kind: str) -> None:
    """A registry that wants a password gets it, whichever way it asks."""
    with faulty(kind) as address:
        log_in(tmp_path, address)
        assert run([*BUILD, "--tag", f"{address}/agent:6", "--push"]) == 0
        assert pushed("6")
        assert any(text for text in FaultyRegistry.authorizations)


@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_without_a_login_the_hint_says_how(
    project: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """401 is one line, and names docker login."""
    with faulty(kind) as address:
        assert run([*BUILD, "--tag", f"{address}/agent:6", "--push"]) == 1
    error = capsys.readouterr().err
    assert "not allowed to push to agent (401)" in error
    assert f"hint: docker login {address}" in error


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("401", "not allowed to pull base (401)"),
        ("403", "not allowed to pull base (403)"),
        ("404", "not found (404)"),
        ("429", "the registry answers 429: noroom"),
        ("500", "the registry answers 500"),
        ("cut", "the connection broke"),
        ("short", "the connection broke"),
        ("other", "the answer is another image"),
        ("endless", "the answer is another image"),
    ],
)
def test_faults_while_pulling(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    text: str,
) -> None:
    """Each is one line that names the registry; nothing is built."""
    with faulty(fault) as address:
        _, reference = fill(address)
        monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", reference)
        assert run([*BUILD]) == 1
    check_error(capsys, text)
    assert not Path("agent-1.2.0.oci.tar").exists()


@pytest.mark.parametrize(("fault", "after"), [("500", 0), ("cut", 0), ("500", 2), ("cut", 3), ("short", 0)])
def test_a_fault_that_passes_is_no_fault(
    project: Path, monkeypatch: pytest.MonkeyPatch, fault: str, after: int
) -> None:
    """What fails once is tried again."""
    with faulty(fault, after=after, times=3 if fault == "short" else 1) as address:
        _, reference = fill(address)
        monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", reference)
        assert run([*BUILD]) == 0


@pytest.mark.parametrize("fault", ["401", "403", "404", "500", "cut"])
@pytest.mark.parametrize("after", [0, 4, 9])
def test_faults_while_pushing_leave_no_tag(
    project: Path, capsys: pytest.CaptureFixture[str], fault: str, after: int
) -> None:
    """Whenever the registry goes wrong, the tag is not there: it is written last."""
    tag = f"cut-{fault}-{after}"
    with faulty(fault, after=after) as address:
        assert run([*BUILD, "--tag", f"{address}/agent:{tag}", "--push"]) == 1
    check_error(capsys, f"registry {address}")
    assert tag not in SmallRegistry.manifests


def test_blob_that_is_not_its_digest_is_not_kept(tmp_path: Path) -> None:
    """A registry cannot put other bytes into the cache."""
    cache = Cache(directory=tmp_path / "cache")
    with faulty("") as address:
        images, reference = fill(address)
        layer = images.layers[0]
        SmallRegistry.blobs[f"sha256:{layer.digest}"] = b"x" * layer.size
        source = open_image(reference, cache, lambda _: None)
        with pytest.raises(ObjectFormatError, match="has other contents"):
            read_blob(source, Descriptor(media_type="x.tar", digest=layer.digest, size=layer.size))
    assert cache.read("blobs", layer.digest) is None


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


@pytest.mark.parametrize("text", ["agent", "plant/agent:1", "library/x@sha256:" + "0" * 64])
def test_reference_needs_a_registry(text: str) -> None:
    """Nothing is sent to a registry that was not named."""
    with pytest.raises(UsageError, match="in which registry"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("host", "base"),
    [("registry.example", "https://"), ("10.0.0.1:5000", "https://"), ("127.0.0.1:1", "http://")],
)
def test_only_this_machine_may_lack_encryption(host: str, base: str) -> None:
    """Another machine is asked with TLS or not at all."""
    client = Client(reference=parse_reference(f"{host}/x:1"), actions="pull")
    client.connect()
    assert client.base == base + host


class Elsewhere(FaultyRegistry):
    """Sends whoever asks for what *moved* names to *target* (a URL, which gets the path)."""

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
    """Where a registry sends us, for a manifest, a blob or an upload, must be encrypted: nothing is sent."""

    def call(address: str) -> None:
        if "manifests" in moved:
            open_image(f"{address}/x:1", Cache(directory=None), lambda _: None)
        else:
            push_images(make_base(), f"{address}/x:1")

    with moving(moved, "http://registry.example") as address, pytest.raises(RegistryError) as caught:
        call(address)
    assert caught.value.message == (
        f"registry {address}: it sends us to 'registry.example' without encryption"
    )


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


def test_only_the_registry_may_ask_for_the_password(tmp_path: Path) -> None:
    """Who answers 401 after a redirect is told nothing, whatever realm it names."""
    with faulty("bearer") as thief, moving("GET /v2/x/manifests", f"http://{thief}") as address:
        log_in(tmp_path, address)
        with pytest.raises(RegistryError, match=r"not allowed to pull x \(401\)"):
            open_image(f"{address}/x:1", Cache(directory=None), lambda _: None)
        assert FaultyRegistry.requests
        assert not any(FaultyRegistry.authorizations)


def test_helper_that_keeps_passwords_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker login` may leave passwords to a program: it is asked, and sees neither key nor passphrase."""
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
    """What a registry names as the place to upload to, or to go on to, may be anything: one kind of error."""
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
    """By scheme, host and port; a host in capitals is the same, and a usual port need not be said."""
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
