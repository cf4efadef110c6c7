# SPDX-License-Identifier: Apache-2.0
"""`buildtool generate`: the only command that runs a project's own commands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from buildtool.cli.main import run

pytestmark = pytest.mark.tools

CONFIG = """\
[compile]
include = ["gen"]
[[compile.generate]]
output = "gen/limits.h"
command = ["{python}", "limits.py", "a b; touch shell"]
[[compile.generate]]
output = "gen/deep/second.h"
command = ["cat", "second.txt"]
"""
SCRIPT = """\
import os, sys
open("ran", "a").write("x")
print("/* %s %s */" % (sys.argv[1], os.environ.get("BUILDTOOL_SIGNING_KEY")))
print("#define LIMIT 5")
"""
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "limits.h"
SEC("socket") int f(void *c) { return LIMIT; }
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path) -> Path:
    """Give a project with two generated headers, as the working directory."""
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf/f.bpf.c").write_text(SOURCE)
    (tmp_path / "limits.py").write_text(SCRIPT)
    (tmp_path / "second.txt").write_text("#define SECOND 2\n")
    (tmp_path / "buildtool.toml").write_text(CONFIG.format(python=sys.executable))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUILDTOOL_CLANG", str(clang))
    monkeypatch.setenv("BUILDTOOL_SIGNING_KEY", "secret")
    return tmp_path


def test_headers_are_made_only_when_asked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compiling names the command and runs nothing; afterwards it compiles."""
    assert run(["compile", "--arch", "amd64"]) == 2
    assert capsys.readouterr().err == (
        "buildtool: error: gen/limits.h: not generated yet\nbuildtool: hint: buildtool generate makes it\n"
    )
    assert run(["render", "--key", "missing.pub", "--arch", "amd64", "-o", "out"]) != 0
    assert not (project / "ran").exists()
    assert run(["generate"]) == 0
    assert capsys.readouterr().out == "gen/limits.h\ngen/deep/second.h\n"
    assert (project / "gen/limits.h").read_text() == "/* a b; touch shell None */\n#define LIMIT 5\n"
    assert not (project / "shell").exists()
    assert run(["compile", "--arch", "amd64"]) == 0
    assert (project / "ran").read_text() == "x"
    # Unchanged files are not written again, so that nothing is compiled again.
    before = (project / "gen/limits.h").stat().st_mtime_ns
    capsys.readouterr()
    assert run(["generate"]) == 0
    assert (capsys.readouterr().out, (project / "gen/limits.h").stat().st_mtime_ns) == ("", before)


def test_check_compares_and_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 with the names of missing and different files, 0 if all are as the commands print them."""
    assert run(["generate", "--check"]) == 1
    assert capsys.readouterr().out == "gen/limits.h\ngen/deep/second.h\n"
    assert not (project / "gen").exists()
    assert run(["generate"]) == 0
    assert run(["generate", "--check"]) == 0
    (project / "gen/limits.h").write_text("#define LIMIT 6\n")
    capsys.readouterr()
    assert run(["generate", "--check"]) == 1
    assert capsys.readouterr().out == "gen/limits.h\n"
    assert (project / "gen/limits.h").read_text() == "#define LIMIT 6\n"


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        (
            '"cat", "second.txt"',
            '"cat", "missing.txt"',
            1,
            "gen/deep/second.h: cannot generate: cat ended with",
        ),
        ('"cat", "second.txt"', '"no-such-program"', 1, "no-such-program: not found"),
        ('"gen/deep/second.h"', '"../second.h"', 2, "'../second.h' must be a path inside the project"),
        ('["cat", "second.txt"]', "[]", 2, "compile.generate: table 2: the key command is missing"),
        (
            '["cat", "second.txt"]',
            '"cat second.txt"',
            2,
            "compile.generate: table 2: command: must be a list",
        ),
    ],
)
def test_failures_write_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, code: int, message: str
) -> None:
    """One line, and no file of a command that succeeded before."""
    path = project / "buildtool.toml"
    path.write_text(path.read_text().replace(old, new))
    assert run(["generate"]) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("buildtool: error: ")]
    assert message in line
    assert not (project / "gen").exists()


def test_a_project_without_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and where an example is."""
    monkeypatch.chdir(tmp_path)
    assert run(["generate"]) == 2
    assert capsys.readouterr().err.startswith("buildtool: error: nothing to generate: ")
