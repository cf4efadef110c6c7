# SPDX-License-Identifier: Apache-2.0
"""Run the scripts of the composite action as GitHub's runner would run them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from labs import TOP
from labs.project import SETTINGS, Project


def scripts() -> list[str]:
    """Return the text of each `run: |` of the action."""
    found = re.findall(r"\n      run: \|\n((?:(?:        .*)?\n)+)", (TOP / "action.yml").read_text())
    return ["\n".join(line[8:] for line in text.split("\n")) for text in found]


def run_action(project: Project, work: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the last script of the action, which builds, with *inputs* by the names of its variables."""
    home = work / "buildtool/bin"
    home.mkdir(parents=True)
    (home / "buildtool").write_text(f'#!/bin/sh\nexec "{project.command()[0]}" -m buildtool "$@"\n')
    (home / "buildtool").chmod(0o755)
    names = re.findall(r"^        ([A-Z_]+): \$\{\{ inputs", (TOP / "action.yml").read_text(), re.MULTILINE)
    environment = {
        **os.environ,
        **SETTINGS,
        **project.environment,
        **dict.fromkeys(names, ""),
        "ENGINE": "docker",
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(work / "outputs"),
        "GITHUB_STEP_SUMMARY": str(work / "summary"),
        "RUNNER_TEMP": str(work),
        "BUILDTOOL_SIGNING_KEY": (project.root / "keys/dev.pem").read_text(),
        **inputs,
    }
    # The command line that GitHub uses for `shell: bash`
    argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", scripts()[-1]]
    return subprocess.run(
        argv, cwd=project.root, env=environment, capture_output=True, text=True, check=False
    )


def read_output(work: Path, name: str) -> str:
    """Return the output *name*, which has one line."""
    found = re.findall(rf"^{name}=(.*)$", (work / "outputs").read_text(), re.MULTILINE)
    assert len(found) == 1, (work / "outputs").read_text()
    return str(found[0])
