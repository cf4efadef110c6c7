# SPDX-License-Identifier: Apache-2.0
"""A short run of every fuzz target; `make fuzz` runs them for longer."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from fuzz.campaign import TARGETS, Outcome, run_campaign

# Two minutes for all targets: each processor runs one target after another.
SECONDS = 110 // -(-len(TARGETS) // (os.cpu_count() or 1))
# A small part of what an idle machine reaches.
FEWEST_EXECUTIONS = {
    "c-object": 20_000,
    "c-policy": 20_000,
    "c-run": 10_000,
    "both-object": 2_000,
    "both-policy": 2_000,
}


@pytest.fixture(scope="module")
def outcomes(clang: Path) -> dict[str, Outcome]:
    """Run the campaign once."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs-tool: atheris")
    return {one.target: one for one in run_campaign(SECONDS, clang)}


@pytest.mark.parametrize("target", TARGETS)
def test_target_finds_nothing(target: str, outcomes: dict[str, Outcome]) -> None:
    """A target runs without a crash, sanitizer report, foreign exception or disagreement."""
    outcome = outcomes[target]
    assert not outcome.is_finding, outcome.log
    assert outcome.executions >= FEWEST_EXECUTIONS[target]
