# SPDX-License-Identifier: Apache-2.0
"""Output of `render`, built by plain `docker buildx build`: the image of `build`, or a failure."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from labs.engine import remove_images
from labs.project import EPOCH, Project, make_project, render_folder

ONE = ("--arch", "amd64")
BOTH = ("--arch", "amd64", "--arch", "arm64")
# The place of the Dockerfile, in which plain buildx runs.
FORMS = ("folder", "project", "inline")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Iterator[Project]:
    """Yield a project to build; afterwards remove the images of these tests."""
    assert prepared_images
    yield make_project(tmp_path_factory.mktemp("rendered") / "lab")
    remove_images("lab")


@pytest.fixture(scope="module")
def images(project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[Sequence[str], dict[str, str]]:
    """Build the project with buildtool for one platform and for two; return the manifests of each."""
    work = tmp_path_factory.mktemp("ours")
    found = {}
    for arches in (ONE, BOTH):
        path = work / f"{len(arches)}.tar"
        project.build(*arches, "--output", f"type=oci,dest={path}")
        found[arches] = manifests(path)
    return found


def manifests(path: Path) -> dict[str, str]:
    """Return the digest of each platform's manifest in OCI archive *path*."""
    with tarfile.open(path) as tar:

        def read(name: str) -> dict[str, list[dict[str, object]]]:
            file = tar.extractfile(name)
            assert file
            document: dict[str, list[dict[str, object]]] = json.load(file)
            return document

        waiting, found = read("index.json")["manifests"], {}
        while waiting:
            entry = waiting.pop()
            digest = str(entry["digest"])
            if str(entry["mediaType"]).endswith("index.v1+json"):
                waiting += read("blobs/" + digest.replace(":", "/"))["manifests"]
            else:
                found[json.dumps(entry["platform"], sort_keys=True)] = digest
    return found


def plain_build(
    project: Project, place: Path, output: Path, arches: Sequence[str], *more: str | Path
) -> subprocess.CompletedProcess[str]:
    """Build in *place* with docker alone, as on a machine without buildtool."""
    platforms = ",".join(f"linux/{arch}" for arch in arches[1::2])
    argv = ["docker", "buildx", "build", "--progress", "plain", "--provenance=false", "--platform", platforms]
    argv += ["--secret", f"id=signing-key,src={project.root / 'keys/dev.pem'}"]
    argv += ["--output", f"type=oci,dest={output},rewrite-timestamp=true", *map(str, more), "."]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    return subprocess.run(argv, cwd=place, env=environment, capture_output=True, text=True, check=False)


def holds_image(path: Path) -> bool:
    """Return whether a build wrote to *path*: buildx makes an empty file before it builds."""
    return path.exists() and path.stat().st_size > 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("arches", [ONE, BOTH], ids=["one", "two"])
@pytest.mark.parametrize("form", FORMS)
def test_plain_buildx_builds_the_same_image(
    project: Project,
    images: dict[Sequence[str], dict[str, str]],
    tmp_path: Path,
    form: str,
    arches: Sequence[str],
) -> None:
    """Plain buildx gives the manifests of `build`: in a folder, beside the sources, and from one file."""
    place, more = tmp_path / "rendered", []
    if form == "folder":
        # The folder has no file of the project; the build of one platform uses no cache.
        render_folder(project, place, *arches)
        place = place.rename(tmp_path / "carried")
        assert len(list(place.iterdir())) == 2
        more = ["--no-cache"] if arches == ONE else []
    else:
        shutil.copytree(project.root, place, ignore=shutil.ignore_patterns("keys"))
        copy = Project(root=place)
        key = ("--key", str(project.root / "keys/dev.pub"))
        if form == "project":
            render_folder(copy, Path(), *arches, *key)
        else:
            done = copy.run("render", "--prepared", "--inline", *arches, *key, "-o", "one.Dockerfile")
            assert done.code == 0, done.stderr
            more = ["--file", "one.Dockerfile"]
    done = plain_build(project, place, tmp_path / "image.tar", arches, *more)
    assert done.returncode == 0, done.stderr
    found = manifests(tmp_path / "image.tar")
    assert len(found) == len(arches) // 2
    assert found == images[arches]


@pytest.mark.parametrize("form", FORMS)
def test_the_printed_command_builds_the_same_image(
    project: Project, images: dict[Sequence[str], dict[str, str]], tmp_path: Path, form: str
) -> None:
    """The line "next:" of `render`, with an archive as output, in an environment without the time."""
    options = {
        "folder": ["-o", tmp_path / "out"],
        "project": ["-o", "."],
        "inline": ["--inline", "-o", "one"],
    }
    shutil.copytree(project.root, tmp_path / "copy")
    copy = Project(root=tmp_path / "copy")
    done = copy.run("render", "--prepared", *ONE, *options[form])
    assert done.code == 0, done.stderr
    printed = shlex.split(done.stderr.splitlines()[-1].removeprefix("buildtool: next: "))
    assert printed[:3] == ["docker", "buildx", "build"]
    archive = tmp_path / "image.tar"
    argv = [*printed[:3], "--output", f"type=oci,dest={archive},rewrite-timestamp=true", *printed[3:]]
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(argv, cwd=copy.root, env=environment, capture_output=True, check=True)
    assert manifests(archive) == images[ONE]


@pytest.mark.parametrize("form", ["folder", "project"])
def test_changed_archive_is_refused(project: Project, tmp_path: Path, form: str) -> None:
    """One changed byte in the archive, in a comment, fails the build before the key is read."""
    place = tmp_path / "rendered"
    shutil.copytree(project.root, place, ignore=shutil.ignore_patterns("keys"))
    key = ("--key", str(project.root / "keys/dev.pub"))
    folder = render_folder(Project(root=place), place / ("." if form == "project" else "out"), *ONE, *key)
    assert plain_build(project, folder, tmp_path / "good.tar", ONE).returncode == 0
    (archive,) = folder.glob("buildtool-sources-*.tar")
    data = archive.read_bytes()
    changed = data.replace(b"SPDX-License-Identifier", b"SPDX-License-identifier", 1)
    assert len(changed) == len(data)
    assert changed != data
    archive.write_bytes(changed)
    done = plain_build(project, folder, tmp_path / "bad.tar", ONE)
    assert done.returncode != 0
    assert "/sources.tar: FAILED" in done.stderr
    assert not re.search(r"\[signer-amd64 [^\n]*\n#\d+ (DONE|CACHED)", done.stderr)
    assert not holds_image(tmp_path / "bad.tar")
    archive.unlink()
    assert plain_build(project, folder, tmp_path / "none.tar", ONE).returncode != 0
    assert not holds_image(tmp_path / "none.tar")


def test_build_sends_the_archive_once_and_leaves_no_file(project: Project, tmp_path: Path) -> None:
    """The archive is a build context of its own, so the project's .dockerignore does not apply to it."""
    (project.root / ".dockerignore").write_text("**/*.tar\n*.tar\n")
    before = sorted(project.root.rglob("*"))
    try:
        for name in ("a", "b"):
            done = project.run("build", *ONE, "--output", f"type=oci,dest={tmp_path / name}.tar")
            assert done.code == 0, done.stderr
        assert sorted(project.root.rglob("*")) == before
    finally:
        (project.root / ".dockerignore").unlink()
    sizes = re.findall(r"transferring archive: ([0-9.]+)(k?B|MB)", done.stderr)
    assert sizes, done.stderr
    assert all(unit == "B" for _, unit in sizes), sizes
    # The archive's digest, the trust store, and the plan of one architecture's objects.
    assert done.stderr.count("preparing inline document\n") <= 3
