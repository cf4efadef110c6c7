# SPDX-License-Identifier: Apache-2.0
"""Untrusted text in messages: every script can be read, and nothing drives a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from buildtool.cli.main import run
from buildtool.core.text import escape, quote, replace_bytes

PRINTABLE = "Zähler-счётчик-计数-\u05e9\u05dc\u05d5\u05dd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (PRINTABLE, PRINTABLE),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\x9bb\x7f", "a\\x9bb\\x7f"),
        ("right\u202eleft\u2066", "right\\u202eleft\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("two\nlines\tand\u2028", "two\\nlines\\tand\\u2028"),
        ("byte\udcff", "byte\\udcff"),
    ],
)
def test_only_what_cannot_be_printed_is_escaped(text: str, shown: str) -> None:
    """Letters of every script stay; control and bidirectional characters, and bytes, are escaped."""
    assert escape(text) == shown
    assert quote(text) == f"'{shown}'"
    assert escape(text).isprintable()


def test_bytes_and_surrogates_are_replaced() -> None:
    """What the system gave as bytes has an encoding afterwards."""
    assert replace_bytes(PRINTABLE) == PRINTABLE
    assert replace_bytes("a\udcffb\ud800c\udfff") == "a\ufffdb\ufffdc\ufffd"
    assert replace_bytes("\udcc3\udca9") == "\u00e9"


def test_kept_characters_and_the_limit() -> None:
    """Output of several lines keeps its line feeds; a long value is cut."""
    assert escape("a\nb\x1b", keep="\n") == "a\nb\\x1b"
    assert quote("x" * 90) == f"'{'x' * 77}...'"


def test_names_of_files_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands name a file of another script as it is."""
    path = tmp_path / f"{PRINTABLE}.bpf.o"
    path.write_bytes(b"not an object")
    assert run(["inspect", str(path)]) == 1
    assert f"{PRINTABLE}.bpf.o: not an ELF file" in capsys.readouterr().err
    assert run(["keygen", PRINTABLE, "--dir", str(tmp_path)]) == 2
    assert f"'{PRINTABLE}' is not a name of a key" in capsys.readouterr().err


def test_an_output_of_another_encoding_gets_escapes(tmp_path: Path) -> None:
    """What the encoding lacks is escaped, on stdout and on stderr, and no traceback follows."""
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    argv = [sys.executable, "-m", "buildtool", "init", f"{tmp_path}/ł"]
    done = subprocess.run(argv, env=environ, capture_output=True, check=False)
    assert (done.returncode, b"\\u0142/buildtool.toml" in done.stdout) == (0, True), done.stderr
    done = subprocess.run(argv, env=environ, capture_output=True, check=False)
    assert (done.returncode, b"\\u0142: already there" in done.stderr) == (1, True), done.stderr
