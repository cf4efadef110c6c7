# SPDX-License-Identifier: Apache-2.0
"""Carried parts of images: used if they match the list, otherwise refused with a hint."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from buildtool.core.errors import FileAccessError, ToolFailedError
from buildtool.core.platforms import PLATFORMS
from buildtool.core.resources import resource_path
from buildtool.runtime.carried import (
    find_base,
    find_loader,
    find_loader_platforms,
    find_tini,
    list_path,
    loader_digest,
    part_path,
)
from buildtool.runtime.link import check_static

ARM64 = PLATFORMS["arm64"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a directory with parts for arm64."""
    entry: dict[str, Any] = {}
    for kind in ("loader", "probe", "tini", "base"):
        path = part_path(tmp_path, kind, "arm64")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kind.encode())
        entry[kind] = {"sha256": hashlib.sha256(kind.encode()).hexdigest(), "source": loader_digest()}
    entry["base"]["diff_id"] = "0" * 64
    list_path(tmp_path).write_text(json.dumps({"version": 1, "platforms": {"arm64": entry}}))
    return tmp_path


def test_parts_are_found(data: Path) -> None:
    """Each part comes with its bytes and their digest."""
    for find, kind in ((find_loader, b"loader"), (find_tini, b"tini"), (find_base, b"base")):
        part = find(ARM64, data)
        assert (part.data, part.sha256) == (kind, hashlib.sha256(kind).hexdigest())
    assert find_loader_platforms(data) == (ARM64,)


def test_nothing_was_made(tmp_path: Path) -> None:
    """Without the list the error says what makes the parts."""
    with pytest.raises(FileAccessError, match=r"no loaders/loaders\.json in it") as caught:
        find_loader(ARM64, tmp_path)
    assert "make loaders" in str(caught.value.hint)
    assert find_loader_platforms(tmp_path) == ()


def test_other_platforms_are_missing(data: Path) -> None:
    """A list without the platform says which one is missing."""
    with pytest.raises(FileAccessError, match="carries no tini for s390x"):
        find_tini(PLATFORMS["s390x"], data)


def test_another_file_is_not_used(data: Path) -> None:
    """A file that is not the listed one is refused."""
    part_path(data, "tini", "arm64").write_bytes(b"other")
    with pytest.raises(FileAccessError, match=r"not the file that loaders\.json lists"):
        find_tini(ARM64, data)


def test_a_loader_of_other_sources_is_not_used(data: Path) -> None:
    """A loader that was made before its sources changed is refused."""
    document = json.loads(list_path(data).read_text())
    document["platforms"]["arm64"]["loader"]["source"] = "0" * 64
    list_path(data).write_text(json.dumps(document))
    with pytest.raises(FileAccessError, match="other sources"):
        find_loader(ARM64, data)


def test_a_base_without_its_diff_id_is_not_used(data: Path) -> None:
    """The configuration of an image names the layer by this digest."""
    document = json.loads(list_path(data).read_text())
    del document["platforms"]["arm64"]["base"]["diff_id"]
    list_path(data).write_text(json.dumps(document))
    with pytest.raises(FileAccessError, match="lists no diff_id"):
        find_base(ARM64, data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "[]",
        '{"version": 2, "platforms": {}}',
        '{"version": 1}',
        '{"version": 1, "platforms": []}',
        '{"version": 1, "platforms": {"arm64": []}}',
        '{"version": 1, "platforms": {"arm64": "x"}}',
        '{"version": 1, "platforms": {"arm64": {"loader": []}}}',
        '{"version": 1, "platforms": {"arm64": {}, "s390x": {"tini": null}}}',
        "{" * 3000,
    ],
)
def test_damaged_lists(data: Path, text: str) -> None:
    """Any other text than a list is one clear error."""
    list_path(data).write_text(text)
    with pytest.raises(FileAccessError, match="not a list of loaders"):
        find_loader(ARM64, data)


def test_source_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    """The digest can be made by hand: cd loader && sha256sum */*.c */*.h ... | sort -k2 | sha256sum."""
    files = {"verify/b.c": "b", "base/a.h": "a", "README.md": "not a source", "test/no_load.c": "a test's"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    linked = (("base/a.h", "a"), ("verify/b.c", "b"))
    lines = "".join(f"{hashlib.sha256(x.encode()).hexdigest()}  {n}\n" for n, x in linked)
    assert loader_digest(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "discard.ld",
        "flags.txt",
        "sources.txt",
        "verify/sources.txt",
        "base/json.h",
        "verify/code.c",
        "probe/probe.c",
    ],
)
def test_each_source_changes_the_digest(tmp_path: Path, name: str) -> None:
    """Any changed file of the build makes what was linked stale, the linker script among them."""
    copy = tmp_path / "loader"
    shutil.copytree(resource_path("loader"), copy)
    before = loader_digest(copy)
    with (copy / name).open("a") as file:
        file.write("\n")
    assert loader_digest(copy) != before


def make_elf(machine: int, segment: int) -> bytes:
    """Return a 64-bit little-endian header with one segment."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + machine.to_bytes(2, "little")
    head += bytes(12) + (64).to_bytes(8, "little") + bytes(14)
    head += (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
    return head.ljust(64, b"\0") + segment.to_bytes(4, "little") + bytes(52)


def test_programs_must_be_static_and_of_the_platform() -> None:
    """A dynamic program, one of another machine and no program at all are refused."""
    check_static(make_elf(183, 1), ARM64)
    for program, words in (
        (make_elf(183, 3), "not static"),
        (make_elf(62, 1), "no program"),
        (b"", "no program"),
    ):
        with pytest.raises(ToolFailedError, match=words):
            check_static(program, ARM64)
