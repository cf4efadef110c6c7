# SPDX-License-Identifier: Apache-2.0
"""Outputs of commands: other kinds of files stay, write errors are one line, empty names are refused."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.cli import check_error
from labs.sig import unsigned

from buildtool.cli.main import run

Capture = pytest.CaptureFixture[str]
KEY = ["--key", "keys/release.pem"]
RENDER = ["render", "--arch", "amd64", *KEY]
CHECK = ["check", "x.bpf.o"]
SIGN = ["sign", "x.bpf.o", "--arch", "amd64", *KEY]
LONG = "x" * 490


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """Make a project with a key and an object, and be in it."""
    place = tmp_path / "project"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    assert run(["init", "project"]) == 0
    monkeypatch.chdir(place)
    assert run(["keygen", "release"]) == 0
    Path("x.bpf.o").write_bytes(unsigned())
    capsys.readouterr()
    return place


@pytest.fixture
def read_only(project: Path, as_root: None) -> Iterator[Path]:
    """Give a directory of a file system that nothing can be written to."""
    place = project / "fixed"
    place.mkdir()
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(
    "command",
    [
        [*RENDER, "--inline", "--force", "-o"],
        [*RENDER, "--inline", "-o"],
        [*CHECK, "--sarif"],
        [*CHECK, "--junit"],
    ],
)
def test_devices_pipes_and_links_stay(
    project: Path, capsys: Capture, as_root: None, command: list[str]
) -> None:
    """Devices, FIFOs and links as outputs are refused and stay."""
    os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mkfifo("pipe")
    Path("link").symlink_to("device")
    for name, kind in (("device", "a device"), ("pipe", "a FIFO"), ("link", "a symbolic link")):
        before = Path(name).lstat()
        assert run([*command, name]) == 1
        check_error(capsys, f"{name}: not a regular file but {kind}")
        assert Path(name).lstat().st_ino == before.st_ino
        assert stat.S_IFMT(Path(name).lstat().st_mode) == stat.S_IFMT(before.st_mode)


def test_a_report_that_cannot_be_written_is_said_first(capsys: Capture) -> None:
    """Not after minutes in virtual machines: not even the objects are looked for."""
    assert run(["check", "none.bpf.o", "--sarif", "."]) == 1
    check_error(capsys, ".: not a regular file but a directory")


@pytest.mark.parametrize(
    "command",
    [
        [*RENDER, "-o", ""],
        [*CHECK, "--sarif", ""],
        [*CHECK, "--junit", ""],
        [*SIGN, "--output", ""],
        ["compile", "--arch", "amd64", "--output", ""],
        ["inspect", "x.bpf.o", "--subject-file", ""],
        ["keygen", "other", "--dir", ""],
        ["init", ""],
        ["trust", "add", "keys/release.pub", "--policy", ""],
        ["build", "--engine", "local", "--arch", "amd64", *KEY, "--output", ""],
    ],
)
def test_an_empty_name_is_a_usage_error(project: Path, capsys: Capture, command: list[str]) -> None:
    """A variable that is not set is neither this directory nor the default."""
    before = sorted(project.rglob("*"))
    assert run(command) == 2
    check_error(capsys, "the name is empty")
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    "command",
    [
        [*CHECK, "--sarif", "-"],
        [*CHECK, "--junit", "-"],
        [*SIGN, "--output", "-"],
        ["compile", "--arch", "amd64", "--output", "-"],
        ["inspect", "x.bpf.o", "--subject-file", "-"],
        ["keygen", "other", "--dir", "-"],
        ["init", "-"],
        ["trust", "add", "keys/release.pub", "--policy", "-"],
        ["build", "--engine", "local", "--arch", "amd64", *KEY, "--output", "-"],
        ["publish", "x.tar", "--bundle", "-"],
        ["skeleton", "x.bpf.o", "--lang", "go", "-o", "-"],
    ],
)
def test_no_file_is_called_like_standard_output(project: Path, capsys: Capture, command: list[str]) -> None:
    """A command that does not write to standard output makes no file whose name other tools take for it."""
    before = sorted(project.rglob("*"))
    assert run(command) == 2
    check_error(capsys, "'-': cannot write there")
    assert sorted(project.rglob("*")) == before


def test_dockerfile_on_standard_output(project: Path, capsys: Capture) -> None:
    """`-` is what no --output is."""
    assert run(RENDER) == 0
    text = capsys.readouterr().out
    assert run([*RENDER, "-o", "-"]) == 0
    assert capsys.readouterr().out == text
    assert not (project / "-").exists()


@pytest.mark.parametrize(
    "command",
    [
        [*RENDER, "--inline", "-o", "{}/Dockerfile"],
        [*RENDER, "-o", "{}/folder"],
        [*CHECK, "--sarif", "{}/report"],
        [*CHECK, "--junit", "{}/report"],
        [*SIGN, "--output", "{}"],
        ["compile", "--arch", "amd64", "--output", "{}/objects"],
        ["keygen", "other", "--dir", "{}/keys"],
        ["init", "{}/new"],
    ],
)
def test_what_cannot_be_written_is_one_line(
    project: Path, read_only: Path, capsys: Capture, clang: Path, command: list[str]
) -> None:
    """A read-only file system, a path below a file, and a too long name result in one error line."""
    for place in (read_only, project / "buildtool.toml", project / LONG):
        assert run([word.format(place) for word in command]) == 1
        check_error(capsys, str(place))
        assert sorted(read_only.iterdir()) == []


def test_the_hint_is_what_the_command_can_do(capsys: Capture) -> None:
    """The hint for an existing file names --force only if the command has this option."""
    assert run([*SIGN, "--output", "out"]) == 0
    assert run([*RENDER, "-o", "folder"]) == 0
    assert run([*RENDER, "--inline", "-o", "Dockerfile"]) == 0
    assert run(["inspect", "out/x.bpf.o", "--subject-file", "subject"]) == 0
    capsys.readouterr()
    for command, hint in (
        ([*SIGN, "--output", "out"], "--force replaces it"),
        ([*RENDER, "-o", "folder"], "--force replaces it"),
        ([*RENDER, "--inline", "-o", "Dockerfile"], "--force replaces it"),
        (["keygen", "release"], "choose another name or remove it"),
        (["inspect", "out/x.bpf.o", "--subject-file", "subject"], "choose another name or remove it"),
    ):
        assert run(command) == 1
        error = capsys.readouterr().err
        assert "already exists" in error
        assert f"buildtool: hint: {hint}\n" in error


def test_signing_is_all_or_none_when_a_file_cannot_be_replaced(
    project: Path, capsys: Capture, as_root: None
) -> None:
    """Something is mounted on the second of three objects, which only its rename finds."""
    names = ["a.bpf.o", "b.bpf.o", "c.bpf.o"]
    for name in names:
        Path(name).write_bytes(unsigned())
    before = sorted(project.iterdir())
    subprocess.run(["mount", "--bind", "x.bpf.o", "b.bpf.o"], check=True)
    try:
        assert run(["sign", *names, "--arch", "amd64", *KEY]) == 1
    finally:
        subprocess.run(["umount", "b.bpf.o"], check=True)
    check_error(capsys, "b.bpf.o: cannot write: device or resource busy")
    assert [Path(name).read_bytes() for name in names] == [unsigned()] * 3
    assert sorted(project.iterdir()) == before


def test_objects_behind_links_are_signed_where_they_are(project: Path) -> None:
    """The link stays one."""
    Path("link.bpf.o").symlink_to("x.bpf.o")
    assert run(["sign", "link.bpf.o", "--arch", "amd64", *KEY]) == 0
    assert Path("link.bpf.o").is_symlink()
    assert Path("x.bpf.o").read_bytes() != unsigned()


def test_a_link_that_leads_round_is_no_object(capsys: Capture) -> None:
    """A loop of links as an object results in one error line."""
    Path("round.bpf.o").symlink_to("round.bpf.o")
    assert run(["sign", "round.bpf.o", "--arch", "amd64", *KEY]) == 1
    check_error(capsys, "round.bpf.o: cannot read: too many levels of symbolic links")


def test_a_policy_behind_a_link_is_changed_where_it_is(project: Path) -> None:
    """The link stays one."""
    assert run(["trust", "add", "keys/release.pub", "--policy", "real.json"]) == 0
    Path("link.json").symlink_to("real.json")
    assert run(["keygen", "second"]) == 0
    assert run(["trust", "add", "keys/second.pub", "--policy", "link.json"]) == 0
    assert Path("link.json").is_symlink()
    assert Path("real.json").read_text().count('"publicKey"') == 2
