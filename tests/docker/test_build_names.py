# SPDX-License-Identifier: Apache-2.0
"""Names, labels, annotations, metadata and caches: both engines write the same to a real registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.engine import REPOSITORY, docker, inspect, remove_images
from labs.peers import distribution_registry
from labs.project import Project, make_project

ARCHITECTURES = ("--platform", "linux/amd64,linux/arm64/v8")
GIVEN = (
    *("--label", 'org.example.text=hall "B" $HOME'),
    *("--label", "org.example.team=another"),
    *("--annotation", "org.example.all=1"),
    *("--annotation", "manifest[linux/arm64]:org.example.all=2"),
    *("--annotation", "index:org.example.index=3"),
    *("--annotation", "manifest-descriptor:org.example.entry=4"),
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run Debian's registry."""
    with distribution_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Project:
    """Make the project that all tests push."""
    assert prepared_images
    return make_project(tmp_path_factory.mktemp("names") / "lab")


def fetch(reference: str) -> dict[str, Any]:
    """Return the document of *reference*, as it is in the registry."""
    found: dict[str, Any] = json.loads(docker("buildx", "imagetools", "inspect", "--raw", reference))
    return found


@pytest.mark.parametrize("maker", ["docker", "local"])
def test_both_engines_write_the_same(maker: str, project: Project, registry: str, tmp_path: Path) -> None:
    """The registry has both names, the annotations in their places, and each platform's labels."""
    names = [f"{registry}/{maker}/agent:7", f"{registry}/{maker}/copy:latest"]
    tags = [word for name in names for word in ("--tag", name)]
    meta = tmp_path / "meta.json"
    built = project.build(
        *ARCHITECTURES, "--engine", maker, *tags, *GIVEN, "--push", "--metadata-file", str(meta)
    )
    assert built["tags"] == names
    assert built["signed"] is True
    metadata = json.loads(meta.read_text())
    assert metadata["containerimage.digest"] == built["digest"]
    assert metadata["containerimage.descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert metadata["image.name"] == ",".join(names)
    index = fetch(names[1])
    assert index == fetch(f"{names[0].rpartition(':')[0]}@{built['digest']}")
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert index["annotations"] == {"org.example.index": "3"}
    assert [entry["annotations"] for entry in index["manifests"]] == [{"org.example.entry": "4"}] * 2
    for entry, value in zip(index["manifests"], ("1", "2"), strict=True):
        manifest = fetch(f"{registry}/{maker}/agent@{entry['digest']}")
        assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
        assert manifest["annotations"] == {"org.example.all": value}
        labels = fetch_config(f"{registry}/{maker}/agent@{entry['digest']}")["Labels"]
        assert labels["org.example.text"] == 'hall "B" $HOME'
        assert labels["org.example.team"] == "another"
        assert labels["buildtool.object-version"] == "3"
    for name in names:
        assert project.run("verify", name, "--trust", "keys/dev.pub").code == 0


def fetch_config(reference: str) -> dict[str, Any]:
    """Return the settings in the configuration of the image of *reference*."""
    command = ("buildx", "imagetools", "inspect", "--format", "{{json .Image}}", reference)
    found: dict[str, Any] = json.loads(docker(*command))
    return next(iter(found.values()))["config"] if "config" not in found else found["config"]


def test_configurations_are_equal(project: Project, registry: str) -> None:
    """All labels of both engines' images are the same, and so is the rest of the configuration."""
    found = []
    for engine in ("docker", "local"):
        name = f"{registry}/same/{engine}:1"
        project.build("--arch", "amd64", "--engine", engine, "--tag", name, *GIVEN[:4], "--push")
        found.append(fetch_config(name))
    found[1]["Labels"] |= {  # the engine's base is an image with a name, the embedded one a layer
        key: found[0]["Labels"][key] for key in found[0]["Labels"] if ".base." in key
    }
    assert found[0] == found[1]


def test_one_platform_has_the_types_of_oci(project: Project, registry: str) -> None:
    """Docker's own builder would write the media types of Docker."""
    name = f"{registry}/types/agent:1"
    project.build("--arch", "amd64", "--tag", name, "--push")
    manifest = fetch(name)
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert {layer["mediaType"] for layer in manifest["layers"]} == {
        "application/vnd.oci.image.layer.v1.tar+gzip"
    }


def test_caches_of_a_registry_and_a_directory(project: Project, registry: str, tmp_path: Path) -> None:
    """A build fills both caches; another one, with the first one's cache alone, names it as its source."""
    reference, place = f"{registry}/cache/agent:1", tmp_path / "cache"
    stores = (
        "--cache-to",
        f"type=registry,ref={reference},mode=max",
        "--cache-to",
        f"type=local,dest={place}",
    )
    target = ("--arch", "amd64", "--tag", f"{registry}/cached/agent:1", "--push", "--no-sign-image")
    project.build(*target, *stores)
    assert fetch(reference)["layers"]
    assert (place / "index.json").is_file()
    done = project.run(
        "build",
        *target,
        "--cache-from",
        f"type=registry,ref={reference}",
        "--cache-from",
        f"type=local,src={place}",
    )
    assert done.code == 0, done.stderr
    assert f"importing cache manifest from {reference}" in done.stderr
    assert "importing cache manifest from local" in done.stderr


def test_cache_that_is_missing_ends_no_build(project: Project, registry: str) -> None:
    """The first build of a pipeline finds an empty cache."""
    source = ("--cache-from", f"type=registry,ref={registry}/none/agent:1")
    target = ("--arch", "amd64", "--tag", f"{registry}/first/agent:1", "--push", "--no-sign-image")
    assert project.run("build", *target, *source).code == 0


@pytest.mark.parametrize("maker", ["docker", "local"])
def test_names_in_the_engine(maker: str, project: Project) -> None:
    """Both names are those of one image in the engine's store, which takes labels and annotations."""
    names = [f"{REPOSITORY}/names-{maker}:{tag}" for tag in ("1", "latest")]
    tags = [word for name in names for word in ("--tag", name)]
    try:
        options = (*tags, *GIVEN[:6], "--engine", maker, "--output", "type=docker")
        built = project.build("--arch", "amd64", *options)
        assert built["tags"] == names
        found = [inspect(name) for name in names]
        assert found[0]["Id"] == found[1]["Id"]
        assert found[0]["Config"]["Labels"]["org.example.text"] == 'hall "B" $HOME'
    finally:
        remove_images(f"{REPOSITORY}/names-{maker}")
