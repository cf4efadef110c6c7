# SPDX-License-Identifier: Apache-2.0
"""The parts of compiling that need no compiler: dependency files, names, the record, directories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from buildtool.compile.plan import encode_plan, outside_names, read_plan
from buildtool.compile.record import (
    RECORD_NAME,
    CompiledObject,
    SourceInfo,
    ToolchainInfo,
    read_compile_record,
    write_compile_record,
)
from buildtool.compile.sources import parse_depfile, recorded_flags, split_flags
from buildtool.compile.toolchain import forced_flags
from buildtool.config.compiling import CompileArch, CompileObject, CompileRule, matches
from buildtool.config.file import Config, ProjectConfig
from buildtool.config.project import (
    Piece,
    Unit,
    choose_units,
    find_sources,
    links_objects,
    make_units,
    name_objects,
    plan_units,
)
from buildtool.core.digests import Digest
from buildtool.core.errors import FileAccessError, UsageError
from buildtool.core.files import made_directories, read_bounded
from buildtool.core.platforms import PLATFORMS
from buildtool.core.resources import resource_path
from buildtool.objects.types import Declaration


def test_depfiles_are_read_as_clang_writes_them() -> None:
    """Continuation lines, blanks, # and $ in names."""
    text = "/tmp/o/x.o: bpf/x.bpf.c \\\n  bpf/a\\ b.h bpf/c$$d.h \\\n  ../e\\#f.h\n"
    assert parse_depfile(text) == ["bpf/x.bpf.c", "bpf/a b.h", "bpf/c$d.h", "../e#f.h"]


def test_object_names() -> None:
    """The suffix .c becomes .o; two of one name, or names outside the alphabet, are errors."""
    units = make_units(("bpf/x.bpf.c", "y.c", "src/z_kern.c", "w.ebpf.c"))
    assert [unit.path for unit in units] == ["x.bpf.o", "y.o", "z_kern.o", "w.ebpf.o"]
    for sources in (("a/x.bpf.c", "b/x.bpf.c"), ("x.h",), ("a b.bpf.c",), (".bpf.c",)):
        with pytest.raises(UsageError):
            make_units(sources)


def _make_project(root: Path, *names: str, **settings: object) -> Config:
    """Return the configuration of a project at *root*, with empty files *names* and *settings*."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    config = Config(root=root, project=ProjectConfig(name="x"))
    return replace(config, compile=replace(config.compile, **settings))


def test_sources_are_sorted_and_unique(tmp_path: Path) -> None:
    """Sources are sorted and unique, for overlapping patterns and any order of the file system."""
    names = ("bpf/b.bpf.c", "bpf/a.bpf.c", "bpf/deep/c.bpf.c", "bpf/a.h")
    config = _make_project(tmp_path, *names, sources=("bpf/**/*.bpf.c", "bpf/*.bpf.c"))
    assert find_sources(config) == ("bpf/a.bpf.c", "bpf/b.bpf.c", "bpf/deep/c.bpf.c")
    assert find_sources(_make_project(tmp_path, sources=("bpf/**/*.bpf.c",), exclude=("bpf/deep/**",))) == (
        "bpf/a.bpf.c",
        "bpf/b.bpf.c",
    )


def test_objects_keep_the_folders_that_a_pattern_does_not_name(tmp_path: Path) -> None:
    """Folders after the first wildcard are in paths and names. Other sources do not change a name."""
    names = ("bpf/one/program.bpf.c", "bpf/two/program.bpf.c", "bpf/top.bpf.c", "top.c")
    config = _make_project(tmp_path, *names, sources=("bpf/**/*.bpf.c", "*.c"))
    units = plan_units(config, PLATFORMS["amd64"])
    assert {unit.sources: unit.path for unit in units} == {
        ("bpf/one/program.bpf.c",): "one/program.bpf.o",
        ("bpf/two/program.bpf.c",): "two/program.bpf.o",
        ("bpf/top.bpf.c",): "top.bpf.o",
        ("top.c",): "top.o",
    }
    assert name_objects(config) == {
        "one.program.bpf.o": "bpf/one/program.bpf.c",
        "top.bpf.o": "bpf/top.bpf.c",
        "top.o": "top.c",
        "two.program.bpf.o": "bpf/two/program.bpf.c",
    }
    (tmp_path / "bpf/one.program.bpf.c").touch()
    with pytest.raises(UsageError, match=r"one\.program\.bpf\.o: made from two sources: ") as caught:
        find_sources(config)
    assert "compile.object" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"program\.bpf\.o: made from two sources: "):
        find_sources(replace(config, compile=replace(config.compile, sources=("bpf/one/*.c", "bpf/two/*.c"))))


def test_settings_of_architectures_rules_and_objects_add_up(tmp_path: Path) -> None:
    """Flags: the most special last. Directories: the most special first. An object replaces its source's."""
    config = _make_project(
        tmp_path,
        "src/a.c",
        "src/b.c",
        sources=("src/*.c",),
        include=("include",),
        flags=("-DALL",),
        arch={"arm64": CompileArch(include=("arm",), flags=("-DARM",))},
        rule=(
            CompileRule(match=("src/a.*",), flags=("-DA",), include=("rule",)),
            CompileRule(match=("**/*.c",), arch=("amd64",), flags=("-mcpu=v2",)),
        ),
        object=(
            CompileObject(name="b1.o", source="src/b.c", flags=("-DN=1",)),
            CompileObject(name="b2.o", source="src/b.c", flags=("-DN=2",), include=("two",)),
        ),
    )

    def plan(arch: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        units = plan_units(config, PLATFORMS[arch])
        return {unit.path: (piece.include, piece.flags) for unit in units for piece in unit.pieces}

    assert plan("amd64") == {
        "a.o": (("rule", "include"), ("-DALL", "-DA", "-mcpu=v2")),
        "b1.o": (("include",), ("-DALL", "-mcpu=v2", "-DN=1")),
        "b2.o": (("two", "include"), ("-DALL", "-mcpu=v2", "-DN=2")),
    }
    assert plan("arm64") == {
        "a.o": (("rule", "arm", "include"), ("-DALL", "-DARM", "-DA")),
        "b1.o": (("arm", "include"), ("-DALL", "-DARM", "-DN=1")),
        "b2.o": (("two", "arm", "include"), ("-DALL", "-DARM", "-DN=2")),
    }


def test_objects_of_several_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths and patterns, each source once and with its own settings; none of them has another object."""
    names = ("bpf/agent/a.bpf.c", "bpf/agent/b.bpf.c", "bpf/agent/old.bpf.c", "bpf/c.bpf.c", "bpf/d.bpf.c")
    config = _make_project(
        tmp_path,
        *names,
        sources=("bpf/**/*.bpf.c",),
        exclude=("**/old.bpf.c",),
        flags=("-DALL",),
        rule=(CompileRule(match=("**/b.bpf.c",), flags=("-DB",), include=("b",)),),
        object=(
            CompileObject(name="agent.o", sources=("bpf/./c.bpf.c", "bpf/agent/*.c", "bpf/agent/a.bpf.c")),
            CompileObject(name="one.o", sources=("bpf/c.bp?.c",), flags=("-DONE",)),
        ),
    )
    agent, d, one = plan_units(config, PLATFORMS["amd64"])
    assert agent == Unit(
        path="agent.o",
        pieces=(
            Piece(source="bpf/c.bpf.c", flags=("-DALL",)),
            Piece(source="bpf/agent/a.bpf.c", flags=("-DALL",)),
            Piece(source="bpf/agent/b.bpf.c", flags=("-DALL", "-DB"), include=("b",)),
        ),
    )
    assert (d.path, one) == (
        "d.bpf.o",
        Unit(path="one.o", pieces=(Piece(source="bpf/c.bpf.c", flags=("-DALL", "-DONE")),)),
    )
    assert (agent.is_linked, one.is_linked, links_objects(config)) == (True, False, True)
    assert find_sources(config) == (names[0], names[1], names[3], names[4])
    assert name_objects(config)["agent.o"] == "bpf/c.bpf.c, bpf/agent/a.bpf.c, bpf/agent/b.bpf.c"
    monkeypatch.chdir(tmp_path)
    here = replace(config, root=Path())
    (chosen,) = choose_units(here, PLATFORMS["amd64"], ["bpf/agent/b.bpf.c"], [], ["-DNEW"])
    assert [(piece.source, piece.flags) for piece in chosen.pieces] == [
        (name, ("-DNEW",)) for name in agent.sources
    ]
    none = CompileObject(name="none.o", sources=("bpf/agent/x*.c",))
    with pytest.raises(UsageError, match=r"none\.o: no sources: nothing matches bpf/agent/x\*\.c"):
        find_sources(replace(config, compile=replace(config.compile, object=(none,))))


def test_flags_of_linked_objects_name_their_sources() -> None:
    """A statement's flags read as they were written, and words in another order are refused."""
    platform = PLATFORMS["arm64"]
    one = Piece(source="a.c", include=("in", "../up"), flags=("-DA", "-std=gnu11"))
    two = Piece(source="b.c")
    for pieces in ((one,), (two,), (one, two), (two, one), (one, one)):
        words = recorded_flags(platform, Unit(path="x.o", pieces=pieces))
        assert split_flags(words[len(forced_flags(platform)) :], pieces[0].source) == pieces
    for bad in (["a.c", "-DA"], ["b.c", "a.c"], ["-I", "in", "b.c", "-I", "in"]):
        with pytest.raises(UsageError, match=r"a\.c: flags of no source"):
            split_flags(bad, "a.c")


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("src/*.c", "src/a.c", True),
        ("src/*.c", "src/deep/a.c", False),
        ("src/**/*.c", "src/a.c", True),
        ("src/**/*.c", "src/deep/er/a.c", True),
        ("**/a?.c", "x/y/ab.c", True),
        ("**/a?.c", "ab.c", True),
        ("src/**", "src/deep/a.c", True),
        ("src/a.c", "src/a.cc", False),
        ("s+c/*.c", "ssc/a.c", False),
    ],
)
def test_patterns_of_rules(pattern: str, path: str, expected: bool) -> None:  # noqa: FBT001
    """** stands for any number of folders, * and ? for no slash, and other characters for themselves."""
    assert matches(pattern, path) is expected


def test_plans_read_as_they_were_written(tmp_path: Path) -> None:
    """Quotes, blanks and directories outside the project survive. Other files are one error."""
    settings = Piece(source="a/x.c", include=("../up", "in"), flags=('-DT="a b"', "-std=gnu11"))
    units = (
        Unit(path="a/x.o", pieces=(settings,)),
        Unit(path="b.o", pieces=(settings, Piece(source="b.c", include=("/opt/x",), flags=("-DB",)))),
        Unit(path="y.o", pieces=(Piece(source="a/x.c"),)),
    )
    path = tmp_path / "plan.json"
    path.write_text(encode_plan(units, outside_names(["../up", "in", "/opt/x"])))
    read, outside = read_plan(path)
    assert read == units
    assert [name.rpartition("/")[2] for name in outside.values()] == ["0", "1"]
    assert list(outside) == ["../up", "/opt/x"]
    declared = (Declaration("classifier/*", "tc"), Declaration("socket1", "socket"))
    named = tuple(replace(unit, declared=declared) for unit in units)
    path.write_text(encode_plan(named, []))
    assert read_plan(path)[0] == named
    path.write_text(encode_plan(named, []).replace('"tc"', '"tc+"'))
    with pytest.raises(UsageError, match="not a section of libbpf"):
        read_plan(path)
    for text in ("", "[]", "{}", '{"version": 1, "outside": [], "groups": [{}]}', '{"version": 2}'):
        path.write_text(text)
        with pytest.raises(FileAccessError, match="not a plan of objects"):
            read_plan(path)
    for word in ('"-o"', '"-fplugin=x.so"', "3"):
        path.write_text(encode_plan(units, []).replace('"-std=gnu11"', word))
        with pytest.raises(UsageError):
            read_plan(path)


def test_the_record_reads_as_it_was_written(tmp_path: Path) -> None:
    """By file name; none is an empty one."""
    assert read_compile_record(tmp_path) == {}
    entry = CompiledObject(
        path=tmp_path / "x.bpf.o",
        name="deep.x.bpf.o",
        platform="linux/arm/v7",
        sha256=Digest("00" * 32),
        toolchain=ToolchainInfo(compiler="clang é", flags=("-g", "-O2")),
        source=SourceInfo(path="bpf/x.bpf.c", sha256=Digest("11" * 32)),
        declared=(Declaration("classifier/*", "tc"),),
    )
    write_compile_record(tmp_path, [entry])
    assert read_compile_record(tmp_path) == {"x.bpf.o": entry}
    assert [path.name for path in tmp_path.iterdir()] == [RECORD_NAME]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"version": 2, "objects": {}}', '{"version": 1, "objects": {"x": 1}}', "[" * 99999],
)
def test_a_broken_record_is_one_error(tmp_path: Path, text: str) -> None:
    """Any damaged record results in one kind of error."""
    (tmp_path / RECORD_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(FileAccessError, match="not a compile record"):
        read_compile_record(tmp_path)


def test_directories_go_again_when_the_job_fails(tmp_path: Path) -> None:
    """After a failure, only new and empty directories are removed."""
    (tmp_path / "old").mkdir()
    paths = [tmp_path / "old/new/deep", tmp_path / "kept"]

    def job() -> None:
        with made_directories(paths):
            (tmp_path / "kept/file").touch()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - any exception will do
        job()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "old"]
    assert not list((tmp_path / "old").iterdir())


def test_reading_is_bounded_and_never_blocks(tmp_path: Path) -> None:
    """A FIFO without a writer, a device without end."""
    import os

    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(FileAccessError, match="not a regular file"):
            read_bounded(path, 10)
    (tmp_path / "file").write_bytes(b"x" * 20)
    assert len(read_bounded(tmp_path / "file", 10)) == 11


def test_files_that_travel_with_the_code() -> None:
    """Files of the installation are found by name. A missing one is an error."""
    assert (resource_path("loader") / "run/main.c").is_file()
    with pytest.raises(FileAccessError, match="not part of this installation"):
        resource_path("no-such-resource")
