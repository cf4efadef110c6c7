# SPDX-License-Identifier: Apache-2.0
"""Objects that are older than their sources: check, load and sign refuse them, verify names them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from buildtool.cli.main import run
from buildtool.compile.record import RECORD_NAME
from buildtool.core.platforms import this_platform

pytestmark = pytest.mark.tools

ARCH = this_platform().arch
OBJECT = f"build/{ARCH}/x.bpf.o"
SOURCE = """\
#include "answer.h"
char LICENSE[] __attribute__((section("license"), used)) = "GPL";
__attribute__((section("socket"), used)) int program(void *context) { return ANSWER; }
"""
CONFIG = '[compile]\ninclude = ["include"]\n[sign]\nkey = "keys/dev.pem"\n'
CHANGED = "bpf/x.bpf.c or a file that it includes has changed"
REMEDY = "remove an object whose source is gone"
HINT = f"buildtool: hint: buildtool compile --arch {ARCH} makes it again, then sign it; {REMEDY}"

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path, capsys: Capture) -> Path:
    """Return a project with a compiled object, a key, and a loader that accepts everything."""
    for name, text in {
        "bpf/x.bpf.c": SOURCE,
        "include/answer.h": "#define ANSWER 42\n",
        "buildtool.toml": CONFIG,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUILDTOOL_CLANG", str(clang))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("BUILDTOOL_LOADER", "/bin/true")
    assert run(["keygen", "dev"]) == 0
    assert run(["compile"]) == 0
    capsys.readouterr()
    return tmp_path


def _edit_header(project: Path) -> None:
    (project / "include/answer.h").write_text("#define ANSWER 43\n", encoding="utf-8")


def _load(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "buildtool", "load", *arguments]
    return subprocess.run(argv, check=False, capture_output=True, text=True)


def _sign(capsys: Capture) -> None:
    assert run(["sign", OBJECT]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("signed", [False, True])
def test_a_changed_header_makes_the_object_stale(project: Path, capsys: Capture, *, signed: bool) -> None:
    """`check` fails with BT060, whether the object is signed or not. Compiling again mends it."""
    if signed:
        _sign(capsys)
    assert run(["check"]) == 0
    _edit_header(project)
    capsys.readouterr()
    assert run(["check"]) == 1
    output = capsys.readouterr()
    message = f"error BT060 {ARCH}/x.bpf.o: {CHANGED}"
    assert message in output.out.splitlines()
    assert f"    hint: buildtool compile --arch {ARCH} makes it again; {REMEDY}" in output.out.splitlines()
    assert run(["compile"]) == 0
    assert run(["check"]) == 0


def test_a_touched_or_restored_source_is_not_stale(project: Path, capsys: Capture) -> None:
    """The contents decide, not the times."""
    before = (project / "bpf/x.bpf.c").read_text()
    (project / "bpf/x.bpf.c").write_text(before + "\n", encoding="utf-8")
    assert run(["check"]) == 1
    (project / "bpf/x.bpf.c").write_text(before, encoding="utf-8")
    assert run(["check"]) == 0
    capsys.readouterr()


def test_no_kernel_is_asked_about_a_stale_object(project: Path, capsys: Capture) -> None:
    """A dry run of the old program would prove nothing, so none is started."""
    _edit_header(project)
    assert run(["check", "--kernel", "host", "--json"]) == 1
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert report["runs"] == []
    assert "BT060" in {finding["rule"] for finding in report["findings"]}
    assert "buildtool: no kernel is asked: an object is older than its source" in output.err.splitlines()


def test_signing_refuses_a_stale_object(project: Path, capsys: Capture) -> None:
    """The object stays as it was."""
    before = (project / OBJECT).read_bytes()
    _edit_header(project)
    assert run(["sign", OBJECT]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"buildtool: error: {OBJECT}: older than its source: {CHANGED}",
        HINT,
    ]
    assert (project / OBJECT).read_bytes() == before


def test_loading_refuses_a_stale_object(project: Path, capsys: Capture) -> None:
    """The loader is not started, for the project's directory and for the object's name."""
    _sign(capsys)
    assert _load().returncode == 0
    _edit_header(project)
    for arguments in ((), (OBJECT,), (f"build/{ARCH}", "--verify-only")):
        done = _load(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[0].startswith(f"buildtool: error: {OBJECT}: older than its source: ")
        assert done.stderr.splitlines()[1] == HINT


def test_verifying_names_a_stale_object_and_accepts_it(project: Path, capsys: Capture) -> None:
    """The signature is valid, so the verdict and the exit code stay. One line on stderr names the object."""
    _sign(capsys)
    assert run(["verify", OBJECT, "--trust", "keys/dev.pub"]) == 0
    assert capsys.readouterr().err == ""
    _edit_header(project)
    assert run(["verify", OBJECT, "--trust", "keys/dev.pub"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{OBJECT}: accepted")
    assert output.err.startswith(f"buildtool: {OBJECT}: older than its source: bpf/x.bpf.c or a file")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "what"),
    [("bpf/x.bpf.c", "bpf/x.bpf.c"), ("include/answer.h", "include/answer.h, which bpf/x.bpf.c included,")],
)
def test_a_removed_source_makes_the_object_stale(
    project: Path, capsys: Capture, name: str, what: str
) -> None:
    """The object of a source that was removed or renamed must not go on being checked and loaded."""
    (project / name).unlink()
    (project / "bpf/y.bpf.c").write_text(SOURCE, encoding="utf-8")
    assert run(["check"]) == 1
    assert f": {what} no longer exists" in capsys.readouterr().out
    assert _load().returncode == 1
    # A signing machine may lack generated sources and headers.
    assert run(["sign", OBJECT]) == 0
    assert run(["verify", OBJECT, "--trust", "keys/dev.pub"]) == 0
    assert "older" not in capsys.readouterr().err


def test_changed_headers_make_the_object_stale(project: Path, capsys: Capture) -> None:
    """An object of the carried headers is another one than that of the machine's."""
    (project / "buildtool.toml").write_text(CONFIG.replace("[sign]", "system-headers = true\n[sign]"))
    assert run(["check"]) == 1
    assert "compile.system-headers has changed" in capsys.readouterr().out


def test_changed_settings_make_the_object_stale(project: Path, capsys: Capture) -> None:
    """Flags of the configuration decide about the object as its source does."""
    (project / "buildtool.toml").write_text(CONFIG.replace('["include"]', '["include"]\nflags = ["-DX=1"]'))
    assert run(["check"]) == 1
    assert "compile.include, compile.flags or compile.object has changed" in capsys.readouterr().out
    assert run(["compile"]) == 0
    assert run(["check"]) == 0


def test_flags_of_the_command_line_are_kept(project: Path, capsys: Capture) -> None:
    """An object with flags of its own is not compared with the configuration's flags."""
    assert project.is_dir()
    assert run(["compile", "--flag=-DY=2"]) == 0
    assert run(["check"]) == 0
    capsys.readouterr()


def test_objects_without_their_project_are_accepted(project: Path, capsys: Capture, tmp_path: Path) -> None:
    """A signing machine or a node has objects and no sources: nothing can be older there."""
    _sign(capsys)
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-node") / "deep/objects"
    shutil.copytree(project / f"build/{ARCH}", elsewhere)
    _edit_header(project)
    assert run(["check", str(elsewhere)]) == 0
    assert _load(str(elsewhere)).returncode == 0
    assert run(["verify", str(elsewhere / "x.bpf.o"), "--trust", "keys/dev.pub"]) == 0
    assert run(["sign", str(elsewhere / "x.bpf.o"), "--force"]) == 0
    assert "older" not in capsys.readouterr().err


def test_a_directory_without_a_project_has_no_sources_to_miss(
    project: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's builder signs in an empty directory that had the sources when the objects were compiled."""
    builder = tmp_path.with_name(f"{tmp_path.name}-builder")
    shutil.copytree(project / "build", builder / "build")
    monkeypatch.chdir(builder)
    assert run(["sign", OBJECT, "--key", str(project / "keys/dev.pem")]) == 0
    assert run(["check"]) == 0
    capsys.readouterr()


def test_a_moved_project_is_compared_in_its_new_place(
    project: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record names the project's directory relative to itself."""
    new = tmp_path.with_name(f"{tmp_path.name}-moved")
    shutil.copytree(project, new)
    monkeypatch.chdir(new)
    _edit_header(project)
    assert run(["check"]) == 0
    _edit_header(new)
    assert run(["check"]) == 1
    capsys.readouterr()


def test_a_source_without_an_object_is_named(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new source that was not compiled is not checked, which a line says."""
    (project / "bpf/new.bpf.c").write_text(SOURCE, encoding="utf-8")
    assert run(["check"]) == 0
    line = f"bpf/new.bpf.c: not compiled for {ARCH}, so it is not checked; buildtool compile makes its object"
    assert line in caplog.messages


def test_a_damaged_record_does_not_disturb_verification(project: Path, capsys: Capture) -> None:
    """The record is of no importance for a signature."""
    _sign(capsys)
    (project / OBJECT).with_name(RECORD_NAME).write_text("{", encoding="utf-8")
    assert run(["verify", OBJECT, "--trust", "keys/dev.pub"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "damaged"),
    [
        ({"inputs": ["bpf/x.bpf.c", "a" * 300]}, False),
        ({"root": "a" * 5000}, False),
        ({"inputs": ["bpf/x.bpf.c", "a\0b"]}, False),
        ({"root": "a\0b"}, True),
        ({"root": "\ud800"}, True),
    ],
    ids=["input too long", "root too long", "NUL in an input", "NUL in the root", "root that is not UTF-8"],
)
def test_a_record_with_impossible_paths(
    project: Path, capsys: Capture, changes: dict[str, object], *, damaged: bool
) -> None:
    """A path that no file can have is a missing source, or one line; the signature counts as before."""
    _sign(capsys)
    path = (project / OBJECT).with_name(RECORD_NAME)
    record = json.loads(path.read_text(encoding="utf-8"))
    record["objects"]["x.bpf.o"] |= changes
    path.write_text(json.dumps(record), encoding="utf-8")
    assert run(["verify", OBJECT, "--trust", "keys/dev.pub"]) == 0
    capsys.readouterr()
    code = run(["check"])
    said = capsys.readouterr()
    if damaged:
        assert code != 0
        assert f"{RECORD_NAME}: not a compile record" in said.err
    elif "root" in changes:
        assert (code, "passed" in said.err) == (0, True)
    else:
        assert code == 1
        assert "no longer exists" in said.out + said.err
