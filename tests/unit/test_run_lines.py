# SPDX-License-Identifier: Apache-2.0
"""The `docker run` lines of documents and of new projects give what the programs need, and nothing more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from labs import TOP

from buildtool.config.file import load_config
from buildtool.config.scaffold import create_project
from buildtool.image.scan import scan_capabilities

PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]


def given(text: str) -> list[set[str]]:
    """Return what each command of *text* that adds capabilities gives, having dropped all others."""
    joined = text.replace("\\\n", " ").splitlines()
    commands = [line for line in joined if re.search(r"\bdocker run\b.*--cap-add", line)]
    assert all("--cap-drop ALL" in command for command in commands)
    return [set(re.findall(r"--cap-add (\w+)", command)) for command in commands]


def needed(directory: Path) -> set[str]:
    """Return what the sources of a project are seen to need."""
    sources = [str(path.relative_to(directory)) for path in (directory / "bpf").glob("*.bpf.c")]
    return set(scan_capabilities(load_config(directory / "buildtool.toml"), sources))


def test_new_project(tmp_path: Path) -> None:
    """The run lines in the README of a new project and of this project have the required capabilities."""
    create_project(tmp_path / "demo")
    (line,) = given((tmp_path / "demo/README.md").read_text())
    assert line == needed(tmp_path / "demo")
    assert given((TOP / "README.md").read_text()) == [line]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_documents(page: Path) -> None:
    """The other lines name capabilities that some program of ours needs, never SYS_ADMIN or all."""
    for line in given(page.read_text()):
        assert {"BPF"} <= line <= needed(TOP), page
