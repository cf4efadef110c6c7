# SPDX-License-Identifier: Apache-2.0
"""The state directory: versions only grow, and nothing but whole files is ever there."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from labs.sig import NOW, sign, store, unsigned
from labs.states import DAMAGED

from buildtool.core.errors import FileAccessError
from buildtool.trust.verify import verify_and_remember
from buildtool.trust.versions import STATE_NAME, open_state


def remember(path: Path, project: str, name: str, version: int) -> None:
    """Open, raise and save, as a verifier does."""
    with open_state(path) as state:
        state.raise_version(project, name, version)
        state.save()


def test_versions_only_grow(tmp_path: Path) -> None:
    """A lower one changes nothing; each project has its own."""
    for project, version in (("a", 3), ("a", 2), ("a", 5), ("b", 1), ("a", 4)):
        remember(tmp_path, project, "x.bpf.o", version)
    with open_state(tmp_path) as state:
        assert [state.version(name, "x.bpf.o") for name in "abc"] == [5, 1, 0]
    text = '{"projects":{"a":{"x.bpf.o":5},"b":{"x.bpf.o":1}},"stateVersion":1}'
    assert (tmp_path / STATE_NAME).read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == [STATE_NAME]


def test_a_new_state_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash leaves the old file or the new one, and the directory knows which."""
    calls = []
    sync, rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        calls.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().relative_to(tmp_path)}")
        sync(descriptor)

    def renaming(source: str, target: str, **directories: int) -> None:
        calls.append(f"rename {source} {target}")
        rename(source, target, **directories)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renaming)
    remember(tmp_path, "a", "x.bpf.o", 3)
    new = ".versions.json.new"
    assert calls == [f"fsync {new}", f"rename {new} versions.json", "fsync ."]


def test_nothing_is_written_when_nothing_grew(tmp_path: Path) -> None:
    """A verifier that learns nothing leaves the file as it is."""
    remember(tmp_path, "a", "x.bpf.o", 3)
    before = (tmp_path / STATE_NAME).stat()
    remember(tmp_path, "a", "x.bpf.o", 3)
    after = (tmp_path / STATE_NAME).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def _climb(path: Path, first: int) -> None:
    for version in range(first, 60, 3):
        remember(path, "a", f"x{first}.bpf.o", version)


def test_concurrent_starts_lose_nothing(tmp_path: Path) -> None:
    """Three parallel writers of one state directory lose no version."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_climb, args=(tmp_path, first)) for first in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with open_state(tmp_path) as state:
        assert [state.version("a", f"x{first}.bpf.o") for first in range(3)] == [57, 58, 59]


def test_a_file_left_by_a_crash_is_overwritten(tmp_path: Path) -> None:
    """Half of a new file beside the old one is not read, and does not stop the next."""
    remember(tmp_path, "a", "x.bpf.o", 3)
    (tmp_path / ".versions.json.new").write_text('{"stateVersion"')
    remember(tmp_path, "a", "x.bpf.o", 4)
    assert json.loads((tmp_path / STATE_NAME).read_text())["projects"] == {"a": {"x.bpf.o": 4}}
    assert [path.name for path in tmp_path.iterdir()] == [STATE_NAME]


def test_a_link_in_place_of_the_new_file_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link in place of the new file is removed, and its target stays."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    state = tmp_path / "state"
    state.mkdir()
    (state / ".versions.json.new").symlink_to(victim)
    remember(state, "a", "x.bpf.o", 1)
    assert victim.read_text() == "mine"
    assert not (state / STATE_NAME).is_symlink()
    assert [path.name for path in state.iterdir()] == [STATE_NAME]


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_state_is_an_error(name: str, tmp_path: Path) -> None:
    """A damaged state is an error, because accepted versions are unknown. The file stays."""
    (tmp_path / STATE_NAME).write_text(DAMAGED[name])
    with pytest.raises(FileAccessError) as caught:
        remember(tmp_path, "a", "x", 1)
    assert "\n" not in caught.value.message
    assert (tmp_path / STATE_NAME).read_text() == DAMAGED[name]


def test_a_state_that_grew_too_large_is_not_written(tmp_path: Path) -> None:
    """A state above the limit of the reader is not written."""
    remember(tmp_path, "a", "x", 1)
    before = (tmp_path / STATE_NAME).read_bytes()
    with open_state(tmp_path) as state:
        for number in range(9000):
            state.raise_version("a", f"{number:0128}", 1)
        with pytest.raises(FileAccessError, match="would be larger"):
            state.save()
    assert (tmp_path / STATE_NAME).read_bytes() == before


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    """A state that begins anew at each start would remember nothing."""
    with pytest.raises(FileAccessError, match="no such file"):
        remember(tmp_path / "gone", "a", "x", 1)


def test_dangling_file_is_an_error(tmp_path: Path) -> None:
    """A state that cannot be reached is not an empty one."""
    (tmp_path / STATE_NAME).symlink_to(tmp_path / "gone")
    with pytest.raises(FileAccessError, match="no such file"):
        remember(tmp_path, "a", "x", 1)


def _look(path: Path, answers: Connection) -> None:
    with open_state(path) as state:
        answers.send(state.version("a", "x.bpf.o"))


def test_state_is_that_of_the_locked_directory(tmp_path: Path) -> None:
    """The state is that of the locked directory, even if it is renamed while a verifier waits."""
    place = tmp_path / "state"
    place.mkdir()
    remember(place, "a", "x.bpf.o", 9)
    here, there = multiprocessing.Pipe()
    held = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)
    worker = multiprocessing.get_context("spawn").Process(target=_look, args=(place, there))
    worker.start()
    inode = f":{place.stat().st_ino} "
    deadline = time.monotonic() + 60
    while not any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    place.rename(tmp_path / "old")
    place.mkdir()
    os.close(held)
    assert here.recv() == 9
    worker.join(60)


def test_new_state_is_whole_before_it_is_synchronized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes in a buffer of this process would reach the disk after the name."""
    sizes, sync = [], os.fsync

    def fsync(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    remember(tmp_path, "a", "x.bpf.o", 3)
    assert sizes[0] == (tmp_path / STATE_NAME).stat().st_size


def test_state_without_a_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have no locks. Without one, two verifiers could each accept an older object."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(FileAccessError, match="cannot lock: no locks available"):
        remember(tmp_path, "a", "x.bpf.o", 3)


def test_only_a_whole_set_is_remembered(tmp_path: Path) -> None:
    """One refused file keeps the versions of all as they were; the next set of the same files raises them."""
    good, bad, state = tmp_path / "good.bpf.o", tmp_path / "bad.bpf.o", tmp_path / "state"
    state.mkdir()
    good.write_bytes(sign())
    bad.write_bytes(unsigned())
    for paths, version in (([good, bad], 0), ([good], 3)):
        verdicts = verify_and_remember(paths, store(), state, platform=None, now=NOW)
        assert [verdict.accepted is not None for verdict in verdicts] == [path == good for path in paths]
        with open_state(state) as seen:
            assert seen.version("demo", "x.bpf.o") == version


def test_state_that_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verifier must not accept versions that it does not remember; the new file goes."""
    remember(tmp_path, "a", "x.bpf.o", 3)

    def rename(source: str, target: str, **directories: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), source, None, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(FileAccessError, match="cannot write: input/output error"):
        remember(tmp_path, "a", "x.bpf.o", 4)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_NAME]
    with open_state(tmp_path) as state:
        assert state.version("a", "x.bpf.o") == 3
