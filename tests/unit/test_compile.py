# SPDX-License-Identifier: Apache-2.0
"""The parts of compiling that need no compiler: dependency files, names, the record, directories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from buildtool.compile.record import (
    RECORD_NAME,
    CompiledObject,
    SourceInfo,
    ToolchainInfo,
    read_compile_record,
    write_compile_record,
)
from buildtool.compile.sources import parse_depfile
from buildtool.config.file import Config, ProjectConfig
from buildtool.config.project import find_sources, name_objects
from buildtool.core.digests import Digest
from buildtool.core.errors import FileAccessError, UsageError
from buildtool.core.files import made_directories, read_bounded
from buildtool.core.resources import resource_path


def test_depfiles_are_read_as_clang_writes_them() -> None:
    """Continuation lines, blanks, # and $ in names."""
    text = "/tmp/o/x.o: bpf/x.bpf.c \\\n  bpf/a\\ b.h bpf/c$$d.h \\\n  ../e\\#f.h\n"
    assert parse_depfile(text) == ["bpf/x.bpf.c", "bpf/a b.h", "bpf/c$d.h", "../e#f.h"]


def test_object_names() -> None:
    """x.bpf.c gives x.bpf.o; two of one name, or names outside the alphabet, are errors."""
    assert name_objects(("bpf/x.bpf.c", "y.bpf.c")) == {"bpf/x.bpf.c": "x.bpf.o", "y.bpf.c": "y.bpf.o"}
    for sources in (("a/x.bpf.c", "b/x.bpf.c"), ("x.c",), ("a b.bpf.c",), (".bpf.c",)):
        with pytest.raises(UsageError):
            name_objects(sources)


def test_sources_are_sorted_and_unique(tmp_path: Path) -> None:
    """Sources are sorted and unique, for overlapping patterns and any order of the file system."""
    for name in ("b.bpf.c", "a.bpf.c", "deep/c.bpf.c", "a.h"):
        path = tmp_path / "bpf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    config = Config(root=tmp_path, project=ProjectConfig(name="x"))
    config = replace(config, compile=replace(config.compile, sources=("bpf/**/*.bpf.c", "bpf/*.bpf.c")))
    assert find_sources(config) == ("bpf/a.bpf.c", "bpf/b.bpf.c", "bpf/deep/c.bpf.c")


def test_the_record_reads_as_it_was_written(tmp_path: Path) -> None:
    """By file name; none is an empty one."""
    assert read_compile_record(tmp_path) == {}
    entry = CompiledObject(
        path=tmp_path / "x.bpf.o",
        platform="linux/arm/v7",
        sha256=Digest("00" * 32),
        toolchain=ToolchainInfo(compiler="clang é", flags=("-g", "-O2")),
        source=SourceInfo(path="bpf/x.bpf.c", sha256=Digest("11" * 32)),
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
