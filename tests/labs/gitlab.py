# SPDX-License-Identifier: Apache-2.0
"""Run pipelines of GitLab CI with gitlab-ci-local, on this machine and without containers or GitLab."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from labs import TOP

# 4.75 and newer need a newer Node than Debian has.
VERSION = "4.61.0"
_PLACE = TOP / f".cache/gitlab-ci-local-{VERSION}"
_PROGRAM = "node_modules/gitlab-ci-local/src/index.js"
SECONDS = 240


def provide_gitlab() -> list[str]:
    """Return the command of gitlab-ci-local, which is installed once for each checkout, or skip the test."""
    for tool in ("npm", "node", "rsync"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs-tool: {tool}, for gitlab-ci-local")
    if not (_PLACE / "ready").exists():
        _PLACE.mkdir(parents=True, exist_ok=True)
        argv = ["npm", "install", "--prefix", str(_PLACE), "--ignore-scripts", "--no-save", "--no-audit"]
        argv += ["--no-fund", "--loglevel=error", f"gitlab-ci-local@{VERSION}"]
        subprocess.run(argv, check=True, capture_output=True)
        (_PLACE / "ready").touch()
    return ["node", str(_PLACE / _PROGRAM), "--no-color"]


def run_pipeline(
    command: list[str], repository: Path, *arguments: str, environ: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the pipeline of *repository*, or what *arguments* say, with *environ* in its jobs."""
    git = ["git", "-C", str(repository), "-c", "user.name=lab", "-c", "user.email=lab@example.org"]
    if not (repository / ".git").exists():
        for words in (
            ["init", "--quiet", "--initial-branch", "main"],
            ["remote", "add", "origin", "git@gitlab.example.org:plant/agent.git"],
            ["add", "--force", "."],
            ["commit", "--quiet", "--message", "lab"],
        ):
            subprocess.run([*git, *words], check=True)
    # Tests of the engine set where docker keeps its logins. A job makes a place of its own only without that.
    inherited = {name: value for name, value in os.environ.items() if name != "DOCKER_CONFIG"}
    return subprocess.run(
        [*command, *arguments],
        cwd=repository,
        env={**inherited, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
