# SPDX-License-Identifier: Apache-2.0
"""`buildtool build` on a real engine: the contents of the image, and the same image by every way."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.engine import REPOSITORY, docker, has_image, inspect, read_files, read_objects, remove_images
from labs.image import read_image
from labs.project import Project, make_project
from labs.registry import pushed, run_registry

TAG = f"{REPOSITORY}/lab:amd64"
FORBIDDEN = re.compile(r"/(ba|da|z|c)?sh$|/python[0-9.]*$|/(apt|apt-get|dpkg|busybox|perl)$|\.py$")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Iterator[Project]:
    """Yield a project to build; afterwards remove the images of these tests."""
    assert prepared_images
    yield make_project(tmp_path_factory.mktemp("lab"))
    remove_images(TAG.partition(":")[0])


@pytest.fixture(scope="module")
def image(project: Project) -> dict[str, Any]:
    """Build the project for amd64 once."""
    return project.build("--arch", "amd64", "--tag", TAG, "--engine", "auto")


def test_result_names_reference_digest_and_key(project: Project, image: dict[str, Any]) -> None:
    """The result has the engine's digest and the key's id."""
    assert (image["reference"], image["engine"]) == (TAG, "docker")
    assert inspect(TAG)["Id"] == image["digest"]
    assert image["platforms"] == ["linux/amd64"]
    assert inspect(TAG)["Config"]["Labels"]["buildtool.key-id"] == image["keyId"]
    assert (project.root / "keys/dev.pub").exists()


def test_image_holds_loader_tini_objects_trust_and_nothing_to_run_else(image: dict[str, Any]) -> None:
    """The image has the documented files, and no shell, interpreter or package manager."""
    assert image
    files = read_files(TAG)
    loader, _ = files["/usr/bin/verify-and-load"]
    assert loader.mode & 0o777 == 0o755
    assert files["/usr/sbin/tini"][0].mode & 0o777 == 0o755
    assert files["/sbin"][0].issym()
    names = {path for path in files if path.startswith("/usr/lib/buildtool/objects/")}
    assert {Path(name).name for name in names} == {"number.bpf.o", "two.bpf.o"}
    trust = [path for path in files if path.startswith("/etc/buildtool/trust/")]
    assert len(trust) == 1
    for path in [*names, *trust]:
        assert files[path][0].mode & 0o777 == 0o644, path
    for path in ("/usr/lib/buildtool/objects", "/etc/buildtool/trust", "/usr/bin", "/etc"):
        assert files[path][0].mode & 0o777 == 0o755, path
    plain = {path: entry for path, (entry, _) in files.items() if entry.isfile()}
    assert not [path for path in plain if FORBIDDEN.search(path)]
    assert [path for path, entry in sorted(plain.items()) if entry.mode & 0o111] == [
        "/usr/bin/verify-and-load",
        "/usr/sbin/tini",
    ]


def test_image_configuration_is_what_the_project_says(image: dict[str, Any]) -> None:
    """The configuration has the documented entrypoint, user, labels, health check and time."""
    assert image
    config = inspect(TAG)["Config"]
    assert config["Entrypoint"] == ["/sbin/tini", "-g", "--", "/usr/bin/verify-and-load"]
    assert config["User"] == "0"
    assert config["Labels"]["org.example.team"] == "plant 7, hall B"
    assert config["Labels"]["org.opencontainers.image.version"] == "1.2.0"
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/verify-and-load", "--verify-only"]
    assert inspect(TAG)["Created"].startswith("2023-11-14T22:13:20")


def test_container_verifies_its_objects_and_refuses_a_changed_one(
    project: Project, image: dict[str, Any], tmp_path: Path
) -> None:
    """The image's loader accepts its objects without any capability, and refuses one with a flipped bit."""
    assert image
    run = ["run", "--rm", "--network", "none", "--cap-drop", "ALL", "--read-only"]
    docker(*run, TAG, "--verify-only")
    data = bytearray(read_objects(TAG)["two.bpf.o"])
    data[100] ^= 1
    (tmp_path / "two.bpf.o").write_bytes(data)
    tmp_path.chmod(0o755)
    mount = f"{tmp_path}:/usr/lib/buildtool/objects:ro"
    docker(*run, "--volume", mount, TAG, "--verify-only", code=3)


def test_objects_verify_with_the_tool_too(project: Project, image: dict[str, Any], tmp_path: Path) -> None:
    """The Python verifier accepts the objects, and the statements match the configuration."""
    assert image
    paths = []
    for name, data in read_objects(TAG).items():
        (tmp_path / name).write_bytes(data)
        paths.append(tmp_path / name)
    done = project.run("verify", *paths, "--trust", "keys/dev.pub", "--platform", "linux/amd64")
    assert done.code == 0, done.stdout
    shown = json.loads(project.run("inspect", paths[0], "--json").stdout)
    text = json.dumps(shown)
    for word in ("linux/amd64", "lab", "1.2.0", "2023-11-14T22:13:20Z", "bpf/number.bpf.c"):
        assert word in text, word


def test_signing_on_the_host_gives_the_same_objects_and_no_secret(
    project: Project, image: dict[str, Any]
) -> None:
    """Signing on the host sends no key to the engine and gives the same bytes."""
    assert image
    tag = TAG + "-host"
    done = project.run("-v", "build", "--arch", "amd64", "--tag", tag, "--sign-on", "host")
    assert done.code == 0, done.stderr
    assert "--secret" not in done.stderr
    assert "signer-amd64" not in done.stderr
    assert read_objects(tag) == read_objects(TAG)
    assert inspect(tag)["Config"] == inspect(TAG)["Config"]


def test_both_architectures_give_one_index_with_native_loaders(project: Project, tmp_path: Path) -> None:
    """Each platform of the index has its own objects and a loader for its own machine."""
    tag = TAG.replace("amd64", "both")
    built = project.build("--arch", "arm64", "--arch", "amd64", "--tag", tag)
    assert built["platforms"] == ["linux/amd64", "linux/arm64"]
    # Debian 13's engine can only save all platforms of an image, and cannot inspect a single one.
    docker("save", "--output", tmp_path / "both.tar", tag)
    images = read_image(tmp_path / "both.tar")
    for platform, machine in (("linux/amd64", 62), ("linux/arm64", 183)):
        image, tree = images[platform]
        assert image.config["architecture"] == platform.partition("/")[2]
        for path in ("usr/bin/verify-and-load", "usr/sbin/tini"):
            assert struct.unpack_from("<H", tree[path].data, 18)[0] == machine, path
        assert platform.encode() in tree["usr/lib/buildtool/objects/two.bpf.o"].data


def test_archive_is_the_same_twice_without_any_cache(project: Project, tmp_path: Path) -> None:
    """Two builds without a cache give the same archive with the printed digest."""
    digests = []
    for name in ("a.tar", "b.tar"):
        output = f"type=oci,dest={tmp_path / name}"
        built = project.build("--arch", "amd64", "--arch", "arm64", "--no-cache", "--output", output)
        digests.append(built["digest"])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        index = tar.extractfile("index.json")
        assert index
        assert json.load(index)["manifests"][0]["digest"] == digests[0]
    done = project.run("build", "--arch", "amd64", "--output", f"type=oci,dest={tmp_path / 'a.tar'}")
    assert done.code == 1
    assert "already exists" in done.stderr


def test_push_gives_a_registry_the_digest_that_is_printed(project: Project) -> None:
    """A push stores two platforms under the printed digest, twice the same; the engine keeps no image."""
    with run_registry() as registry:
        digests = set()
        for _ in range(2):
            tag = f"{registry}/plant/lab:1"
            built = project.build("--arch", "amd64", "--arch", "arm64", "--tag", tag, "--push")
            digest, index = pushed("1")
            assert digest == built["digest"]
            assert {entry["platform"]["architecture"] for entry in index["manifests"]} == {"amd64", "arm64"}
            digests.add(digest)
            assert not has_image(tag)
        assert len(digests) == 1


def test_only_sources_are_sent_to_the_engine(project: Project, image: dict[str, Any]) -> None:
    """A large file beside the sources, as a key would be, is not sent to the engine."""
    assert image
    large = project.root / "large.bin"
    large.write_bytes(os.urandom(3_000_000))
    try:
        done = project.run("build", "--arch", "amd64", "--tag", TAG + "-large")
    finally:
        large.unlink()
    sizes = re.findall(r"transferring context: ([0-9.]+)(k?B|MB)", done.stderr)
    assert sizes, done.stderr
    assert all(unit != "MB" for _, unit in sizes), sizes


def test_key_is_nowhere_but_in_its_file(project: Project, image: dict[str, Any]) -> None:
    """Layers, configuration, history, cache records, Dockerfile and output do not contain the key's bytes."""
    pem = (project.root / "keys/dev.pem").read_bytes()
    secret = pem.split(b"\n")[1]
    seed = subprocess.run(
        ["openssl", "pkey", "-in", project.root / "keys/dev.pem", "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout[-32:]
    done = project.run("-v", "build", "--arch", "amd64", "--tag", TAG + "-again", "--no-cache")
    places = {
        "image": docker("save", TAG + "-again"),
        "files": b"".join(data for _, data in read_files(TAG + "-again").values()),
        "history": docker("history", "--no-trunc", TAG + "-again"),
        "cache": docker("buildx", "du", "--verbose"),
        "output": done.stdout.encode() + done.stderr.encode(),
        "dockerfile": project.run("render", "--arch", "amd64").stdout.encode(),
    }
    assert done.code == 0
    assert image
    for place, data in places.items():
        assert data, place
        for needle in (secret, seed, seed.hex().encode(), b"PRIVATE KEY"):
            # The sources of the tool mention private keys, but no bytes of a key are in them.
            if needle != b"PRIVATE KEY" or place in ("history", "cache", "output"):
                assert needle not in data, place
