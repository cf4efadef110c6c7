# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: help, version, errors, completion, what is imported when."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from buildtool.cli.main import COMMANDS, cli, run
from buildtool.signing.keys import generate_key

BUILDTOOL = [sys.executable, "-m", "buildtool"]


def _start(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BUILDTOOL, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command of the table exists and prints its help on stdout."""
    assert run([name, "--help"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"Usage: buildtool {name} ")
    assert output.err == ""


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    """The version in the code is that of the wheel's metadata."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"buildtool {version('ebpf-buildtool')}\n"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]


@pytest.mark.parametrize("arguments", ["--version", "--help"])
def test_version_and_help_import_nothing_heavy(arguments: str) -> None:
    """--version and --help are fast, because they import no command and no library but click."""
    script = (
        "import sys; from buildtool.cli.main import run; run(sys.argv[1:]);"
        "print(*(name for name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, arguments], capture_output=True, text=True, check=True
    )
    heavy = {
        "rich",
        "jinja2",
        "cryptography",
        "elftools",
        "docker",
        "importlib.metadata",
        "logging",
        "tomllib",
    }
    loaded = set(done.stderr.split())
    assert not loaded & heavy
    assert {name for name in loaded if name.startswith("buildtool.")} == {
        "buildtool.cli",
        "buildtool.cli.main",
        "buildtool.core",
        "buildtool.core.errors",
    }


def test_without_a_command_the_help_is_talk() -> None:
    """Without a command, the help goes to stderr, and the exit code is that of a usage error."""
    done = _start()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: buildtool ")


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["buildx"], ["unknown command 'buildx' (did you mean build?)", "buildtool --help shows the usage"]),
        (["zzz\n"], ["unknown command 'zzz\\n'", "buildtool --help shows the usage"]),
        (["--nope"], ["unknown option '--nope'", "buildtool --help shows the usage"]),
        (
            ["compile", "--jobs", "0"],
            [
                "--jobs: 0 is not an integer from 1 to 1024",
                "buildtool compile --help shows the usage",
            ],
        ),
    ],
)
def test_usage_errors_are_one_line_and_a_hint(
    arguments: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """No usage block, no traceback, exit code 2."""
    assert run(arguments) == 2
    message, hint = lines
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"buildtool: error: {message}\nbuildtool: hint: {hint}\n".replace(
        "option '", "option '"
    )


def test_a_missing_library_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    """A builder image that was made for an older version may lack one."""
    text = "raise ModuleNotFoundError('No module named elftools', name='elftools')\n"
    (tmp_path / "elftools.py").write_text(text)
    done = _start("inspect", "x.bpf.o", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    message, hint = done.stderr.splitlines()
    assert message == "buildtool: error: Python module elftools: not found"
    assert hint.startswith("buildtool: hint: install buildtool again")


def test_a_full_output_is_an_error() -> None:
    """A command whose output cannot be written fails."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run([*BUILDTOOL, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"buildtool: error: cannot write output: no space left on device\n"


def test_a_reader_that_left_is_no_traceback() -> None:
    """`buildtool ... | head` ends quietly."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*BUILDTOOL, "--help"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_completion_offers_commands_options_and_architectures() -> None:
    """Completion of docs/how-to/shell-completion.md offers commands, options and architectures."""

    def complete(words: str, at: int) -> list[str]:
        done = _start(_BUILDTOOL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(at))
        assert done.returncode == 0
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("buildtool comp", 1) == ["compile"]
    assert complete("buildtool compile --outp", 2) == ["--output"]
    assert complete("buildtool compile --arch ar", 3) == ["arm64", "arm"]


def _options(command: click.Command, path: str = "buildtool") -> Iterator[tuple[str, click.Parameter]]:
    """Yield the parameters of *command* and those below it, with the words before them."""
    for parameter in command.params:
        yield path, parameter
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found
            yield from _options(found, f"{path} {name}")


def test_every_file_and_architecture_is_completed() -> None:
    """An argument or option that a file or an architecture may follow completes such names."""
    empty = click.Context(click.Command("x"))
    seen = set()
    for path, parameter in _options(cli):
        shown = {item.value or item.type for item in parameter.shell_complete(empty, "")}
        words = {*(parameter.metavar or "").replace("[", " ").replace("]", " ").replace("|", " ").split()}
        if "--arch" in parameter.opts:
            assert shown >= {"amd64", "loong64"}, path
        elif (
            words & {"IMAGE", "OBJECT", "OBJECT...", "IMAGE...", "ARCHIVE"} or parameter.opts[0] == "--output"
        ):
            assert shown == {"file"}, f"{path} {parameter.opts}"
        else:
            continue
        seen.add(path)
    assert seen >= {"buildtool sbom", "buildtool images prepare", "buildtool build", "buildtool verify"}


def test_verbose_shows_commands_and_no_secret(tmp_path: Path) -> None:
    """The environment that carries keys is never part of a line."""
    done = _start(
        "-v",
        "doctor",
        "--json",
        BUILDTOOL_SIGNING_KEY="very-secret",
        BUILDTOOL_KEY_PASSPHRASE="very-secret",
        HOME=str(tmp_path),
    )
    assert "buildtool: run: docker version " in done.stderr
    assert "very-secret" not in done.stderr + done.stdout


def test_names_do_not_drive_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file name with control characters is escaped in the error, which stays one line."""
    (tmp_path / "a.pub").write_bytes(generate_key().public.pem)
    for name in ("\x1b[2Jx.o", "two\nlines.o", "c1\x9bx.o", "right\u202eleft.o"):
        path = tmp_path / name
        path.write_bytes(b"not an object")
        for argv in (["verify", "--trust", tmp_path / "a.pub", path], ["inspect", path], ["check", path]):
            run([str(word) for word in argv])
            said = capsys.readouterr()
            assert name not in said.out + said.err
            assert (said.out + said.err).replace("\n", "").replace("\t", "").isprintable()


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    """Each command reports a missing working directory in one line."""
    for command in ("init", "doctor", "build", "compile", "check", "render", "rebuild --check x"):
        gone = tmp_path / "gone"
        gone.mkdir()
        script = f"rmdir {gone}; exec {sys.executable} -m buildtool {command}"
        done = subprocess.run(
            ["sh", "-c", script], cwd=gone, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 1, command
        assert done.stderr == "buildtool: error: current directory: no such file or directory\n", command


def test_a_name_that_no_file_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    """The system's reason in one line, and not all of the name."""
    assert run(["inspect", "x" * 5000]) == 1
    error = capsys.readouterr().err
    assert error.startswith("buildtool: error: xxx")
    assert error.endswith("x: file name too long\n")
    assert len(error) < 300
