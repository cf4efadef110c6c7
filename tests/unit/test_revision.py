# SPDX-License-Identifier: Apache-2.0
"""Checkouts of the commit that provenance names: no repository, variable or setting changes its bytes."""

from __future__ import annotations

import json
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from buildtool.core.errors import ObjectFormatError, ToolFailedError
from buildtool.core.process import Runner
from buildtool.publish.named import BUILD_TYPE, Source, read_source
from buildtool.publish.revision import Revision, check_out

pytestmark = pytest.mark.tools
TEXT, OTHER = "[project]\nname = 'a'\n", "[project]\nname = 'b'\n"


def git(directory: Path, *words: str) -> str:
    """Run git in *directory*, as a person with a name; return what it prints."""
    identity = ("-C", str(directory), "-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(
        ["git", *identity, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def make_repository(directory: Path, *options: str, text: str = TEXT) -> str:
    """Make a repository with a project in *directory*, and return its commit."""
    directory.mkdir()
    git(directory, "init", "--quiet", *options)
    (directory / "buildtool.toml").write_text(text)
    git(directory, "add", ".")
    git(directory, "commit", "--quiet", "--message", "project")
    return git(directory, "rev-parse", "HEAD")


def check(commit: str, repository: str) -> str:
    """Return the configuration of *commit*."""
    source = Source(commit=commit, directory="")
    with check_out(Revision(image="a", source=source, config=None), repository, Runner()) as path:
        return path.read_text()


@pytest.mark.parametrize(
    "inputs",
    [
        *(None, True, 1, "x", {}, [None], [[]], [{"name": []}], [{"name": {}}], [{"name": "project"}]),
        [{"name": "project", "digest": []}],
        [{"name": "project", "digest": {"gitCommit": []}}],
        [{"name": "buildtool.toml", "digest": {"sha256": 1}}],
    ],
)
def test_provenance_of_another_form(inputs: Any) -> None:
    """Whoever holds a trusted key may sign anything: it names no commit."""
    definition = {"buildType": BUILD_TYPE, "resolvedDependencies": inputs}
    statement = json.dumps({"predicate": {"buildDefinition": definition}}).encode()
    assert read_source(statement) == (None, None)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_each_form_of_a_repository(kind: str, tmp_path: Path) -> None:
    """A directory, one below it, one without a work tree, a shallow one, an address, a bundle."""
    commit = make_repository(tmp_path / "a", f"--object-format={kind}")
    (tmp_path / "a/below").mkdir()
    git(tmp_path, "clone", "--quiet", "--bare", "a", "bare.git")
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{tmp_path}/a", "shallow")
    git(tmp_path / "a", "bundle", "create", "--quiet", "../all.bundle", "--all")
    for repository in ("a", "a/below", "bare.git", "shallow", f"file://{tmp_path}/a", "all.bundle"):
        assert check(commit, repository) == TEXT


def test_commit_without_a_branch(tmp_path: Path) -> None:
    """A branch may have been rewritten since the build."""
    commit = make_repository(tmp_path / "a")
    git(tmp_path / "a", "commit", "--quiet", "--amend", "--message", "another")
    assert check(commit, "a") == check(commit, f"file://{tmp_path}/a") == TEXT


@pytest.mark.parametrize(("mine", "other"), [("sha1", "sha256"), ("sha256", "sha1")])
@pytest.mark.parametrize("form", ["a", "file://{0}/a", "all.bundle"])
def test_tag_with_the_name_of_a_commit(mine: str, other: str, form: str, tmp_path: Path) -> None:
    """In a repository with digests of the other kind, the name of a commit may be one of a tag or branch."""
    commit = make_repository(tmp_path / "mine", f"--object-format={mine}")
    make_repository(tmp_path / "a", f"--object-format={other}", text=OTHER)
    git(tmp_path / "a", "tag", commit)
    git(tmp_path / "a", "update-ref", f"refs/heads/{commit}", "HEAD")
    git(tmp_path / "a", "bundle", "create", "--quiet", "../all.bundle", "--all")
    with pytest.raises((ToolFailedError, ObjectFormatError)):
        check(commit, form.format(tmp_path))


def test_tag_in_place_of_a_commit(tmp_path: Path) -> None:
    """The digest of a tag is no commit, although git checks out what the tag names."""
    make_repository(tmp_path / "a")
    git(tmp_path / "a", "tag", "--annotate", "--message", "a", "v1")
    tag = git(tmp_path / "a", "rev-parse", "v1")
    with pytest.raises(ObjectFormatError, match="is not a commit there, but names"):
        check(tag, "a")


def test_object_with_other_bytes_than_its_name_says(tmp_path: Path) -> None:
    """Git trusts the names of objects in a repository of this machine; a fetch computes them."""
    commit = make_repository(tmp_path / "a")
    name = git(tmp_path / "a", "rev-parse", "HEAD:buildtool.toml")
    loose = tmp_path / "a/.git/objects" / name[:2] / name[2:]
    loose.chmod(0o600)
    loose.write_bytes(zlib.compress(f"blob {len(OTHER)}\0{OTHER}".encode()))
    assert git(tmp_path / "a", "cat-file", "blob", name) == OTHER.strip()
    with pytest.raises(ToolFailedError) as found:
        check(commit, "a")
    assert "no checkout of commit" in found.value.message


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"])
def test_variables_of_a_hook(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook of git has variables that name its repository, which must be neither read nor changed."""
    commit = make_repository(tmp_path / "a")
    make_repository(tmp_path / "hooked", text=OTHER)
    before = git(tmp_path / "hooked", "symbolic-ref", "HEAD")
    place = {
        "GIT_DIR": "hooked/.git",
        "GIT_WORK_TREE": "hooked",
        "GIT_INDEX_FILE": "hooked/.git/index",
        "GIT_OBJECT_DIRECTORY": "hooked/.git/objects",
    }[name]
    monkeypatch.setenv(name, str(tmp_path / place))
    assert check(commit, "a") == TEXT
    monkeypatch.delenv(name)
    assert git(tmp_path / "hooked", "symbolic-ref", "HEAD") == before
    assert not git(tmp_path / "hooked", "status", "--porcelain")
    assert (tmp_path / "hooked/buildtool.toml").read_text() == OTHER


def test_nothing_runs(tmp_path: Path) -> None:
    """Filters that the person has set up for other repositories are programs which attributes start."""
    home, ran = tmp_path / "home", tmp_path / "ran"
    hooks = home / "template/hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (hooks / "post-checkout").chmod(0o755)
    make_repository(tmp_path / "a")
    (tmp_path / "a/.gitattributes").write_text("*.toml filter=own\n")
    git(tmp_path / "a", "add", ".")
    git(tmp_path / "a", "commit", "--quiet", "--message", "attributes")
    commit = git(tmp_path / "a", "rev-parse", "HEAD")
    (home / "attributes").write_text("*.toml text eol=crlf\n")
    (home / ".gitconfig").write_text(
        f'[filter "own"]\nsmudge = touch {ran}; cat\n[init]\ntemplateDir = {home}/template\n'
        f"[core]\nautocrlf = true\nattributesFile = {home}/attributes\n"
    )
    for repository in ("a", f"file://{tmp_path}/a"):
        assert check(commit, repository).encode() == TEXT.encode()
    assert not ran.exists()
