# SPDX-License-Identifier: Apache-2.0
"""Which compiler is taken, and how it is called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from buildtool.compile.headers import Headers
from buildtool.compile.toolchain import (
    Toolchain,
    clean_environment,
    compile_command,
    find_toolchain,
)
from buildtool.core.errors import ToolFailedError, ToolMissingError
from buildtool.core.platforms import PLATFORMS

HEADERS = Headers(directory=Path("/h"), packages={}, lock="", files={})


def _fake(directory: Path, name: str, says: str) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to(shutil.which("sh", path="/bin:/usr/bin") or "/bin/sh")
    return tmp_path / "bin"


def test_the_newest_is_taken(tools: Path) -> None:
    """Versions of clang are compared as numbers, and a plain clang by its output."""
    _fake(tools, "clang", "Debian clang version 14.0.6")
    _fake(tools, "clang-9", "clang version 9.0.1")
    newest = _fake(tools, "clang-19", "Debian clang version 19.1.7 (3)\nTarget: x")
    _fake(tools, "clang-format-22", "no compiler")
    strip = _fake(tools, "llvm-strip-19", "")
    _fake(tools, "llvm-strip", "")
    found = find_toolchain()
    assert (found.clang, found.major, found.version) == (str(newest), 19, "Debian clang version 19.1.7 (3)")
    assert found.name == "clang 19.1.7"
    assert found.strip == str(strip)
    _fake(tools, "clang", "clang version 23.0.0")
    assert find_toolchain().major == 23


def test_a_named_one_is_taken_or_refused(tools: Path) -> None:
    """The configuration's word is not second-guessed."""
    _fake(tools, "clang-22", "clang version 22.0.0")
    other = _fake(tools.parent / "other", "my-clang", "clang version 15.0.0")
    assert find_toolchain(str(other)).major == 15
    with pytest.raises(ToolMissingError, match=r"^clang-21: not found"):
        find_toolchain("clang-21")
    with pytest.raises(ToolFailedError, match="not a clang"):
        find_toolchain(str(_fake(tools, "gcc", "gcc 14")))
    with pytest.raises(ToolMissingError, match="version 11 is too old"):
        find_toolchain(str(_fake(tools, "old", "clang version 11.0.1")))


def test_nothing_is_there(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler, the hint names packages to install."""
    assert tools.is_dir()
    monkeypatch.setattr("buildtool.compile.ziglang.find_zig", lambda: None)
    with pytest.raises(ToolMissingError) as caught:
        find_toolchain()
    assert caught.value.hint is not None
    assert "pip install ziglang" in caught.value.hint
    with pytest.raises(ToolMissingError, match="ziglang: not installed"):
        find_toolchain("ziglang")


def test_the_package_ziglang_is_last(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a clang the one of the package is taken, and by name also beside others."""
    zig = _fake(tools.parent / "package", "zig", "clang version 22.1.8")
    monkeypatch.setattr("buildtool.compile.ziglang.find_zig", lambda: zig)
    found = find_toolchain()
    assert (found.clang, found.words, found.carries, found.strip) == (str(zig), ("clang",), True, "")
    _fake(tools, "clang", "clang version 19.1.7")
    assert not find_toolchain().carries
    assert find_toolchain("ziglang") == found


def test_the_package_ziglang_uses_no_header_of_the_machine(tmp_path: Path) -> None:
    """Its clang searches the packages only, and names none of their places in the object."""
    zig = Toolchain(clang="/p/zig", major=22, version="", strip="", words=("clang",), carries=True)
    command = compile_command(
        zig, PLATFORMS["s390x"], source="x.bpf.c", output=tmp_path / "x.o", root=tmp_path, headers=HEADERS
    )
    assert command[:2] == ["/p/zig", "clang"]
    assert "-nostdinc" in command
    assert "/h/s390x" in command
    assert "-ffile-prefix-map=/p=/ziglang" in command


def test_the_command_keeps_machine_and_project_apart(tmp_path: Path) -> None:
    """Forced flags come before those of the project, whose -O wins; no path of this machine is recorded."""
    command = compile_command(
        Toolchain(clang="/x/clang", major=19, version="", strip=""),
        PLATFORMS["s390x"],
        source="bpf/x.bpf.c",
        output=tmp_path / "x.bpf.o",
        root=tmp_path,
        headers=HEADERS,
        include=(("include", "include"),),
        flags=("-O3",),
    )
    assert command[:4] == ["/x/clang", "--no-default-config", "-target", "bpfeb"]
    assert command.index("-O2") < command.index("-O3")
    assert f"-ffile-prefix-map={tmp_path}=." in command
    assert "-D__TARGET_ARCH_s390" in command
    assert "-D__s390x__" in command
    assert command[-5:] == [str(tmp_path / "x.bpf.d"), "-c", "bpf/x.bpf.c", "-o", str(tmp_path / "x.bpf.o")]


def test_the_environment_of_compilers_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of compilers lacks variables that change objects or contain keys."""
    monkeypatch.setenv("CPATH", "/x")
    monkeypatch.setenv("BUILDTOOL_SIGNING_KEY", "secret")
    assert set(clean_environment()) <= {"PATH", "TMPDIR", "TERM", "LC_ALL"}
