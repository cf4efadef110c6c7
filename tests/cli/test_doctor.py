# SPDX-License-Identifier: Apache-2.0
"""`doctor` on this very machine, without an engine and with an empty PATH."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from labs.project import make_local_project

from buildtool.cli.main import run


def test_no_engine_means_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rest of the machine is still looked at; JSON has a fixed set of members."""
    monkeypatch.setenv("BUILDTOOL_LOADERS", str(tmp_path))  # a checkout may have made its own
    assert run(["doctor", "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)
    assert {frozenset(check) for check in checks} == {
        frozenset(("name", "needed_for", "ok", "found", "advice"))
    }
    by_name = {check["name"]: check for check in checks}
    assert not by_name["docker engine"]["ok"]
    assert by_name["kernel"]["found"].startswith(os.uname().release)
    assert by_name["kernel BTF"]["ok"] == Path("/sys/kernel/btf/vmlinux").exists()


def test_the_local_engine_is_enough(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without Docker, carried loaders and a compiler are enough for exit code 0."""
    if not any(Path(place).glob("clang*") for place in os.get_exec_path()):
        pytest.skip("needs-tool: clang")
    make_local_project(tmp_path, monkeypatch)
    assert run(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert not checks["docker engine"]["ok"]
    assert checks["carried loaders"]["ok"]
    assert checks["carried loaders"]["needed_for"] == "build --engine local"


def test_loaders_that_the_first_build_links(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A checkout carries no loader. Doctor says that the first build links it, and exits with 0."""
    if shutil.which("clang-19") is None or not Path("/etc/debian_version").exists():
        pytest.skip("needs-tool: clang")
    monkeypatch.setattr("buildtool.runtime.provide.data_directory", lambda: tmp_path)
    monkeypatch.delenv("BUILDTOOL_LOADERS", raising=False)
    monkeypatch.setenv("BUILDTOOL_CACHE", str(tmp_path / "cache"))
    assert run(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert not checks["docker engine"]["ok"]
    assert checks["carried loaders"]["ok"]
    assert checks["carried loaders"]["found"].startswith("none; the first build links them, with clang 19")
    (tmp_path / "bin").mkdir()
    clang = shutil.which("clang-19")
    assert clang
    (tmp_path / "bin/clang-19").symlink_to(Path(clang).resolve())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert run(["doctor", "--json"]) == 1
    check = next(each for each in json.loads(capsys.readouterr().out) if each["name"] == "carried loaders")
    assert check["found"] == "none, and this machine cannot link them: apt-get: not found"
    assert check["advice"] == "link the loader on a Debian machine"


def test_an_empty_path_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line for each part, fields separated by tabs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("buildtool.compile.ziglang.find_zig", lambda: None)
    assert run(["doctor"]) == 1
    output = capsys.readouterr()
    rows = [line.split("\t") for line in output.out.splitlines()]
    assert output.err == ""
    assert {len(row) for row in rows} == {5}
    found = {row[1]: row for row in rows}
    assert found["clang"][:4] == ["missing", "clang", "compile", "clang: not found"]
    assert found["clang"][4].startswith("apt install clang")
    assert found["docker engine"][3] == "docker: not found"


@pytest.mark.parametrize(
    ("variable", "value", "found"),
    [
        ("BUILDTOOL_LOADERS", "none", "BUILDTOOL_LOADERS: none: no such directory"),
        ("BUILDTOOL_CACHE", "rel", "BUILDTOOL_CACHE: 'rel' is not an absolute path"),
    ],
)
def test_a_wrong_variable_is_a_line_of_the_table(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
    value: str,
    found: str,
) -> None:
    """It is what is wrong with this host: the rest is looked at all the same."""
    monkeypatch.setattr("buildtool.runtime.provide.data_directory", lambda: tmp_path)
    monkeypatch.setenv(variable, value)
    assert run(["doctor", "--json"]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["carried loaders"]["found"] == found
    assert variable in checks["carried loaders"]["advice"]
    assert "kernel" in checks
