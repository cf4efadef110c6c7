# SPDX-License-Identifier: Apache-2.0
"""The composite action: its scripts run as a runner would run them, with a real engine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from labs import TOP
from labs.engine import REPOSITORY, inspect
from labs.project import Project

TAG = f"{REPOSITORY}/action:1"


def scripts() -> list[str]:
    """Return the text of each `run: |` of the action."""
    found = re.findall(r"\n      run: \|\n((?:        .*\n)+)", (TOP / "action.yml").read_text())
    return ["\n".join(line[8:] for line in text.split("\n")) for text in found]


def test_no_script_has_an_expression() -> None:
    """No script contains an expression, because an input would become part of the script."""
    assert len(scripts()) == 2
    assert not [text for text in scripts() if "${{" in text]


@pytest.mark.parametrize("nasty", ["", "x; touch evil", "$(touch evil)"])
def test_build_script_builds_and_sets_outputs(project: Project, tmp_path: Path, nasty: str) -> None:
    """The build script uses the environment's key, builds two architectures and sets outputs."""
    home = tmp_path / "buildtool/bin"
    home.mkdir(parents=True)
    (home / "buildtool").write_text(f'#!/bin/sh\nexec "{project.command()[0]}" -m buildtool "$@"\n')
    (home / "buildtool").chmod(0o755)
    environment = {
        **os.environ,
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_OUTPUT": str(tmp_path / "outputs"),
        "BUILDTOOL_SIGNING_KEY": (project.root / "keys/dev.pem").read_text(),
        "ARCH": "amd64 arm64",
        "TAG": nasty or TAG,
        "PUSH": "false",
        "SIGN_ON": "builder",
    }
    # The command line that GitHub uses for `shell: bash`
    argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", scripts()[1]]
    done = subprocess.run(
        argv, cwd=project.root, env=environment, capture_output=True, text=True, check=False
    )
    if nasty:
        assert done.returncode == 2
        assert "image tag" in done.stderr
        assert not (project.root / "evil").exists()
        return
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs").read_text().startswith(f"image={TAG}\ndigest={inspect(TAG)['Id']}\n")
