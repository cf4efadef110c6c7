# SPDX-License-Identifier: Apache-2.0
"""The RAM disk of a virtual machine: its bytes, and the modules that go into it."""

from __future__ import annotations

import lzma
import os
from pathlib import Path
from typing import Any

import pytest

from buildtool.check.vm.guest import CpioFile, find_modules, make_cpio, make_initrd
from buildtool.core.errors import FileAccessError, VmError


def read_cpio(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read an archive back: mode and bytes by name, in its order."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        assert at % 4 == 0
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        at += (110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        assert fields[2:6] == [0, 0, 1, 0], "owner, links, time"
        found[name] = (fields[1], data[at : at + fields[6]])
        at += (fields[6] + 3) & ~3


def make(files: dict[str, Any], **changes: Any) -> dict[str, tuple[int, bytes]]:
    """Return what is in the RAM disk for *files*."""
    settings: dict[str, Any] = {
        "busybox": Path("/proc/self/exe"),
        "files": files,
        "modules": [],
        "command": "true\n",
        "token": "@@vm-1",
        "time": 1,
        "collect": [],
    }
    return read_cpio(make_initrd(**{**settings, **changes}))


def test_archive_has_parents_and_is_always_the_same() -> None:
    """Directories come before what is in them; order and times of the machine play no part."""
    files = {"/b/c/d": CpioFile(data=b"12345"), "/a": CpioFile(data=b"", mode=0o755)}
    data = make_cpio(files)
    assert data == make_cpio(dict(reversed(files.items())))
    assert read_cpio(data) == {
        "a": (0o100755, b""),
        "b": (0o040755, b""),
        "b/c": (0o040755, b""),
        "b/c/d": (0o100644, b"12345"),
    }


def test_files_directories_and_bytes_go_in(tmp_path: Path) -> None:
    """Files keep their mode. For bytes, the first bytes decide whether they are a program."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/tool").write_text("tool")
    (tmp_path / "sub/tool").chmod(0o700)
    (tmp_path / "link").symlink_to("sub/tool")
    found = make({"/x": b"\x7fELF", "/y": b"data", "/tree": tmp_path, "/tool": tmp_path / "sub/tool"})
    assert found["x"][0] == found["tool"][0] == found["tree/sub/tool"][0] == 0o100755
    assert found["y"] == (0o100644, b"data")
    assert found["tree/link"][1] == b"tool"
    assert found["vm/command"][1] == b"true\n"


@pytest.mark.parametrize("place", ["relative", "/up/../etc", "/line\nfeed"])
def test_places_that_are_none(place: str) -> None:
    """A path that would land elsewhere is refused."""
    with pytest.raises(VmError, match="not an absolute path"):
        make({place: b""})


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(FileAccessError, match="gone: cannot read"):
        make({"/x": tmp_path / "gone"})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Lay out modules: top needs middle, middle needs base; one is compressed, one is built in."""
    directory = tmp_path / "6.1.0"
    directory.mkdir()
    for name, needs in (("top-mod", b"middle"), ("middle", b"base,built_in"), ("base", b"")):
        data = b"\x7fELF\0license=GPL\0depends=" + needs + b"\0name=x\0"
        if name == "middle":
            (directory / "middle.ko.xz").write_bytes(lzma.compress(data))
        else:
            (directory / f"{name}.ko").write_bytes(data)
    (directory / "modules.builtin").write_text("kernel/built-in.ko\n")
    return directory


def test_modules_come_in_loading_order(tree: Path) -> None:
    """Dependencies are loaded before a module, once each. A built-in module has no file."""
    found = [path.name for path in find_modules(tree, ["top_mod", "base", "built-in"])]
    assert found == ["base.ko", "middle.ko.xz", "top-mod.ko"]
    entries = make({}, modules=find_modules(tree, ["top-mod"]))
    assert [name for name in entries if name.endswith(".ko")] == [
        "vm/modules/000-base.ko",
        "vm/modules/001-middle.ko",
        "vm/modules/002-top-mod.ko",
    ]
    assert entries["vm/modules/001-middle.ko"][1].startswith(b"\x7fELF")


def test_modules_that_are_not_there(tree: Path) -> None:
    """A missing module is an error with its name and the kernel's. A kernel without a tree is not checked."""
    with pytest.raises(VmError, match=r"kernel 6\.1\.0 has no module other"):
        find_modules(tree, ["other"])
    assert find_modules(None, ["other"]) == []
    assert find_modules(tree, []) == []


def test_damaged_module_is_named(tree: Path) -> None:
    """A cache with a broken file is no traceback."""
    (tree / "middle.ko.xz").write_bytes(os.urandom(64))
    with pytest.raises(FileAccessError, match=r"middle\.ko\.xz: damaged"):
        find_modules(tree, ["middle"])
