# SPDX-License-Identifier: Apache-2.0
"""`init --from`: projects as teams have them, compiled, signed and verified without a change of theirs."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from labs.adopting import LAYOUTS, Layout, program, types
from labs.cli import check_error
from labs.compile import compile_sample
from labs.sig import unsigned

from buildtool.adopt.render import count_lines
from buildtool.cli.main import run
from buildtool.core.platforms import PLATFORMS
from buildtool.runtime.probe import PROBES_VARIABLE

Capture = pytest.CaptureFixture[str]
ARCHITECTURES = ("amd64", "arm64")
pytestmark = pytest.mark.usefixtures("carried_headers")


def _texts(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_project_compiles_signs_and_verifies(
    name: str, probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The configuration has few lines, names what it cannot tell, and its objects are accepted."""
    layout = LAYOUTS[name]
    root = layout.write(tmp_path / "project")
    before = _texts(root)
    assert run(["init", "--from", str(root)]) == 0
    said = capsys.readouterr()
    config = (root / "buildtool.toml").read_text("utf-8")
    assert said.out == f"{root / 'buildtool.toml'}\n"
    assert count_lines(config) <= layout.lines, config
    for line in layout.config:
        assert line in config.splitlines(), config
    for note in layout.notes:
        assert note in said.err
    assert {key: value for key, value in _texts(root).items() if key != "buildtool.toml"} == before
    monkeypatch.chdir(root)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv(PROBES_VARIABLE, str(probes))  # links objects, and opens them as libbpf does
    _prepare(layout, said.err)
    assert run(["keygen", "release"]) == 0
    assert run(["compile"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    for arch in ARCHITECTURES:
        objects = sorted(map(str, Path("build", arch).rglob("*.o")))
        names = {path.removeprefix(f"build/{arch}/").replace("/", ".") for path in objects}
        absent = {name for place, name in layout.absent if place == arch}
        assert names == set(layout.objects) - absent
        assert run(["sign", *objects]) == 0, capsys.readouterr().err
        platform = PLATFORMS[arch].oci
        assert run(["verify", "--trust", "keys/release.pub", "--platform", platform, *objects]) == 0
        assert run(["check", *objects]) == 0, capsys.readouterr().out


def _prepare(layout: Layout, said: str) -> None:
    """Do what the line `next:` says before compiling."""
    if "buildtool generate" in said:
        assert run(["generate"]) == 0
    if "buildtool vmlinux" in said:
        for arch in ARCHITECTURES:
            place = Path("vmlinux", arch)
            place.mkdir(parents=True)
            (place / "vmlinux.h").write_text(types(PLATFORMS[arch].target_arch))
    assert layout.objects


def test_each_flag_and_header_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layouts check settings: with other flags than those that init writes, they do not compile."""
    for name in ("flat", "samples", "cmake", "meson", "rust"):
        root = LAYOUTS[name].write(tmp_path / name)
        assert run(["init", "--from", str(root)]) == 0
        monkeypatch.chdir(root)
        assert run(["compile", "--flag=-DNOTHING"]) == 1


def test_compiled_objects_alone_are_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A project without sources gets a configuration for signing, and the command that signs."""
    root = tmp_path / "project"
    (root / "objects").mkdir(parents=True)
    (root / "objects/agent.o").write_bytes(compile_sample(tmp_path).read_bytes())
    (root / "objects/native.o").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(60))
    assert run(["init", "--from", str(root)]) == 0
    said = capsys.readouterr().err
    assert "objects/agent.o: 1 compiled objects and no source" in said
    assert "native" not in said
    assert "objects/agent.o" in said.splitlines()[-1]
    monkeypatch.chdir(root)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert run(["keygen", "release"]) == 0
    for arch in ARCHITECTURES:
        out = f"signed/{arch}"
        assert run(["sign", "--arch", arch, "--output", out, "objects/agent.o"]) == 0
        assert run(["verify", "--trust", "keys/release.pub", "--arch", arch, f"{out}/agent.o"]) == 0


def test_another_configuration_is_never_replaced(tmp_path: Path, capsys: Capture) -> None:
    """Neither a file, nor a link, even one that leads nowhere."""
    root = LAYOUTS["samples"].write(tmp_path / "project")
    path = root / "buildtool.toml"
    for make in (lambda: path.write_text("mine"), lambda: path.symlink_to("nowhere")):
        make()
        assert run(["init", "--from", str(root)]) == 1
        assert f"{path}: already there" in capsys.readouterr().err
        path.unlink()
    assert not (root / "nowhere").exists()


def test_json_has_values_and_notes(tmp_path: Path, capsys: Capture) -> None:
    """Other programs read the same values, and each note with its place."""
    root = LAYOUTS["bpf2go"].write(tmp_path / "project")
    assert run(["init", "--from", str(root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == ["bpf/drops.c", "bpf/flows.c"]
    assert document["config"] == (root / "buildtool.toml").read_text("utf-8")
    assert document["notes"] == [
        {
            "place": "bpf/unfinished.c",
            "text": "left out: no build file names it, unlike other sources of its folder",
        }
    ]


def test_no_program_of_the_project_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shell functions, commands in backquotes and rules leave no trace, wherever a program is found."""
    trap = tmp_path / "bin"
    trap.mkdir()
    for name in ("make", "sh", "bash", "cmake", "meson", "go", "cargo", "clang", "python3", "touch", "uname"):
        (trap / name).write_text(f"#!/bin/sh\necho ran > {tmp_path}/ran\n")
        (trap / name).chmod(0o755)
    root, ran = tmp_path / "project", tmp_path / "ran"
    root.mkdir()
    (root / "x.bpf.c").write_text(program("x"))
    (root / "Makefile").write_text(
        f"A := $(shell touch {ran})\nB != touch {ran}\n$(eval $(shell touch {ran}))\n$(shell touch {ran})\n"
        f"x.bpf.o: x.bpf.c\n\ttouch {ran}; clang -target bpf -D$(A)X -c $<\n"
    )
    (root / "build.sh").write_text(f"X=$(touch {ran})\nclang -target bpf `touch x` -c x.bpf.c\n")
    monkeypatch.setenv("PATH", f"{trap}:{os.environ['PATH']}")
    assert run(["init", "--from", str(root)]) == 0
    assert not (tmp_path / "ran").exists()
    assert 'sources = ["x.bpf.c"]' in (root / "buildtool.toml").read_text("utf-8")


def test_a_section_that_nobody_knows_is_named(tmp_path: Path, capsys: Capture) -> None:
    """A section of an unknown kind is a note, and sections of data and of comments are none."""
    data = 'int counted SEC("mine2") = 1;\n/* SEC("mine3") int old(void *ctx); */\n'
    (tmp_path / "x.bpf.c").write_text(program("x", section="mine", before=data))
    assert run(["init", "--from", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "x.bpf.c: section mine: libbpf knows no such kind of program" in said
    assert "mine2" not in said
    assert "mine3" not in said
    assert "program = " not in (tmp_path / "buildtool.toml").read_text()


def test_compiled_objects_are_signed_by_the_printed_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The last line has commands that work as they stand, also for folders with blanks."""
    monkeypatch.chdir(tmp_path)
    Path("x.bpf.o").write_bytes(unsigned())
    Path("a b").mkdir()
    Path("a b/y.o").write_bytes(unsigned())
    assert run(["init", "--from", "."]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-2] == "buildtool: buildtool.toml: 2 compiled objects, 2 lines"
    steps = said[-1].removeprefix("buildtool: next: ").split(" && ")
    for step in steps:
        command, *arguments = shlex.split(step)
        assert command == "buildtool"
        assert run(arguments) == 0, capsys.readouterr().err
    assert run(["verify", "x.bpf.o", "a b/y.o", "--trust", "keys/release.pub"]) == 0


def test_a_directory_without_programs(tmp_path: Path, capsys: Capture) -> None:
    """The error names the directory once."""
    assert run(["init", "--from", str(tmp_path)]) == 2
    check_error(capsys, f"error: {tmp_path}: no eBPF source: ")
