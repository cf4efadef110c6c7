# SPDX-License-Identifier: Apache-2.0
"""Lines of sources in messages: read from compilers and BuildKit, and placed in a repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from buildtool.check.model import RULES, SourceLine
from buildtool.check.reports import diagnose
from buildtool.cli.annotations import format_command
from buildtool.cli.codequality import format_code_quality
from buildtool.core.diagnostics import (
    Diagnostic,
    SourcePlace,
    find_repository,
    locate_message,
    parse_diagnostics,
)
from buildtool.image.docker.buildx import failed_output

SAID = """\
In file included from bpf/x.bpf.c:3:
In file included from include/a.h:1:
/usr/include/foreign.h:7:1: \x1b[0;1;31merror: \x1b[0munknown type name 'u33'
    7 | u33 x;
      | ^
bpf/x.bpf.c:9:2: warning: unused variable 'y' [-Wunused-variable]
bpf/x.bpf.c:9:2: note: declared here
bpf/x.bpf.c:12:10: fatal error: 'none.h' file not found
1 warning and 2 errors generated.
"""
# What BuildKit prints for a build of two architectures: each line with its step, and the end repeated.
BUILDKIT = """\
#9 [objects-amd64 2/3] RUN ["python3", "-m", "buildtool", "compile"]
#10 [objects-arm64 2/3] RUN ["python3", "-m", "buildtool", "compile"]
#9 0.345 bpf/x.bpf.c:12:10: fatal error: 'none.h' file not found
#10 0.346 bpf/other.bpf.c:1:1: warning: of a step that was canceled
#9 0.346 buildtool: error: cannot compile bpf/x.bpf.c (amd64)
#9 ERROR: process "python3 -m buildtool compile" did not complete successfully: exit code: 1
#10 CANCELED
------
 > [objects-amd64 2/3] RUN ["python3", "-m", "buildtool", "compile"]:
0.345 bpf/x.bpf.c:12:10: fatal error: 'none.h' file not found
------
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Make a repository with a project in a directory."""
    root = tmp_path / "repository"
    for name in (".git", "agents/net/bpf", "agents/net/include"):
        (root / name).mkdir(parents=True)
    (root / "agents/net/bpf/x.bpf.c").touch()
    (root / "agents/net/include/a.h").touch()
    return root


def test_messages_of_clang(repository: Path) -> None:
    """Errors and warnings in color, without notes; a foreign header counts as the line that includes it."""
    found = parse_diagnostics(SAID, repository / "agents/net")
    assert [(each.level, each.message) for each in found] == [
        ("error", "unknown type name 'u33'"),
        ("warning", "unused variable 'y' [-Wunused-variable]"),
        ("error", "'none.h' file not found"),
    ]
    places = [each.locate(repository) for each in found]
    assert [(place[0], place[1].line, place[1].column) for place in places if place] == [
        ("agents/net/bpf/x.bpf.c", 3, 0),
        ("agents/net/bpf/x.bpf.c", 9, 2),
        ("agents/net/bpf/x.bpf.c", 12, 10),
    ]


def test_the_same_message_of_two_compilers_is_one(repository: Path) -> None:
    """Compilers for several architectures find the same mistake."""
    assert len(parse_diagnostics(SAID + SAID, repository)) == 3


def test_lines_of_the_failed_step_only(repository: Path) -> None:
    """BuildKit's prefixes are gone, and so are what other steps printed and what it repeats."""
    (found,) = parse_diagnostics(failed_output(BUILDKIT.encode()), repository / "agents/net")
    assert found.locate(repository) == (
        "agents/net/bpf/x.bpf.c",
        SourcePlace(file=repository / "agents/net/bpf/x.bpf.c", line=12, column=10),
    )


def test_the_repository_is_found(repository: Path, tmp_path: Path) -> None:
    """By .git, also as a file in a worktree; else the workspace of the CI system; else the directory."""
    project = repository / "agents/net"
    assert find_repository(project, {"GITHUB_WORKSPACE": str(tmp_path)}) == repository
    (repository / ".git").rmdir()
    (repository / ".git").write_text("gitdir: elsewhere\n")
    assert find_repository(project, {}) == repository
    (repository / ".git").unlink()
    assert find_repository(project, {"CI_PROJECT_DIR": str(repository)}) == repository
    assert find_repository(project, {"GITHUB_WORKSPACE": str(project / "bpf")}) == project
    assert find_repository(project, {"GITHUB_WORKSPACE": ""}) == project


def test_a_file_outside_the_repository_has_no_place(repository: Path) -> None:
    """Neither one above it, nor one that only a builder has."""
    for name in ("../../../x.c", "/usr/include/foreign.h", "bpf/only-in-a-builder.h"):
        (found,) = parse_diagnostics(f"{name}:1:1: error: wrong", repository / "agents/net")
        assert found.locate(repository) is None
        assert format_command(found, repository) == "::error title=clang::wrong"


def test_a_mistake_of_the_configuration_has_its_line(repository: Path) -> None:
    """A message that begins with file and line is about that line; another one is about none."""
    (repository / "agents/net/buildtool.toml").touch()
    found = locate_message("buildtool.toml:7: unknown key\nhint: none", repository / "agents/net")
    assert found is not None
    assert format_command(found, repository) == (
        "::error file=agents/net/buildtool.toml,line=7,title=buildtool::unknown key%0Ahint: none"
    )
    for message in ("no signing key", "127.0.0.1:5000: cannot connect", "x/y:7: no"):
        located = locate_message(message, repository)
        assert located is None or located.locate(repository) is None


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("100% of\nit\r", "100%25 of%0Ait\\r"),
        ("::error::x", "::error::x"),  # behind the first :: it is text
        ("\x1b[31m\u202e", "\\x1b[31m\\u202e"),
    ],
)
def test_text_of_commands_is_escaped(text: str, escaped: str, repository: Path) -> None:
    """A line break would begin another command."""
    command = format_command(Diagnostic(level="warning", message=text, source="a:b,c%"), repository)
    assert command == f"::warning title=a%3Ab%2Cc%25::{escaped}"


def test_names_in_commands_are_escaped(repository: Path) -> None:
    """A name with a comma or a line break sets no other property."""
    name = "a,line=1:b\n::error::c.c"
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).touch()
    place = SourcePlace(file=repository / name, line=3)
    command = format_command(Diagnostic(level="error", message="m", places=(place,)), repository)
    assert command == "::error file=a%2Cline=1%3Ab%0A%3A%3Aerror%3A%3Ac.c,line=3,title=clang::m"


def test_report_for_gitlab(repository: Path) -> None:
    """Paths from the top of the repository; a fingerprint survives moved lines, and is never used twice."""
    project = repository / "agents/net"
    text = "bpf/x.bpf.c:{}:1: error: wrong\n"
    first = json.loads(format_code_quality(parse_diagnostics(text.format(4), project), repository))
    moved = json.loads(
        format_code_quality(parse_diagnostics(text.format(9) + text.format(10), project), repository)
    )
    assert first[0]["location"] == {"path": "agents/net/bpf/x.bpf.c", "lines": {"begin": 4}}
    assert (first[0]["severity"], first[0]["description"]) == ("major", "wrong")
    assert first[0]["fingerprint"] == moved[0]["fingerprint"] != moved[1]["fingerprint"]
    assert format_code_quality([Diagnostic(level="error", message="nowhere")], repository) == b"[]\n"


def test_a_report_is_unicode(repository: Path) -> None:
    """A name may have bytes that are not UTF-8. The report for GitLab has a character instead."""
    name = "b\udcff.toml"
    (repository / name).touch()
    found = [
        Diagnostic(
            level="error", message=f"{name}: wrong", places=(SourcePlace(file=repository / name, line=line),)
        )
        for line in (1, 2)
    ]
    first, second = json.loads(format_code_quality(found, repository))
    assert first["location"] == {"path": "b\ufffd.toml", "lines": {"begin": 1}}
    assert first["description"] == "b\ufffd.toml: wrong"
    assert first["fingerprint"] != second["fingerprint"]


def test_a_refusal_of_a_kernel_is_on_the_line_of_c(repository: Path) -> None:
    """As the object's line information names it, from the directory of the project. Notes are left out."""
    source = SourceLine(text="x = 1;", file="bpf/x.bpf.c", line=4)
    findings = [
        RULES["BT100"].finding("x.bpf.o", "6.1 amd64: refused", program="p", source=source),
        RULES["BT012"].finding("x.bpf.o", "a note"),
    ]
    (found,) = diagnose(findings, repository / "agents/net")
    command = format_command(found, repository)
    assert command.startswith("::error file=agents/net/bpf/x.bpf.c,line=4,title=BT100 ")
    assert "::x.bpf.o: p: 6.1 amd64: refused%0Ahint: " in command
    assert len(json.loads(format_code_quality([found], repository))) == 1
