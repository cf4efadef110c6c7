# SPDX-License-Identifier: Apache-2.0
"""`images prepare` with bad input: one line, the right exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildtool.cli.main import run


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--arch", "pdp11"], 2, "unknown architecture 'pdp11'"),
        (["--arch", "loong64"], 2, "Debian 13 has no loong64"),
        (["--suite", "sarge", "--force"], 2, "unknown suite 'sarge'"),
        (["--mirror", "-x", "--force"], 2, "'-x' is not the URI of a Debian mirror"),
        ([], 1, "no Docker engine answers: unix:///nonexistent/engine.sock: no such file or directory"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bad input results in no traceback, no output on stdout, and no file."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert run(["images", "prepare", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert lines[0].startswith(f"buildtool: error: {message}")
    assert len(lines) <= 2
    assert list(tmp_path.iterdir()) == []
