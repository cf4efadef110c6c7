# SPDX-License-Identifier: Apache-2.0
"""The composite action with a real engine: its scripts run as a runner would run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from labs.action import read_output, run_action, scripts
from labs.engine import REPOSITORY, inspect
from labs.peers import distribution_registry
from labs.project import Project

TAG = f"{REPOSITORY}/action:1"


def test_no_script_has_an_expression() -> None:
    """No script contains an expression, because an input would become part of the script."""
    assert len(scripts()) == 3
    assert not [text for text in scripts() if "${{" in text]


def test_build_script_builds_and_sets_outputs(project: Project, tmp_path: Path) -> None:
    """The script uses the environment's key, builds for two architectures with labels, and describes it."""
    done = run_action(
        project, tmp_path, PLATFORMS="linux/amd64,linux/arm64/v8", TAGS=TAG, LABELS="org.example.a=b c\n"
    )
    assert done.returncode == 0, done.stderr
    assert read_output(tmp_path, "image") == TAG
    assert read_output(tmp_path, "digest") == inspect(TAG)["Id"]
    assert inspect(TAG)["Config"]["Labels"]["org.example.a"] == "b c"
    assert "| `number.bpf.o` | `number` |" in (tmp_path / "summary").read_text()


@pytest.mark.parametrize("nasty", ["x; touch evil", "$(touch evil)", "* `touch evil`"])
def test_no_tag_is_a_command(project: Project, tmp_path: Path, nasty: str) -> None:
    """A tag reaches buildtool as a word, and buildtool refuses it."""
    done = run_action(project, tmp_path, PLATFORMS="amd64", TAGS=nasty)
    assert done.returncode == 2
    assert "image tag" in done.stderr
    assert not (project.root / "evil").exists()


def test_a_pushed_image_has_the_digest_of_each_platform(project: Project, tmp_path: Path) -> None:
    """The digests are those of the index in the registry, under both names."""
    with distribution_registry(tmp_path / "registry") as address:
        names = [f"{address}/plant/agent:{tag}" for tag in ("7", "latest")]
        work = tmp_path / "work"
        done = run_action(
            project, work, PLATFORMS="amd64 arm64", TAGS=",".join(names), PUSH="true", SBOM="none"
        )
        assert done.returncode == 0, done.stderr
        digests = json.loads(read_output(work, "digests"))
        metadata = json.loads(read_output(work, "metadata"))
    assert list(digests) == ["linux/amd64", "linux/arm64"]
    assert metadata["containerimage.digest"] == read_output(work, "digest")
    assert metadata["signed"] is True
    assert [each["digest"] for each in metadata["platforms"]] == list(digests.values())
    assert all(each["size"] > 1000 for each in metadata["platforms"])
    assert "| Signed | image and objects |" in (work / "summary").read_text()


def test_errors_in_a_builder_are_on_their_lines(project: Project, tmp_path: Path) -> None:
    """BuildKit's prefixes are gone, each line has one annotation, and paths start from the repository."""
    (project.root.parent / ".git").mkdir()
    with (project.root / "bpf/number.bpf.c").open("a") as file:
        file.write("int broken = ;\n")
    line = (project.root / "bpf/number.bpf.c").read_text().count("\n")
    done = run_action(project, tmp_path / "work", PLATFORMS="amd64 arm64", TAGS=TAG)
    assert done.returncode == 1
    found = [text for text in done.stderr.splitlines() if text.startswith("::error ")]
    assert len(found) == 2, done.stderr
    assert found[0].startswith("::error title=buildtool::cannot compile bpf/number.bpf.c (")
    place = f"file=lab/bpf/number.bpf.c,line={line},col=14,title=clang"
    assert found[1] == f"::error {place}::expected expression"
