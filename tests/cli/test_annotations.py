# SPDX-License-Identifier: Apache-2.0
"""Annotations of commands in GitHub Actions, and reports of lines for GitLab."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from labs.cli import BUILD

from buildtool.cli.main import run

Capture = pytest.CaptureFixture[str]

BROKEN = '#include "answer.h"\n' + "int broken = ;\n" * 12


@pytest.fixture
def repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the project a directory of a repository, and this process a step of GitHub Actions."""
    root = project.parent
    (root / ".git").mkdir()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    return root


def obeyed(text: str) -> list[str]:
    """Return the commands in *text* that a runner obeys: none between stop-commands and its word."""
    found, word = [], ""
    for line in text.splitlines():
        if word:
            word = "" if line == f"::{word}::" else word
        elif stop := re.fullmatch(r"::stop-commands::([0-9a-f]{32})", line):
            word = stop[1]
        elif line.lstrip().startswith("::") or "##[" in line:
            found.append(line)
    assert word == "", "commands are stopped at the end"
    return found


@pytest.mark.tools
def test_ten_annotations_of_a_level(repository: Path, capsys: Capture) -> None:
    """The message with its hint comes first, because GitHub shows ten; nothing else changes."""
    Path("bpf/answer.bpf.c").write_text(BROKEN)
    assert run(["compile", "--arch", "amd64"]) == 1
    error = capsys.readouterr().err
    general, *found = obeyed(error)
    assert general.startswith("::error title=buildtool::cannot compile bpf/answer.bpf.c (amd64)")
    assert found == [
        f"::error file=project/bpf/answer.bpf.c,line={line},col=14,title=clang::expected expression"
        for line in range(2, 11)
    ]
    assert error.count(": error: expected expression") == 12


@pytest.mark.tools
def test_warnings_are_annotations(repository: Path, capsys: Capture) -> None:
    """A compiler's warnings, of `compile` and of a build that succeeds; and buildtool's own."""
    with Path("bpf/answer.bpf.c").open("a") as file:
        file.write("#warning old\n")
    wanted = "::warning file=project/bpf/answer.bpf.c,line=4,col=2,title=clang::old [-W#warnings]"
    assert run(["compile", "--arch", "amd64"]) == 0
    assert obeyed(capsys.readouterr().err) == [wanted]
    assert run([*BUILD]) == 0
    assert obeyed(capsys.readouterr().err) == [wanted]


@pytest.mark.tools
def test_findings_are_annotations(repository: Path, capsys: Capture) -> None:
    """Of `check`, with the rule as title, and of a build that a rule ends. Notes are none."""
    Path("bpf/answer.bpf.c").write_text(
        '__attribute__((section("sokcet"), used)) int answer(void *context) { return 0; }\n'
        'char LICENSE[] __attribute__((section("license"), used)) = "GPL";\n'
    )
    assert run(["compile", "--arch", "amd64"]) == 0
    capsys.readouterr()
    assert run(["check", "--code-quality", "quality.json"]) == 1
    (line,) = obeyed(capsys.readouterr().err)
    assert line.startswith("::error title=BT005 ")
    assert "section 'sokcet' means no type of program to libbpf%0Ahint: " in line
    assert json.loads(Path("quality.json").read_text()) == []  # the rule names no line
    assert run([*BUILD]) == 1
    (line,) = obeyed(capsys.readouterr().err)
    assert line.startswith("::error title=buildtool::amd64/answer.bpf.o: ")


@pytest.mark.parametrize(
    ("arguments", "annotation"),
    [
        (["compile", "--bad"], "::error title=buildtool::unknown option '--bad'"),
        (["inspect", "::error::x.bpf.o"], "::error title=buildtool::"),
        (["inspect", "##[error]x.bpf.o"], "::error title=buildtool::"),
        (["inspect", "x\n::error::y.o"], "::error title=buildtool::x%0A::error::y.o"),
    ],
)
def test_names_are_no_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, arguments: list[str], annotation: str
) -> None:
    """A message with a name that looks like a command is one annotation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert run(arguments) in (1, 2)
    (line,) = obeyed(capsys.readouterr().err)
    assert line.startswith(annotation)


def test_what_a_program_prints_is_no_command(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither the output of a failed program nor that of one that succeeds."""
    printed = "print('::error::of a program\\n  ::add-mask::x\\n##[error]y', file=__import__('sys').stderr)"
    with Path("buildtool.toml").open("a") as file:
        file.write(
            f'[[compile.generate]]\noutput = "include/made.h"\ncommand = [{json.dumps(sys.executable)},'
        )
        file.write(f' "-c", {json.dumps(printed + "; raise SystemExit(1)")}]\n')
    assert run(["generate"]) == 1
    error = capfd.readouterr().err
    assert "::error::of a program\n  ::add-mask::x\n##[error]y\n" in error
    assert [line.partition(":: ")[0][:25] for line in obeyed(error)] == ["::error title=buildtool::"]


def test_a_traceback_is_no_command(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The text of an exception that nothing expects is printed while commands are stopped."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("x\n::set-output name=digest::evil\n##[error]y")

    monkeypatch.setattr("buildtool.cli.main.cli.main", fail)
    assert run(["compile"]) == 1
    error = capsys.readouterr().err
    assert "RuntimeError: x\n::set-output name=digest::evil\n" in error
    assert obeyed(error) == []


def test_a_report_about_a_name_that_is_not_unicode(project: Path, capsys: Capture) -> None:
    """A mistake in a configuration file of such a name is in the report."""
    name = os.fsdecode(b"b\xff.toml")
    Path(name).write_text("wrong = = 1\n")
    assert run(["compile", "--config", name, "--code-quality", "quality.json"]) == 2
    (entry,) = json.loads(Path("quality.json").read_text())
    assert entry["location"] == {"path": "b\ufffd.toml", "lines": {"begin": 1}}


def test_elsewhere_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """On a terminal and in other CI systems there is no annotation."""
    monkeypatch.chdir(tmp_path)
    for value in ("", "false"):
        monkeypatch.setenv("GITHUB_ACTIONS", value)
        assert run(["compile", "--bad"]) == 2
        assert "::" not in capsys.readouterr().err
    assert "GITHUB_ACTIONS" in os.environ


@pytest.mark.tools
def test_report_of_a_failed_build(project: Path, capsys: Capture) -> None:
    """The report is there after a failure, and empty after a success."""
    assert run([*BUILD, "--code-quality", "quality.json", "--dotenv", "image.env"]) == 0
    assert json.loads(Path("quality.json").read_text()) == []
    assert (
        Path("image.env")
        .read_text()
        .startswith("BUILDTOOL_IMAGE=plant/agent:1.2.0\nBUILDTOOL_DIGEST=sha256:")
    )
    Path("image.env").unlink()
    Path("bpf/answer.bpf.c").write_text(BROKEN)
    assert run([*BUILD, "--code-quality", "quality.json", "--dotenv", "image.env"]) == 1
    entries = json.loads(Path("quality.json").read_text())
    assert [entry["location"]["lines"]["begin"] for entry in entries] == list(range(2, 14))
    assert len({entry["fingerprint"] for entry in entries}) == 12
    assert not Path("image.env").exists()


@pytest.mark.parametrize("option", ["--code-quality", "--dotenv"])
def test_a_report_without_a_place_ends_the_command_first(project: Path, capsys: Capture, option: str) -> None:
    """Nothing is built if the report cannot be written."""
    Path("bpf/answer.bpf.c").write_text(BROKEN)
    assert run([*BUILD, option, "none/report"]) == 1
    assert "none/report" in capsys.readouterr().err
    assert run([*BUILD, option, ""]) == 2
