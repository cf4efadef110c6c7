# SPDX-License-Identifier: Apache-2.0
"""Registries without an engine: base by digest, push, passwords, and what a registry can do wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from labs.cli import BUILD, check_error
from labs.registry import FaultyRegistry, SmallRegistry, faulty, fill, log_in, pushed

from buildtool.cli.main import run
from buildtool.core.cache import Cache
from buildtool.core.errors import ObjectFormatError, UsageError
from buildtool.oci.read import Descriptor, read_blob
from buildtool.oci.registry import Client, open_image, parse_reference

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
    """A push writes the images of the archive. An existing blob is not sent again."""
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
        ("cut", "the connection broke"),
        ("short", "the connection broke"),
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


@pytest.mark.parametrize("fault", ["401", "403", "404", "500", "cut"])
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
    ("host", "base"),
    [("registry.example", "https://"), ("10.0.0.1:5000", "https://"), ("127.0.0.1:1", "http://")],
)
def test_only_this_machine_may_lack_encryption(host: str, base: str) -> None:
    """A registry on another machine receives no request without TLS."""
    client = Client(reference=parse_reference(f"{host}/x:1"), actions="pull")
    client.connect()
    assert client.base == base + host
