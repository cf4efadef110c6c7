# SPDX-License-Identifier: Apache-2.0
"""Signatures of pushed images, read by cosign and skopeo from a real registry, and by `buildtool verify`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.engine import docker
from labs.peers import distribution_registry, run_program, run_skopeo, unpack
from labs.project import Project, make_project

ARCHITECTURES = ("--arch", "amd64", "--arch", "arm64")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run Debian's registry."""
    with distribution_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Project:
    """Make the project that all tests push."""
    assert prepared_images
    return make_project(tmp_path_factory.mktemp("publish") / "lab")


@pytest.fixture(scope="module", params=["docker", "local"])
def pushed(request: pytest.FixtureRequest, project: Project, registry: str) -> tuple[str, dict[str, Any]]:
    """Build with each engine, push and sign; return the tag, and what `build --json` says."""
    tag = f"{registry}/plant/{request.param}:1"
    engine = ["--engine", "local"] if request.param == "local" else []
    return tag, project.build(*ARCHITECTURES, *engine, "--tag", tag, "--push")


@pytest.fixture(scope="module")
def other_key(project: Project) -> Path:
    """Return a public key that signed nothing."""
    assert project.run("keygen", "other").code == 0
    return project.root / "keys/other.pub"


def cosign(suite: str, home: Path, *arguments: str | Path) -> tuple[int, str]:
    """Run cosign's verify of *suite* without its transparency log; return exit code and output."""
    program = unpack(suite, ["cosign"]) / "usr/bin/cosign"
    done = run_program([program, "verify", "--insecure-ignore-tlog=true", *arguments], home)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_cosign_verifies(
    suite: str, pushed: tuple[str, dict[str, Any]], project: Project, other_key: Path, tmp_path: Path
) -> None:
    """By tag, by digest and for each platform; not by another key. 2.5 reads payloads, 3 bundles."""
    tag, built = pushed
    name = tag.rpartition(":")[0]
    key = project.root / "keys/dev.pub"
    for reference in (tag, f"{name}@{built['digest']}", *platforms(name, built["digest"])):
        code, text = cosign(suite, tmp_path, "--key", key, reference)
        assert code == 0, text
        assert "The signatures were verified against the specified public key" in text
    code, text = cosign(suite, tmp_path, "--key", other_key, tag)
    assert code != 0, text


# cosign's policy in CUE: what the provenance says of this project.
POLICY = """\
predicateType: "https://slsa.dev/provenance/v1"
predicate: buildDefinition: {
	buildType: "urn:buildtool:image:v1"
	externalParameters: {project: "lab", release: "%s"}
}
"""


@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_cosign_verifies_attestations(
    suite: str, pushed: tuple[str, dict[str, Any]], project: Project, other_key: Path, tmp_path: Path
) -> None:
    """Bill of materials and provenance are attached by default; a policy looks into the provenance."""
    tag, _ = pushed
    program = unpack(suite, ["cosign"]) / "usr/bin/cosign"
    key = project.root / "keys/dev.pub"
    command = [program, "verify-attestation", "--insecure-ignore-tlog=true"]
    for kind in ("cyclonedx", "slsaprovenance1"):
        done = run_program([*command, "--type", kind, "--key", key, tag], tmp_path)
        assert done.returncode == 0, done.stderr
        done = run_program([*command, "--type", kind, "--key", other_key, tag], tmp_path)
        assert done.returncode != 0
    for release, accepted in (("1.2.0", True), ("9.9.9", False)):
        policy = tmp_path / "policy.cue"
        policy.write_text(POLICY % release)
        more = ["--type", "slsaprovenance1", "--policy", policy, "--key", key, tag]
        done = run_program([*command, *more], tmp_path)
        assert (done.returncode == 0) is accepted, done.stderr


def platforms(name: str, digest: str) -> list[str]:
    """Return the references of the images in the index."""
    index = json.loads(docker("buildx", "imagetools", "inspect", "--raw", f"{name}@{digest}"))
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    return [f"{name}@{entry['digest']}" for entry in index["manifests"]]


def copy(home: Path, registry: str, key: Path, reference: str, *, whole: bool) -> str:
    """Copy the image under a policy that requires a signature of *key*; return the error, or nothing."""
    requirement = {
        "type": "sigstoreSigned",
        "keyPath": str(key),
        "signedIdentity": {"type": "matchRepository"},
    }
    policy = {"default": [{"type": "reject"}], "transports": {"docker": {registry: [requirement]}}}
    (home / "policy.json").write_text(json.dumps(policy))
    (home / "registries.d").mkdir(exist_ok=True)
    settings = f"docker:\n  {registry}:\n    use-sigstore-attachments: true\n"
    (home / "registries.d/lab.yaml").write_text(settings)
    done = run_skopeo(
        home,
        *("--policy", home / "policy.json", "--registries.d", home / "registries.d", "copy"),
        *(["--all"] if whole else []),
        *("--src-tls-verify=false", f"docker://{reference}", f"dir:{home / 'copy'}"),
    )
    return done.stderr if done.returncode else ""


def test_policy_of_skopeo_and_podman(
    pushed: tuple[str, dict[str, Any]], registry: str, project: Project, other_key: Path, tmp_path: Path
) -> None:
    """One platform and all of them pass the policy; another key does not, nor an image without signatures."""
    tag, _ = pushed
    key = project.root / "keys/dev.pub"
    assert copy(tmp_path, registry, key, tag, whole=False) == ""
    assert copy(tmp_path, registry, key, tag, whole=True) == ""
    assert "cryptographic signature verification failed" in copy(
        tmp_path, registry, other_key, tag, whole=False
    )
    bare = tag.replace("plant", "bare")
    project.build(*ARCHITECTURES, "--engine", "local", "--tag", bare, "--push", "--no-sign-image")
    assert "signature" in copy(tmp_path, registry, key, bare, whole=False)


def test_buildtool_verifies(
    pushed: tuple[str, dict[str, Any]], project: Project, other_key: Path, tmp_path: Path
) -> None:
    """The image and its objects, for both platforms; the build says that it signed."""
    tag, built = pushed
    assert built["signed"] is True
    done = project.run("verify", tag, "--trust", "keys/dev.pub", "--json", BUILDTOOL_CACHE=str(tmp_path))
    assert done.code == 0, done.stderr
    lines = json.loads(done.stdout)
    assert lines[0]["digest"] == built["digest"]
    assert {line["decision"] for line in lines} == {"accepted"}
    assert {line["platform"] for line in lines[1:]} == {"linux/amd64", "linux/arm64"}
    refused = project.run("verify", tag, "--trust", str(other_key), BUILDTOOL_CACHE=str(tmp_path))
    assert refused.code == 3
    assert "refused: unknown-key" in refused.stdout
