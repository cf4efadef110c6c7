# SPDX-License-Identifier: Apache-2.0
"""`rebuild --check --trust`: the sources are those of the commit that signed provenance names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.cli import check_error
from labs.project import make_local_project
from labs.registry import run_registry

from buildtool.cli.main import run
from buildtool.oci.registry import Client, parse_reference
from buildtool.publish.bundle import make_statement
from buildtool.publish.named import BUILD_TYPE, PREDICATE_TYPE
from buildtool.publish.sign import signed_manifests, write_statement
from buildtool.signing.keys import generate_key, load_signing_key_pem

pytestmark = pytest.mark.usefixtures("quick_registry")
Capture = pytest.CaptureFixture[str]
BUILD = ("build", "--engine", "local", "--arch", "amd64", "--push", "--tag")
TRUST = ("--trust", "dev.pub")
DIRECTORY = "agents/answer"
SOURCE = Path("bpf/answer.bpf.c")


def git(*words: str) -> str:
    """Run git in this directory, as a person with a name; return what it prints."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path) -> Path:
    """Make a project in a directory of a repository, with all but its key committed, and go there."""
    assert clang
    top = tmp_path / "repository"
    first = make_local_project(tmp_path, monkeypatch)
    (top / "agents").mkdir(parents=True)
    root = first.rename(top / DIRECTORY)
    monkeypatch.chdir(root)
    Path(".gitignore").write_text("keys/\n*.pub\n")
    git("init", "--quiet", str(top))
    git("add", ".")
    git("commit", "--quiet", "--message", "agent")
    key = load_signing_key_pem(Path("keys/dev.pem").read_bytes(), "dev", None)
    Path("dev.pub").write_bytes(key.public.pem)
    return root


@pytest.fixture
def address() -> Iterator[str]:
    """Run a registry."""
    with run_registry() as found:
        yield found


def check(capsys: Capture, reference: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Run `rebuild --check` with the key of this project; return the exit code and the result."""
    capsys.readouterr()
    code = run(["rebuild", "--check", reference, *TRUST, *options, "--json"])
    out, err = capsys.readouterr()
    sys.stderr.write(err)
    return code, json.loads(out or "{}")


def test_sources_come_from_the_commit(project: Path, address: str, capsys: Capture) -> None:
    """What lies in the directory, and whether a branch still has the commit, does not count."""
    reference = f"{address}/answer:1"
    assert run([*BUILD, reference]) == 0
    commit = git("rev-parse", "HEAD").strip()
    SOURCE.write_text(SOURCE.read_text().replace("ANSWER", "(ANSWER + 1)"))
    git("commit", "--quiet", "--all", "--amend", "--message", "another")
    assert run(["rebuild", "--check", reference]) == 1
    code, found = check(capsys, reference)
    assert (code, found["equal"], found["commit"], found["directory"]) == (0, True, commit, DIRECTORY)
    assert found["image"].startswith(f"{address}/answer@sha256:")
    assert run(["rebuild", "--check", reference, *TRUST, "--objects-only"]) == 0
    assert capsys.readouterr().out == (
        f"sources: commit {commit} {DIRECTORY}\nlinux/amd64  answer.bpf.o  equal\n"
    )


def test_object_of_other_sources_is_not_equal(project: Path, address: str, capsys: Capture) -> None:
    """Provenance that names another commit than the sources' is found out."""
    reference = f"{address}/answer:1"
    assert run([*BUILD, reference, "--no-provenance"]) == 0
    SOURCE.write_text(SOURCE.read_text().replace("ANSWER", "(ANSWER + 1)"))
    git("commit", "--quiet", "--all", "--message", "another")
    say(reference, commit=git("rev-parse", "HEAD").strip(), directory=DIRECTORY)
    code, found = check(capsys, reference)
    assert (code, found["equal"]) == (1, False)
    assert found["objects"][0]["problems"][0].startswith("differs in socket")


def test_repository_elsewhere(
    project: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A directory, or an address that git clones; no hook of the person's templates runs."""
    reference = f"{address}/answer:1"
    assert run([*BUILD, reference]) == 0
    hook = tmp_path / "templates/hooks/post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "templates"))
    key = project / "dev.pub"
    monkeypatch.chdir(tmp_path)
    Path("dev.pub").write_bytes(key.read_bytes())
    git("clone", "--quiet", "--bare", "repository", "bare")
    for place in ("repository", f"file://{tmp_path}/repository", "bare"):
        assert check(capsys, reference, "--repository", place)[0] == 0
    assert not Path("ran").exists()


@pytest.mark.parametrize("case", ["changed", "new", "no repository"])
def test_build_that_no_commit_describes(case: str, project: Path, address: str, capsys: Capture) -> None:
    """Sources that are not committed give provenance without a commit, and the comparison says so."""
    if case == "changed":
        SOURCE.write_text(SOURCE.read_text() + "/* changed */\n")
    elif case == "new":
        Path("bpf/new.bpf.c").write_text(SOURCE.read_text())
    else:
        (project.parent.parent / ".git").rename(project.parent.parent / "git")
    reference = f"{address}/answer:1"
    assert run([*BUILD, reference]) == 0
    assert check(capsys, reference)[0] == 1
    check_error(capsys, "its provenance names no commit")


def say(reference: str, *, commit: str, directory: str, config: str = "") -> None:
    """Attach provenance with these words, signed by the project's key."""
    client = Client(reference=parse_reference(reference), actions="pull,push")
    target = next(signed_manifests(client))
    project = {
        "name": "project",
        "digest": {"gitCommit": commit},
        "annotations": {"directory": directory},
    }
    inputs = [project] + ([{"name": "buildtool.toml", "digest": {"sha256": config}}] if config else [])
    predicate = {"buildDefinition": {"buildType": BUILD_TYPE, "resolvedDependencies": inputs}}
    subject = {"name": "image", "digest": {"sha256": target.digest}}
    statement = make_statement([subject], PREDICATE_TYPE, predicate)
    key = load_signing_key_pem(Path("keys/dev.pem").read_bytes(), "dev", None)
    write_statement(client, target, statement, PREDICATE_TYPE, key)


@pytest.mark.parametrize(
    ("commit", "directory", "config", "message"),
    [
        ("--upload-pack=touch ran", DIRECTORY, "", "provenance: not a commit: '--upload-pack=touch ran'"),
        ("HEAD", DIRECTORY, "", "provenance: not a commit: 'HEAD'"),
        ("0" * 40, DIRECTORY, "", "no checkout of commit 000000000000"),
        ("", "../other", "", "provenance: directory of the project"),
        ("", "/etc", "", "provenance: directory of the project"),
        ("", "outside", "", "provenance: outside: a link out of the repository"),
        ("", DIRECTORY, "0" * 64, "is not the one that was built"),
    ],
)
def test_provenance_is_only_what_it_may_be(
    commit: str,
    directory: str,
    config: str,
    message: str,
    project: Path,
    address: str,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    """Each is one line, and nothing outside the checkout is read or run."""
    (project.parent.parent / "outside").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/buildtool.toml").write_text('[project]\nname = "x"\n')
    git("add", "--all", str(project.parent.parent))
    git("commit", "--quiet", "--message", "link")
    reference = f"{address}/answer:1"
    assert run([*BUILD, reference, "--no-provenance"]) == 0
    say(reference, commit=commit or git("rev-parse", "HEAD").strip(), directory=directory, config=config)
    capsys.readouterr()
    assert check(capsys, reference)[0] == 1
    check_error(capsys, message)
    assert not Path("ran").exists()


def test_whose_provenance_counts(project: Path, address: str, capsys: Capture) -> None:
    """That of other keys is refused, as is an image without any, or without a signature of its own."""
    reference = f"{address}/answer:1"
    assert run([*BUILD, reference, "--no-sign-image"]) == 0
    assert check(capsys, reference)[0] == 3
    check_error(capsys, "the image has no signature")
    assert run([*BUILD, reference, "--no-provenance"]) == 0
    assert check(capsys, reference)[0] == 3
    check_error(capsys, "no trusted key says how it was made")
    Path("dev.pub").write_bytes(generate_key().public.pem)
    assert check(capsys, reference)[0] == 3
    check_error(capsys, "no trusted key signed the image")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("answer.oci.tar", *TRUST), "provenance is in a registry, beside the image"),
        (("answer.oci.tar", "--repository", "x"), "--repository requires --trust"),
        (("x/y:1", *TRUST, "--config", "buildtool.toml"), "--trust: provenance names the configuration"),
    ],
)
def test_options_that_do_not_go_together(
    words: tuple[str, ...], message: str, project: Path, capsys: Capture
) -> None:
    """Usage errors."""
    assert run([*BUILD[:-2], "--output", "type=oci,dest=answer.oci.tar"]) == 0
    capsys.readouterr()
    assert run(["rebuild", "--check", *words]) == 2
    check_error(capsys, message)
