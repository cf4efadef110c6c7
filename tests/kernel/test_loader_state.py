# SPDX-License-Identifier: Apache-2.0
"""The loader's state directory on a real kernel: it records only versions that ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from labs.handsig import policy
from labs.loader import Lab, is_clean

pytestmark = pytest.mark.usefixtures("as_root")


def remembered(state: Path) -> object:
    """Return the recorded versions, None without a file."""
    path = state / "versions.json"
    return json.loads(path.read_text())["projects"] if path.exists() else None


def test_remembered_once_it_is_attached(lab: Lab, tmp_path: Path) -> None:
    """The version is on disk at `ready`, and the next loader can lock the state."""
    state = tmp_path / "state"
    state.mkdir()
    lab.put(tmp_path, "raw_tp", version=7)
    with lab.started(tmp_path, "--state", str(state)) as (_, stop):
        assert list(remembered(state).values()) == [{"raw_tp.bpf.o": 7}]  # type: ignore[attr-defined]
        lab.put(tmp_path, "raw_tp", version=6)
        result = lab.run(tmp_path, "--state", str(state))
        assert (result.code, result.reasons) == (3, ["rolled-back"])
        assert stop().code == 0
    assert is_clean()


def test_what_did_not_load_is_not_remembered(lab: Lab, tmp_path: Path) -> None:
    """The version of an object that the kernel refuses is not recorded."""
    state = tmp_path / "state"
    state.mkdir()
    lab.put(tmp_path, "refused", version=7)
    assert lab.run(tmp_path, "--state", str(state)).code == 1
    assert remembered(state) is None


def test_nothing_is_loaded_when_it_cannot_be_remembered(lab: Lab, tmp_path: Path) -> None:
    """The file of the next state is made first, so an error comes before everything else."""
    state = tmp_path / "state"
    (state / ".versions.json.new").mkdir(parents=True)
    lab.put(tmp_path, "raw_tp", version=7)
    result = lab.run(tmp_path, "--state", str(state), "--", "/bin/true")
    assert result.code == 1
    assert result.message.startswith(f"state {state}/versions.json: cannot write: ")
    assert len(result.lines) == 1


def test_all_is_taken_back_when_it_can_no_longer_be_remembered(lab: Lab, tmp_path: Path) -> None:
    """The health command removes the file of the next state, after everything is attached."""
    state, command = tmp_path / "state", tmp_path / "command"
    state.mkdir()
    command.write_text(f"#!/bin/sh\nexec rm {state}/.versions.json.new\n")
    command.chmod(0o755)
    lab.put(tmp_path, "raw_tp", version=7)
    result = lab.run(tmp_path, "--state", str(state), f"--health-command={command}", "--", "/bin/true")
    assert result.code == 1
    assert result.message.startswith("state: cannot write versions.json: ")
    assert result.events("attach")
    assert not result.events("ready")
    assert is_clean()


def test_policy_denies_what_the_code_calls(lab: Lab, tmp_path: Path) -> None:
    """Code that calls a denied helper is refused, and so is a call that the statement does not list."""
    for denied, listed, code in (([1], [1], 3), ([4], [1], 0), ([4], [], 3)):
        lab.put(tmp_path, "raw_tp", helpers=listed)
        (tmp_path / "trust/policy.json").write_text(policy(lab.key, deniedHelpers=denied))
        result = lab.run(tmp_path, "--", "/bin/true")
        assert (result.code, result.reasons) == (code, ["denied-by-policy"] if code else [])
    assert is_clean()
