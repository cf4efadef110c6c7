# SPDX-License-Identifier: Apache-2.0
"""The time that statements and builds carry."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from buildtool.config.sourcedate import source_date
from buildtool.core.errors import ConfigError


def test_the_variable_goes_over_git(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SOURCE_DATE_EPOCH, then the commit, then 0, with a word: a date of 1970 looks like a fault."""
    assert source_date({"SOURCE_DATE_EPOCH": "0"}, tmp_path) == 0
    assert source_date({"SOURCE_DATE_EPOCH": "5"}, tmp_path) == 5
    assert not caplog.messages
    assert source_date({}, tmp_path) == 0
    told = "no git commit and no SOURCE_DATE_EPOCH: objects and images are dated 1970-01-01"
    assert caplog.messages == [told]
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    times = {"GIT_COMMITTER_DATE": "1767225600 +0000", "GIT_AUTHOR_DATE": "1767225600 +0000"}
    subprocess.run([*git, "init", "-q"], check=True)
    assert source_date({}, tmp_path) == 0
    commit = [*git, "commit", "-q", "--allow-empty", "-m", "x"]
    subprocess.run(commit, check=True, env={**os.environ, **times})
    caplog.clear()
    assert source_date({}, tmp_path) == 1_767_225_600
    assert not caplog.messages


@pytest.mark.parametrize("text", ["-1", "1.5", "now", "\u0661", "9" * 13, "999999999999"])
def test_other_values_are_errors(text: str, tmp_path: Path) -> None:
    """A typing mistake must not become another time."""
    with pytest.raises(ConfigError, match="is not a number of seconds"):
        source_date({"SOURCE_DATE_EPOCH": text}, tmp_path)
