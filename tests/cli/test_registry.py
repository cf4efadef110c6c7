# SPDX-License-Identifier: Apache-2.0
"""Registries without an engine: base by digest, push, passwords, and what a registry can do wrong."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
import requests
from labs.cli import BUILD, check_error
from labs.image import make_base
from labs.registry import (
    FaultyRegistry,
    SmallRegistry,
    faulty,
    fill,
    log_in,
    pushed,
    run_registry,
    run_tls,
    write_certificate,
)

from buildtool.cli.main import run
from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.errors import ObjectFormatError, RegistryError, UsageError
from buildtool.oci.artifacts import find_referrers
from buildtool.oci.read import Descriptor, read_blob
from buildtool.oci.registry import (
    Answer,
    Client,
    RegistrySession,
    describe_connection,
    open_image,
    parse_reference,
)
from buildtool.oci.write import MEDIA_INDEX
from buildtool.signing.keys import load_signing_key_pem

pytestmark = pytest.mark.usefixtures("quick_registry")


def test_base_by_digest_is_pulled_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second build sends no request to the registry."""
    with faulty("") as address:
        _, reference = fill(address)
        monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", reference)
        assert run([*BUILD]) == 0
        assert FaultyRegistry.requests
    first = Path("agent-1.2.0.oci.tar").read_bytes()
    assert run([*BUILD]) == 0
    assert Path("agent-1.2.0.oci.tar").read_bytes() == first


def test_base_by_tag_gives_a_warning(
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
    """A push writes the images of the archive. An existing blob is not sent again."""
    with faulty("") as address:
        push = [*BUILD, "--arch", "arm64", "--tag", f"{address}/agent:5", "--push", "--no-sign-image"]
        assert run(push) == 0
        first = len([item for item in FaultyRegistry.requests if item.startswith("POST")])
        # Base and trust store are of both platforms; three layers and a configuration of each.
        assert first == 10
        assert run(push) == 0
        assert len([item for item in FaultyRegistry.requests if item.startswith("POST")]) == first
        digest, _ = pushed("5")
        images = open_image(f"{address}/agent@{digest}", Cache(directory=None), lambda _: None)
        assert run(["rebuild", "--check", f"{address}/agent:5"]) == 0
        assert images.top().is_index


def test_push_signs_the_image(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key of the objects signs what was pushed; a second push finds its signatures."""
    with faulty("") as address:
        push = [*BUILD, "--arch", "arm64", "--tag", f"{address}/agent:5", "--push", "--json"]
        for _ in range(2):
            assert run(push) == 0
            built = json.loads(capsys.readouterr().out)
            assert built["signed"] is True
        digest, _ = pushed("5")
        assert len(pushed(f"{digest.replace(':', '-')}.sig")[1]["layers"]) == 1
        private = load_signing_key_pem(Path("keys/dev.pem").read_bytes(), "dev", None)
        Path("dev.pub").write_bytes(private.public.pem)
        assert run(["verify", f"{address}/agent:5", "--trust", "dev.pub"]) == 0


def test_image_that_is_pushed_but_not_signed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line says what is there already, and the hint has the command that finishes."""
    with faulty("") as address:
        assert run([*BUILD, "--tag", f"{address}/agent:5", "--push", "--no-sign-image"]) == 0
        pushing = len(FaultyRegistry.requests)
    capsys.readouterr()
    with faulty("405", after=pushing) as address:
        assert run([*BUILD, "--tag", f"{address}/agent:5", "--push"]) == 1
        digest, _ = pushed("5")
    error = capsys.readouterr().err
    assert f"error: {address}/agent:5: pushed, but not signed: registry {address}: " in error
    command = f"buildtool publish {address}/agent:5@{digest} --sbom cyclonedx --provenance"
    assert f"hint: {command} signs it" in error
    with run_registry() as again:
        assert run([*BUILD, "--tag", f"{again}/agent:5", "--push", "--no-sign-image"]) == 0
        assert pushed("5")[0] == digest
        assert run(command.replace(address, again).split()[1:]) == 0
        assert f"sha256-{digest[7:]}.att" in SmallRegistry.manifests


class Moving(SmallRegistry):
    """Lets the tag name another image as soon as it is written."""

    other: ClassVar[bytes] = b""

    def do_PUT(self) -> None:  # noqa: N802 - http.server's name
        """Store, and replace the tag behind the client's back."""
        super().do_PUT()
        if self.path.endswith("/manifests/5"):
            kind, _ = self.manifests["5"]
            digest = f"sha256:{hashlib.sha256(self.other).hexdigest()}"
            self.manifests["5"] = self.manifests[digest] = (kind, self.other)


def test_tag_that_moves_between_push_and_signature(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The image that was built is signed, and not what somebody else put under its name meanwhile."""
    base = make_base(architectures=["amd64"])
    Moving.other = base.top.data
    with run_registry(Moving) as address:
        assert run([*BUILD, "--tag", f"{address}/agent:5", "--push", "--json"]) == 0
        digest = json.loads(capsys.readouterr().out)["digest"]
        signed = {name for name in SmallRegistry.manifests if name.endswith((".sig", ".att"))}
    assert signed == {f"{digest.replace(':', '-')}.sig", f"{digest.replace(':', '-')}.att"}


def test_nothing_is_deleted(project: Path) -> None:
    """Push and signature need no right to delete, which many registries do not give."""
    with faulty("") as address:
        for _ in range(2):
            assert run([*BUILD, "--tag", f"{address}/agent:5", "--push"]) == 0
        kinds = {request.partition(" ")[0] for request in FaultyRegistry.requests}
    assert kinds == {"GET", "HEAD", "POST", "PUT"}


def test_key_of_the_image_is_opened_before_the_build(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing publish.key ends the build before anything is pushed."""
    with Path("buildtool.toml").open("a") as file:
        file.write('[publish]\nkey = "keys/none.pem"\n')
    with faulty("") as address:
        assert run([*BUILD, "--tag", f"{address}/agent:5", "--push"]) == 1
        assert not any(item.startswith("PUT") for item in FaultyRegistry.requests)
    check_error(capsys, "signing key keys/none.pem")


@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_login_of_docker_is_used(project: Path, tmp_path: Path, kind: str) -> None:
    """The login of docker is used for basic and bearer authentication."""
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
        ("cut", "the connection broke: closed early"),
        ("short", "the connection broke: closed early"),
        ("other", "the digest of the answer does not match"),
        ("endless", "the digest of the answer does not match"),
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
    """A request that fails once is repeated."""
    with faulty(fault, after=after, times=3 if fault == "short" else 1) as address:
        _, reference = fill(address)
        monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", reference)
        assert run([*BUILD]) == 0


@pytest.mark.parametrize("fault", ["401", "403", "404", "405", "429", "500", "cut"])
@pytest.mark.parametrize("after", [0, 4, 9])
def test_faults_while_pushing_leave_no_tag(
    project: Path, capsys: pytest.CaptureFixture[str], fault: str, after: int
) -> None:
    """A fault at any request of a push leaves no tag, because the tag is written last."""
    tag = f"cut-{fault}-{after}"
    with faulty(fault, after=after) as address:
        assert run([*BUILD, "--tag", f"{address}/agent:{tag}", "--push"]) == 1
    check_error(capsys, f"registry {address}")
    assert tag not in SmallRegistry.manifests


def failure(url: str, **settings: Any) -> tuple[str, str]:
    """Ask for *url* in vain and return what is said of the failure."""
    session = RegistrySession("127.0.0.1")
    with pytest.raises(requests.exceptions.RequestException) as caught:
        session.get(url, timeout=settings.pop("timeout", 5), **settings)
    session.close()
    return describe_connection(caught.value)


def closed_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_a_refused_connection_is_said_in_plain_words(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No name of a library's class, no address of an object in memory."""
    port = closed_port()
    Path("bpf/answer.bpf.c").write_text("this does not compile")  # and would be told of, later
    assert run([*BUILD, "--tag", f"127.0.0.1:{port}/agent:1", "--push"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"buildtool: error: registry 127.0.0.1:{port}: cannot connect: connection refused"
    assert hint == "buildtool: hint: check the name and the port of the registry"


def test_an_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the registry is what to look at."""

    def fail(*_: Any, **__: Any) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    problem, hint = failure("https://registry.invalid/v2/")
    assert problem == "cannot connect: unknown host"
    assert "name" in hint


def test_a_registry_that_does_not_answer() -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        problem, hint = failure(f"https://127.0.0.1:{server.getsockname()[1]}/v2/", timeout=0.2)
        assert problem == "the connection broke: timed out after 60 seconds"
        assert hint
        plain, _ = failure(f"http://127.0.0.1:{server.getsockname()[1]}/v2/", timeout=0.2)
        assert plain == problem


def test_a_registry_without_encryption() -> None:
    """Only one on this machine may be without."""
    with faulty("") as address:
        problem, hint = failure(f"https://{address}/v2/")
    assert problem == "cannot connect: no TLS"
    assert "encryption" in hint


@pytest.mark.parametrize(
    ("name", "days", "problem", "hint"),
    [
        ("127.0.0.1", (-1, 1), "not signed by a trusted authority", "REQUESTS_CA_BUNDLE"),
        ("127.0.0.1", (-2, -1), "expired", "renew"),
        ("127.0.0.1", (1, 2), "not valid yet", "clock"),
        ("127.0.0.2", (-1, 1), "of another IP address", "name the registry as its certificate does"),
    ],
)
def test_certificates(tmp_path: Path, name: str, days: tuple[int, int], problem: str, hint: str) -> None:
    """What is wrong with a certificate is said in one word or two, with what mends it."""
    authority = write_certificate(tmp_path / "server.pem", name, days)
    verify = False if problem.startswith("not signed") else str(authority)
    with run_tls(tmp_path / "server.pem") as port:
        url = f"https://127.0.0.1:{port}/v2/"
        found, advice = failure(url) if verify is False else failure(url, verify=verify)
    assert found == f"cannot connect: the certificate is {problem}"
    assert hint in advice


def test_a_proxy_that_does_not_answer() -> None:
    """The proxy is what to look at, not the registry."""
    proxies = {"https": f"http://127.0.0.1:{closed_port()}"}
    problem, hint = failure("https://registry.invalid/v2/", proxies=proxies)
    assert problem == "cannot connect to the proxy: connection refused"
    assert "HTTPS_PROXY" in hint


@pytest.mark.parametrize("url", ["https://[::1/v2/", "ftp://127.0.0.1/v2/", "https:///v2/"])
def test_an_address_that_is_none(url: str) -> None:
    """A registry may redirect to anything."""
    session = requests.Session()
    with pytest.raises(requests.exceptions.RequestException) as caught:
        session.get(url)
    assert describe_connection(caught.value)[0] == "an address that is none"


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


@pytest.mark.parametrize("text", ["agent", "plant/agent:1", "library/x@sha256:" + "0" * 64])
def test_reference_needs_a_registry(text: str) -> None:
    """Nothing is sent to a registry that was not named."""
    with pytest.raises(UsageError, match="names no registry"):
        parse_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "docker://localhost:1/x:1",
        "https://localhost:1/x:1",
        "localhost:1/x/:1",
        "localhost:1//x:1",
        "localhost:1/X:1",
        "localhost:1/x@sha256:123",
        "localhost:1/x@sha512:123",
        "localhost:1/x:1:2",
        "localhost:1/x:",
        "localhost:1/",
        "localhost:1/x?y",
    ],
)
def test_what_is_no_reference_reaches_no_registry(text: str) -> None:
    """Some registries answer for such names, and a signature would name a repository that no tool accepts."""
    with pytest.raises(UsageError, match="is not an image reference"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("host", "base"),
    [("registry.example", "https://"), ("10.0.0.1:5000", "https://"), ("127.0.0.1:1", "http://")],
)
def test_only_this_machine_may_lack_encryption(host: str, base: str) -> None:
    """A registry on another machine receives no request without TLS."""
    client = Client(reference=parse_reference(f"{host}/x:1"), actions="pull")
    client.connect()
    assert client.base == base + host


def test_registry_elsewhere_sends_nobody_to_this_machine() -> None:
    """Plain HTTP to this machine is for registries on this machine, not for one that redirects there."""
    request = requests.Request("GET", "http://127.0.0.1:9/v2/").prepare()
    with pytest.raises(RegistryError, match="without encryption"):
        RegistrySession("registry.example").send(request)
    with pytest.raises(requests.exceptions.ConnectionError):
        RegistrySession("127.0.0.1:9").send(request)


def test_type_that_is_no_image_is_not_kept(tmp_path: Path) -> None:
    """A registry may name any type beside the right bytes, and the next one is asked again."""
    cache = Cache(directory=tmp_path / "cache")
    with faulty("") as address:
        images, reference = fill(address)
        name = f"sha256:{images.top.digest}"
        kind, data = SmallRegistry.manifests[name]
        SmallRegistry.manifests[name] = ("application/x-evil", data)
        open_image(reference, cache)
        SmallRegistry.manifests[name] = (kind, data)
        assert open_image(reference, cache).top().media_type == kind


def test_link_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of referrers that goes on at no address is one error."""
    client = Client(reference=parse_reference("127.0.0.1:9/x:1"), actions="pull")
    headers = {"Content-Type": MEDIA_INDEX, "Link": '<https://[>; rel="next"'}
    answer = Answer(status=200, headers=headers, body=b'{"manifests": []}', url="http://127.0.0.1:9/v2/")
    monkeypatch.setattr(Client, "request", lambda *_, **__: answer)
    with pytest.raises(RegistryError, match="Link header"):
        list(find_referrers(client, Digest("0" * 64), "x"))
