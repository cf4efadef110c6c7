# SPDX-License-Identifier: Apache-2.0
"""The input `kernels` of the action: a kernel refuses a program before anything is built."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from labs.action import run_action
from labs.check import SOURCE
from labs.project import make_project

from buildtool.core.platforms import this_platform

pytestmark = pytest.mark.usefixtures("as_root")


def test_a_refusal_ends_the_step_before_the_build(probes: Path, clang: Path, tmp_path: Path) -> None:
    """The annotation is on the line that the kernel refuses; the summary has the table; no image is made."""
    (tmp_path / ".git").mkdir()
    project = make_project(tmp_path / "lab")
    (project.root / "bpf/x.bpf.c").write_text(SOURCE)
    project = replace(project, environment={"BUILDTOOL_LOADERS": str(probes), "BUILDTOOL_CLANG": str(clang)})
    work = tmp_path / "work"
    done = run_action(
        project, work, PLATFORMS=this_platform().arch, KERNELS="host", ENGINE="local", OUTPUT="image.tar"
    )
    assert done.returncode == 1, done.stderr
    line = SOURCE[: SOURCE.index("return data[0]")].count("\n") + 1
    found = [text for text in done.stderr.splitlines() if text.startswith("::error ")]
    refused = [text for text in found if f"file=lab/bpf/x.bpf.c,line={line},title=BT100 " in text]
    assert len(refused) == 1, done.stderr
    assert f"out_of_bounds: host {this_platform().arch} (" in refused[0]
    summary = (work / "summary").read_text()
    assert summary.startswith("### Kernels\n\n| | ")
    assert re.search(r"\| refused \|", summary)
    assert not (work / "outputs").exists()
    assert not (project.root / "image.tar").exists()
