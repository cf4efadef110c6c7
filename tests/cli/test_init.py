# SPDX-License-Identifier: Apache-2.0
"""`init`: a project that works as it stands, and never a file of the user overwritten."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from labs import TOP

from buildtool.cli.main import run
from buildtool.config.file import load_config
from buildtool.config.project import choose_platforms
from buildtool.config.scaffold import FILES
from buildtool.core.resources import resource_path


def _files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.mark.tools
def test_a_new_project_compiles_and_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands that init prints work; names with blanks become names of images and objects."""
    directory = tmp_path / "My Agent"
    assert run(["init", str(directory)]) == 0
    output = capsys.readouterr()
    name = "My-Agent"
    expected = {target.replace("@NAME@", name) for target in FILES.values()}
    assert _files(directory) == expected
    assert output.out.splitlines() == [
        str(directory / path.replace("@NAME@", name)) for path in FILES.values()
    ]
    assert output.err == (
        f"buildtool: next: cd '{directory}' && buildtool keygen release && buildtool build\n"
    )
    assert not [
        path for path in expected if "@" in (directory / path).read_text("utf-8").replace("@11bd", "")
    ]
    config = load_config(directory / "buildtool.toml")
    assert (config.project.name, config.build.tag) == (name, "my-agent:0.1.0")
    monkeypatch.chdir(directory)
    assert run(["keygen", "release"]) == 0
    assert config.sign.key is not None
    assert config.sign.key.exists()
    assert run(["compile"]) == 0
    (made,) = choose_platforms((), config)
    assert (directory / f"build/{made.arch}/{name}.bpf.o").exists()


def test_the_workflow_has_the_names_of_the_page(tmp_path: Path) -> None:
    """It installs what the index has under our name, and its secret is that of docs/how-to/ci-github.md."""
    assert run(["init", str(tmp_path / "p")]) == 0
    workflow = (tmp_path / "p/.github/workflows/ebpf.yml").read_text("utf-8")
    page = (TOP / "docs/how-to/ci-github.md").read_text("utf-8")
    names = re.compile(r"\$\{\{ (secrets|vars)\.(\w+) \}\}")
    assert set(names.findall(workflow)) == set(names.findall(page)) == {("secrets", "SIGNING_KEY")}
    assert re.findall(r"pipx install (.*)", workflow) == ["ebpf-buildtool"] * 2
    assert "`SIGNING_KEY`" in (tmp_path / "p/README.md").read_text("utf-8")
    assert "environment: release" in workflow
    assert "environment: release" in page


def test_every_template_file_is_used() -> None:
    """Nothing in templates/init is forgotten."""
    assert _files(resource_path("templates/init")) == set(FILES)


def test_private_keys_are_ignored_by_git_and_docker(tmp_path: Path) -> None:
    """Private keys of a new project are ignored by git and docker."""
    assert run(["init", str(tmp_path / "p")]) == 0
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "p", check=True)
    assert _ignored(tmp_path / "p") == {"keys/a.pem", "keys/a.p8"}
    assert "**/*.pem" in (tmp_path / "p/.dockerignore").read_text("utf-8").splitlines()


def test_private_keys_of_this_repository_are_ignored() -> None:
    """Files in keys/ other than public keys and README.md are ignored by git."""
    assert _ignored(TOP) == {"keys/a.pem", "keys/a.p8"}
    listed = subprocess.run(["git", "ls-files", "keys"], cwd=TOP, capture_output=True, text=True, check=True)
    assert all(name == "keys/README.md" or name.endswith(".pub") for name in listed.stdout.splitlines())


def _ignored(directory: Path) -> set[str]:
    """Return which files of keys/ git ignores in *directory*."""
    names = ["keys/a.pem", "keys/a.p8", "keys/a.pub", "keys/README.md"]
    argv = ["git", "check-ignore", "--no-index", *names]
    return set(
        subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False).stdout.split()
    )


def test_conflicts_are_listed_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link that leads nowhere is in the way, too."""
    directory = tmp_path / "p"
    directory.mkdir()
    (directory / "README.md").write_text("mine", encoding="utf-8")
    (directory / ".gitignore").symlink_to("nowhere")
    assert run(["init", str(directory)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"buildtool: error: {directory}: already there: .gitignore, README.md",
        "buildtool: hint: nothing was written; choose another directory",
    ]
    assert sorted(os.listdir(directory)) == [".gitignore", "README.md"]  # noqa: PTH208 - links, too
    assert (directory / "README.md").read_text("utf-8") == "mine"


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where a directory is needed stops it; what was new is gone again."""
    directory = tmp_path / "p"
    directory.mkdir()
    (directory / ".github").write_text("mine", encoding="utf-8")
    assert run(["init", str(directory)]) == 1
    assert capsys.readouterr().err.startswith(f"buildtool: error: {directory}/.github")
    assert _files(tmp_path) == {"p/.github"}
    assert sorted(path.name for path in directory.iterdir()) == [".github"]


def test_a_directory_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 1."""
    assert run(["init", "/proc/nowhere"]) == 1
    assert capsys.readouterr().err.startswith("buildtool: error: /proc/nowhere: cannot make directory: ")
