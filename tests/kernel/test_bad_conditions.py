# SPDX-License-Identifier: Apache-2.0
"""Mistakes of an operator: each gives one clear line and its exit code, loads nothing and never blocks."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from labs.handsig import policy
from labs.loader import Lab
from labs.privileges import AS_USER

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")
RUN = ("--", "echo", "started")


@pytest.fixture
def place(lab: Lab, tmp_path: Path) -> Path:
    """Return a directory that every user may enter, with one good object and the trust store."""
    lab.put(tmp_path, "raw_tp")
    return tmp_path


def many_files(objects: Path) -> None:
    """Make 10,000 files."""
    for number in range(10_000):
        (objects / f"{number}.bpf.o").touch()


def sparse(objects: Path) -> None:
    """Make a file of 4 GiB that takes no space."""
    with (objects / "sparse.bpf.o").open("wb") as file:
        file.truncate(4 << 30)


def terabytes(objects: Path) -> None:
    """Make a sparse file of 8 TiB."""
    with (objects / "sparse.bpf.o").open("wb") as file:
        file.truncate(8 << 40)


def device(kind: int, major: int, minor: int) -> Callable[[Path], None]:
    """Return a function that makes a device node; no device behind it is necessary."""
    return lambda objects: os.mknod(objects / "device.bpf.o", kind | 0o666, os.makedev(major, minor))


def loop(objects: Path) -> None:
    """Make two symbolic links that point to each other."""
    (objects / "a.bpf.o").symlink_to("b.bpf.o")
    (objects / "b.bpf.o").symlink_to("a.bpf.o")


def link_to(target: str) -> Callable[[Path], None]:
    """Return a function that makes a symbolic link to *target*."""
    return lambda objects: (objects / "link.bpf.o").symlink_to(target)


def only(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return a function that removes the good object before it calls *make*."""

    def change(objects: Path) -> None:
        (objects / "raw_tp.bpf.o").unlink()
        make(objects)

    return change


# Name of the case: change of the objects' directory, exit code, word of the message or reason.
OBJECTS: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "empty": (only(lambda _: None), 1, "no object in it"),
    "only hidden files": (only(lambda objects: (objects / ".keep").touch()), 1, "no object in it"),
    "10,000 files": (many_files, 1, "more than 256 objects"),
    "fifo": (lambda objects: os.mkfifo(objects / "fifo.bpf.o"), 3, "malformed"),
    "character device that never ends": (device(stat.S_IFCHR, 1, 5), 3, "malformed"),
    "block device": (device(stat.S_IFBLK, 7, 99), 3, "malformed"),
    "link to a terminal": (link_to("/dev/ptmx"), 3, "malformed"),
    "link to a file of the kernel": (link_to("/proc/self/mem"), 1, "Input/output error"),
    "directory": (lambda objects: (objects / "directory.bpf.o").mkdir(), 3, "malformed"),
    "loop of links": (loop, 1, "Too many levels of symbolic links"),
    "link to nowhere": (link_to("nowhere"), 1, "No such file or directory"),
    "4 GiB": (sparse, 3, "too-large"),
    "8 TiB": (terabytes, 3, "too-large"),
    "file of one byte": (lambda objects: (objects / "one.bpf.o").write_bytes(b"\x7f"), 3, "malformed"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_directory_of_objects(lab: Lab, place: Path, name: str) -> None:
    """A bad entry beside a good object, or a directory without objects, stops the start before any load."""
    change, code, word = OBJECTS[name]
    change(place / "objects")
    result = lab.run(place, *RUN)
    assert result.code == code, result.lines
    said = [line.get("reason", line.get("message")) for line in result.lines]
    assert any(word in text for text in said if text), said
    assert result.events("load") == []
    assert result.stdout == ""


def test_directory_that_cannot_be_read(lab: Lab, place: Path) -> None:
    """An unreadable directory, or an unreadable file in it, is an error that names it."""
    objects = place / "objects"
    objects.chmod(0o700)
    result = lab.run(place, *RUN, before=AS_USER)
    assert result.code == 1
    assert "Permission denied" in result.message
    assert str(objects) in result.message
    objects.chmod(0o755)
    (objects / "raw_tp.bpf.o").chmod(0o600)
    result = lab.run(place, *RUN, before=AS_USER)
    assert result.code == 1
    assert "Permission denied" in result.message
    assert result.events("error")[0]["object"] == "raw_tp.bpf.o"


STORES: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "directory": Path.mkdir,
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "4 GiB": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 4 << 30),
    "empty": Path.touch,
}


@pytest.mark.parametrize("name", STORES)
def test_unusable_policy(lab: Lab, place: Path, name: str) -> None:
    """An unusable policy.json is exit code 2; the key beside it is not used instead."""
    STORES[name](place / "trust/policy.json")
    result = lab.run(place, *RUN)
    assert result.code == 2, result.lines
    assert "policy.json" in result.message or "trust" in result.message
    assert result.events("verify") == []
    assert result.stdout == ""


def test_policy_that_cannot_be_read(lab: Lab, place: Path) -> None:
    """An unreadable policy or trust store is exit code 2; the loader uses no other store."""
    path = place / "trust/policy.json"
    path.write_text(policy(lab.key))
    path.chmod(0o600)
    for locked in (path, place / "trust"):
        locked.chmod(0o600)
        result = lab.run(place, *RUN, before=AS_USER)
        assert result.code == 2
        assert "Permission denied" in result.message
        assert str(place / "trust") in result.message
        assert result.events("verify") == []


@pytest.mark.parametrize("held", ["", "net_admin,+perfmon"])
def test_capability_that_is_missing(lab: Lab, place: Path, held: str) -> None:
    """The line names the missing capability, and nothing is loaded."""
    bounds = f"-all,+{held}" if held else "-all"
    before = ["setpriv", "--inh-caps=-all", f"--bounding-set={bounds}"]
    result = lab.run(place, "--capabilities=NET_ADMIN,PERFMON", *RUN, before=before)
    assert result.code == 1
    assert "BPF" in result.message
    assert "Operation not permitted" in result.message or "CAP_BPF" in result.message
    assert result.events("load") == []
    assert result.stdout == ""
