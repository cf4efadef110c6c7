# SPDX-License-Identifier: Apache-2.0
"""`compile` with a real clang: same bytes anywhere, all or nothing, one line for each mistake."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from labs.readelf import read_with_llvm

from buildtool.cli.main import run
from buildtool.compile.record import read_compile_record
from buildtool.compile.toolchain import find_toolchain
from buildtool.core.platforms import PLATFORMS

pytestmark = pytest.mark.tools

SOURCE = """\
#include <linux/types.h>
#include "answer.h"
char LICENSE[] __attribute__((section("license"), used)) = "GPL";
#if defined(__TARGET_ARCH_x86)
#define MACHINE 62
#elif defined(__TARGET_ARCH_arm64)
#define MACHINE 183
#elif defined(__TARGET_ARCH_arm)
#define MACHINE 40
#elif defined(__TARGET_ARCH_riscv)
#define MACHINE 243
#elif defined(__TARGET_ARCH_s390)
#define MACHINE 22
#elif defined(__TARGET_ARCH_powerpc)
#define MACHINE 21
#elif defined(__TARGET_ARCH_loongarch)
#define MACHINE 258
#endif
static __u64 secret(void) { return ANSWER; }
__attribute__((section("socket"), used)) int program(void *context) { return MACHINE + secret(); }
"""


@pytest.fixture(autouse=True)
def _clang() -> None:
    if not any(Path(place).glob("clang*") for place in os.get_exec_path()):
        pytest.skip("needs-tool: clang")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a project with one program, as the working directory."""
    directory = tmp_path / "project"
    _write_project(directory)
    monkeypatch.chdir(directory)
    return directory


def _write_project(directory: Path) -> None:
    (directory / "bpf").mkdir(parents=True)
    (directory / "bpf/x.bpf.c").write_text(SOURCE, encoding="utf-8")
    (directory / "bpf/answer.h").write_text("#define ANSWER 42\n", encoding="utf-8")


def _files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    output = capsys.readouterr()
    assert output.out == ""
    lines = [line for line in output.err.splitlines() if line.startswith("buildtool: error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("buildtool: error: ")


@pytest.mark.tools
def test_every_architecture_compiles_to_its_own_object(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte order and __TARGET_ARCH_* are the platform's; BTF is there, DWARF is not."""
    assert run(["compile", *(f"--arch={arch}" for arch in PLATFORMS)]) == 0
    assert capsys.readouterr().out.split() == [f"build/{arch}/x.bpf.o" for arch in PLATFORMS]
    seen = set()
    for platform in PLATFORMS.values():
        path = project / "build" / platform.arch / "x.bpf.o"
        elf = read_with_llvm(path)
        assert elf.header["Machine"] == "EM_BPF"
        assert elf.header["Data"].endswith("little endian") == platform.little_endian
        assert elf.section(".BTF").size > 0
        assert not [section.name for section in elf.sections if section.name.startswith(".debug")]
        entry = read_compile_record(path.parent)["x.bpf.o"]
        assert entry.platform == platform.oci
        assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        seen.add(entry.sha256)
    assert len(seen) == len(PLATFORMS)


def test_same_bytes_from_another_directory_umask_locale_and_environment(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name or setting of the machine is in an object or in its record."""
    argv = [sys.executable, "-m", "buildtool", "compile", "--arch=arm64"]
    subprocess.run(argv, cwd=project, check=True, capture_output=True)
    other = tmp_path / "another place" / "deep"
    _write_project(other)
    settings = {"LC_ALL": "tr_TR.UTF-8", "CPATH": str(tmp_path), "HOME": str(tmp_path), "TZ": "Asia/Tokyo"}
    subprocess.run(
        argv, cwd=other, check=True, capture_output=True, env={**os.environ, **settings}, umask=0o077
    )
    for name in ("x.bpf.o", ".compile.json"):
        assert (project / "build/arm64" / name).read_bytes() == (other / "build/arm64" / name).read_bytes()
    assert str(tmp_path).encode() not in (other / "build/arm64/x.bpf.o").read_bytes()
    # A source that is named absolutely is the same source.
    monkeypatch.chdir(project)
    before = (project / "build/arm64/x.bpf.o").read_bytes()
    assert run(["compile", str(project / "bpf/x.bpf.c"), "--arch=arm64"]) == 0
    assert (project / "build/arm64/x.bpf.o").read_bytes() == before


def test_the_source_digest_covers_what_is_included_and_can_be_checked_with_sha256sum(project: Path) -> None:
    """The digest changes with a header of the project, and not with system headers."""
    assert run(["compile", "--arch=amd64"]) == 0
    source = read_compile_record(project / "build/amd64")["x.bpf.o"].source
    command = "sha256sum bpf/answer.h bpf/x.bpf.c | sha256sum"
    expected = subprocess.run(["sh", "-c", command], cwd=project, check=True, capture_output=True, text=True)
    assert source.sha256 == expected.stdout.split()[0]
    assert source.path == "bpf/x.bpf.c"
    (project / "bpf/answer.h").write_text("#define ANSWER 42 // same code\n", encoding="utf-8")
    assert run(["compile", "--arch=amd64"]) == 0
    assert read_compile_record(project / "build/amd64")["x.bpf.o"].source.sha256 != source.sha256


def test_json_says_what_was_made(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The machine-readable form has the record's members."""
    assert project.is_dir()
    assert run(["compile", "--arch=amd64", "--json", "--flag=-DEXTRA=1"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["platform"] == "linux/amd64"
    assert entry["toolchain"]["compiler"] == find_toolchain().name
    assert entry["toolchain"]["flags"][-1] == "-DEXTRA=1"
    assert not [flag for flag in entry["toolchain"]["flags"] if "/" in flag]


def test_output_include_and_source_of_the_command_line(tmp_path: Path, project: Path) -> None:
    """The Dockerfile's command: one source, one architecture, one directory."""
    (project / "include").mkdir()
    (project / "bpf/answer.h").rename(project / "include/answer.h")
    output = tmp_path / "objects"
    argv = ["compile", "bpf/x.bpf.c", "--arch=arm64", f"--output={output}", "--include=include"]
    assert run(argv) == 0
    assert _files(output) == [".compile.json", "x.bpf.o"]
    assert "-I" in read_compile_record(output)["x.bpf.o"].toolchain.flags


def test_a_warning_is_shown_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same warning on two architectures is printed once, and both objects are written."""
    source = project / "bpf/x.bpf.c"
    source.write_text(source.read_text() + "static int unused_one;\n", encoding="utf-8")
    assert run(["compile", "--arch=amd64", "--arch=arm64"]) == 0
    assert capsys.readouterr().err.count("unused variable") == 1


def test_a_failure_changes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two sources one is wrong: clang's words with the file, no object of either, the old ones stay."""
    assert run(["compile", "--arch=amd64"]) == 0
    before = {name: (project / name).read_bytes() for name in _files(project)}
    capsys.readouterr()
    (project / "bpf/a.bpf.c").write_text("int good;\n", encoding="utf-8")
    (project / "bpf/b.bpf.c").write_text("int bad(;\n", encoding="utf-8")
    (project / "bpf/answer.h").write_text("#define ANSWER 43\n", encoding="utf-8")
    assert run(["compile", "--arch=amd64", "--arch=arm64"]) == 1
    text = capsys.readouterr()
    assert "bpf/b.bpf.c:1:9: error: " in text.err
    assert text.err.endswith("buildtool: error: cannot compile bpf/b.bpf.c (amd64), bpf/b.bpf.c (arm64)\n")
    new = {"bpf/a.bpf.c", "bpf/b.bpf.c"}
    assert set(_files(project)) == set(before) | new
    assert (project / "build/amd64/x.bpf.o").read_bytes() == before["build/amd64/x.bpf.o"]
    assert not (project / "build/arm64").exists()


def test_the_clock_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """__DATE__ would give other bytes tomorrow."""
    (project / "bpf/x.bpf.c").write_text("const char *when = __DATE__;\n", encoding="utf-8")
    assert run(["compile", "--arch=amd64"]) == 1
    assert "[-Werror,-Wdate-time]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["bpf/missing.bpf.c"], 1, "bpf/missing.bpf.c: cannot read: no such file or directory"),
        (["bad/dir.bpf.c"], 1, "bad/dir.bpf.c: a directory, not a file"),
        (["bad/loop.bpf.c"], 1, "bad/loop.bpf.c: cannot read: too many levels of symbolic links"),
        (["bpf/answer.h"], 2, "bpf/answer.h: not a source"),
        (["bpf/x.bpf.c", "other/x.bpf.c"], 2, "x.bpf.o: made from two sources: bpf/x.bpf.c, other/x.bpf.c"),
        (["--", "-x.bpf.c"], 2, "'-x.bpf.c': a file name must not begin with '-' or '@'"),
        (["@x.bpf.c"], 2, "'@x.bpf.c': a file name must not begin with '-' or '@'"),
        (["--arch=vax"], 2, "unknown architecture 'vax'"),
        (["--arch=amd64", "--arch=arm64", "--output=o"], 2, "--output requires exactly one --arch"),
        (["--flag=-o/etc/passwd"], 2, "--flag: '-o/etc/passwd' is not a flag"),
        (["--include=nowhere"], 1, "nowhere: not a directory"),
        (["--config=nowhere.toml"], 2, "nowhere.toml: cannot read: no such file or directory"),
        (["--output=bpf/x.bpf.c"], 1, "bpf/x.bpf.c: cannot make directory: file exists"),
        (["--output=/proc/nowhere"], 1, "/proc/nowhere: cannot make directory: "),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    """Each mistake, its exit code, its line."""
    (project / "bad/dir.bpf.c").mkdir(parents=True)
    (project / "other").mkdir()
    shutil.copy(project / "bpf/x.bpf.c", project / "other/x.bpf.c")
    (project / "bad/loop.bpf.c").symlink_to("loop.bpf.c")
    before = _files(project)
    defaults = [] if any(word.startswith("--arch") for word in arguments) else ["--arch=amd64"]
    assert run(["compile", *defaults, *arguments]) == code
    assert _error(capsys).startswith(message)
    assert _files(project) == before
    assert not (project / "build").exists()


def test_an_empty_project_says_where_sources_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hint names init."""
    monkeypatch.chdir(tmp_path)
    assert run(["compile", "--arch=amd64"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("buildtool: error: buildtool.toml: no such file, and no sources: nothing matches ")
    assert "buildtool init" in text
    (tmp_path / "buildtool.toml").write_text('[project]\nname = "x"\n')
    assert run(["compile", "--arch=amd64"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("buildtool: error: no sources: nothing matches bpf/*.bpf.c\n")
    assert "compile.sources" in text


def test_no_clang_says_what_to_install(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty PATH stands for a machine without a compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("buildtool.compile.ziglang.find_zig", lambda: None)
    assert run(["compile", "--arch=amd64"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("buildtool: error: clang: not found\nbuildtool: hint: install clang")
    assert not (project / "build").exists()


def test_a_full_disk_leaves_nothing(project: Path, tmp_path: Path) -> None:
    """A file size limit stands for it: the compiler cannot finish its file."""
    script = 'ulimit -f 1; exec "$@"'
    argv = [sys.executable, "-m", "buildtool", "compile", "--arch=amd64", f"--output={tmp_path}/o"]
    done = subprocess.run(
        ["bash", "-c", script, "bash", *argv], cwd=project, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "buildtool: error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_compilers_and_leaves_nothing(
    project: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A compiler that never ends stands for a long compilation."""
    clang = tmp_path / "clang"
    clang.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "clang version 19.0" && exit\necho $$ >> {tmp_path}/pids\n'
        "exec sleep 1000\n",
        encoding="utf-8",
    )
    clang.chmod(0o755)
    (project / "bpf/y.bpf.c").write_text("int y;\n", encoding="utf-8")
    argv = [sys.executable, "-m", "buildtool", "compile", "--arch=amd64", "--jobs=2"]
    environ = {**os.environ, "BUILDTOOL_CLANG": str(clang)}
    with subprocess.Popen(argv, cwd=project, env=environ, stderr=subprocess.PIPE, text=True) as child:
        pids: list[int] = []
        for _ in range(200):
            if (tmp_path / "pids").exists():
                pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
            if len(pids) == 2:
                break
            time.sleep(0.05)
        child.send_signal(number)
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err.strip()) == (1, "buildtool: error: interrupted")
    assert len(pids) == 2
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not (project / "build").exists()


def test_the_record_keeps_other_objects(project: Path) -> None:
    """Compiling one source again does not forget the rest; what is gone is forgotten."""
    (project / "bpf/y.bpf.c").write_text("int y;\n", encoding="utf-8")
    assert run(["compile", "--arch=amd64"]) == 0
    assert run(["compile", "--arch=amd64", "bpf/y.bpf.c"]) == 0
    directory = project / "build/amd64"
    assert sorted(read_compile_record(directory)) == ["x.bpf.o", "y.bpf.o"]
    (directory / "x.bpf.o").unlink()
    assert run(["compile", "--arch=amd64", "bpf/y.bpf.c"]) == 0
    assert sorted(read_compile_record(directory)) == ["y.bpf.o"]


@pytest.mark.parametrize("clang", ["", "ziglang"])
@pytest.mark.parametrize(
    "room", ["size=4k", "size=8k", "nr_inodes=3", "nr_inodes=4", "nr_inodes=5", "nr_inodes=6"]
)
def test_full_disk_is_one_line(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    as_root: None,
    room: str,
    clang: str,
) -> None:
    """Whichever step finds no room: no stack dump of a compiler, and nothing is left."""
    monkeypatch.setenv("BUILDTOOL_CLANG", clang)
    small = project / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", room, "none", small], check=True)
    try:
        assert run(["compile", "--arch", "amd64", "--output", "small/out"]) == 1
        assert capsys.readouterr() == (
            "",
            "buildtool: error: small/out: cannot write: no space left on device\n",
        )
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_source_that_speaks_of_full_disks(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source with the text of the error is not reported as a full disk, but with clang's diagnostics."""
    text = "#error No space left on device\n// error: No space left on device\nint x = y;\n"
    (project / "bpf/x.bpf.c").write_text(text, encoding="utf-8")
    assert run(["compile", "--arch", "amd64"]) == 1
    assert capsys.readouterr().err.endswith("buildtool: error: cannot compile bpf/x.bpf.c (amd64)\n")
