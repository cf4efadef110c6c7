# SPDX-License-Identifier: Apache-2.0
"""bpf-probe: finding it, building it, and reading its output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from buildtool.check.model import Outcome
from buildtool.check.probe import read_probe
from buildtool.core.errors import ConfigError, FileAccessError, ToolFailedError, ToolMissingError
from buildtool.core.platforms import PLATFORMS
from buildtool.runtime import probe as probes
from buildtool.runtime.probe import PROBES_VARIABLE, ProbeFinder

ARM64 = PLATFORMS["arm64"]
KERNEL = {"event": "kernel", "release": "6.1.0", "machine": "aarch64"}
PROGRAM = {"event": "program", "object": "/0.bpf.o", "program": "p", "section": "xdp", "errno": 0, "log": ""}
END = {"event": "end"}


def lines(*events: Any) -> str:
    """Return *events* as a probe writes them."""
    return "".join(f"{json.dumps(event)}\n" for event in events)


def test_what_a_probe_says() -> None:
    """The kernel, its programs, objects that libbpf could not open; other lines are a console's."""
    bad = {"event": "object", "object": "/1.bpf.o", "errno": 22, "error": "Invalid argument", "warnings": ""}
    output = read_probe("[ 0.1] noise\n{}\n[1]\n" + lines(KERNEL, PROGRAM, bad, END))
    assert output.release == "6.1.0"
    assert [(p.path, p.program, p.verdict.outcome) for p in output.programs] == [
        ("/0.bpf.o", "p", Outcome.LOADS),
        ("/1.bpf.o", "", Outcome.FAILED),
    ]
    assert output.programs[1].verdict.reason == "Invalid argument"


@pytest.mark.parametrize("text", ["", "Segmentation fault\n", lines(KERNEL, PROGRAM)])
def test_a_probe_that_was_cut_off(text: str) -> None:
    """Without its last line nothing of it counts."""
    with pytest.raises(ToolFailedError, match="ended early"):
        read_probe(text)


def test_a_directory_of_probes(tmp_path: Path) -> None:
    """The variable's directory has one for each architecture; a missing one is an error, not made."""
    finder = ProbeFinder(cache=tmp_path / "cache", environ={PROBES_VARIABLE: str(tmp_path)})
    with pytest.raises(ConfigError, match=r"BUILDTOOL_PROBES: .*arm64/bpf-probe: no such file") as caught:
        finder.find(ARM64)
    assert caught.value.hint == "name a directory with ARCH/bpf-probe, or unset BUILDTOOL_PROBES"
    (tmp_path / "arm64").mkdir()
    (tmp_path / "arm64/bpf-probe").write_bytes(b"")
    assert finder.find(ARM64) == tmp_path / "arm64/bpf-probe"


def test_one_that_is_not_carried_and_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the architecture, and the hint names a remedy."""

    def nothing_carried(*_: object) -> NoReturn:
        raise FileAccessError("none")

    def no_compiler(*_: object, **__: object) -> NoReturn:
        raise ToolMissingError("clang 19 is needed", hint="apt-get install clang-19")

    monkeypatch.setattr(probes, "find_probe", nothing_carried)
    monkeypatch.setattr(probes, "make_parts", no_compiler)
    with pytest.raises(ToolMissingError) as caught:
        ProbeFinder(cache=tmp_path, environ={}).find(ARM64)
    assert caught.value.message == "no bpf-probe for arm64: clang 19 is needed"
    assert caught.value.hint == "apt-get install clang-19; install a release, whose wheel carries it"
