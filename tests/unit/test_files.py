# SPDX-License-Identifier: Apache-2.0
"""Files that are written: all of them or none, and never in the place of what is no file."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildtool.core.errors import FileAccessError, UsageError
from buildtool.core.files import (
    expand_home,
    made_directories,
    read_bounded,
    staged_files,
    write_all_atomic,
    write_atomic,
)
from buildtool.core.resources import package_directory

# Sends itself a signal in the middle of the renames, or while it removes the second names.
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from buildtool.core.files import write_all_atomic
place, step, number = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
real, calls = getattr(Path, step), []

def interrupt(self, *arguments):
    calls.append(self)
    if len(calls) == 10:
        os.kill(os.getpid(), int(number))
    return real(self, *arguments)

files = sorted(Path(place).iterdir())
setattr(Path, step, interrupt)
write_all_atomic({path: b"new" for path in files})
sys.exit("not interrupted")
"""


def contents(directory: Path) -> dict[str, str]:
    """Return the text of every file of *directory*, hidden ones too."""
    return {path.name: path.read_text() for path in sorted(directory.iterdir())}


@pytest.fixture
def mounted(tmp_path: Path, as_root: None) -> Iterator[Path]:
    """Give a file that cannot be renamed over, between two others: something is mounted on it."""
    place = tmp_path / "objects"
    place.mkdir()
    for name in "abc":
        (place / name).write_text(f"old {name}")
    (tmp_path / "other").write_text("mounted")
    subprocess.run(["mount", "--bind", tmp_path / "other", place / "b"], check=True)
    yield place
    subprocess.run(["umount", place / "b"], check=True)


def test_a_rename_that_fails_takes_the_others_back(mounted: Path) -> None:
    """If one rename fails, replaced files are restored with their modes, and new files are removed."""
    (mounted / "a").chmod(0o600)
    before = {**contents(mounted), "b": "mounted"}
    files = {mounted / name: b"new" for name in ("0", "a", "b", "c")}
    with pytest.raises(FileAccessError, match="/b: cannot write: device or resource busy"):
        write_all_atomic(files)
    assert contents(mounted) == before
    assert stat.S_IMODE((mounted / "a").stat().st_mode) == 0o600


def test_a_name_that_appears_takes_the_others_back(tmp_path: Path) -> None:
    """Without *replace*, a file that appears meanwhile stays, and the written files are removed."""

    def write() -> None:
        with staged_files([tmp_path / "a", tmp_path / "b"], replace=False) as stage:
            stage.write(tmp_path / "a", b"new")
            stage.write(tmp_path / "b", b"new")
            (tmp_path / "b").write_text("somebody's")

    with pytest.raises(FileAccessError, match="/b: already exists"):
        write()
    assert contents(tmp_path) == {"b": "somebody's"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", ["replace", "unlink"])
def test_a_signal_waits_for_the_renames(tmp_path: Path, number: signal.Signals, step: str) -> None:
    """A signal during the renames takes effect after the last one, when no second name is left."""
    names = [f"{at:04}" for at in range(20)]
    for name in names:
        (tmp_path / name).write_text("old")
    # Below nohup, SIGHUP is ignored.
    script = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n{INTERRUPTED}"
    argv = [sys.executable, "-c", script, tmp_path, step, str(int(number))]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == -number
    assert contents(tmp_path) == dict.fromkeys(names, "new")


def test_what_is_no_file_is_not_replaced(tmp_path: Path, as_root: None) -> None:
    """A device, a FIFO, a socket, a link and a directory stay what they are, with and without leave."""
    (tmp_path / "file").write_text("mine")
    os.mknod(tmp_path / "a device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mkfifo(tmp_path / "a FIFO")
    os.mknod(tmp_path / "a socket", stat.S_IFSOCK | 0o600)
    (tmp_path / "a symbolic link").symlink_to("file")
    (tmp_path / "a directory").mkdir()
    before = {path.name: path.lstat().st_ino for path in tmp_path.iterdir()}
    for name in sorted(before.keys() - {"file"}):
        for replace in (True, False):
            with pytest.raises(FileAccessError, match=f"/{name}: not a regular file but {name}"):
                write_atomic(tmp_path / name, b"new", replace=replace)
    assert {path.name: path.lstat().st_ino for path in tmp_path.iterdir()} == before
    assert (tmp_path / "file").read_text() == "mine"


def test_only_its_owner_opens_a_file_before_it_has_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private key would otherwise be open to whoever looks while it is written."""
    modes = []
    real = os.fchmod

    def fchmod(descriptor: int, mode: int) -> None:
        status = os.fstat(descriptor)
        modes.append((stat.S_IMODE(status.st_mode), status.st_size))
        real(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", fchmod)
    write_all_atomic({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert modes == [(0o600, 0), (0o600, 0)]


def test_bytes_are_on_the_disk_before_the_first_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash then leaves whole files."""
    calls = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append(f"fsync {os.fstat(descriptor).st_size}")
        sync(descriptor)

    def rename(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    write_all_atomic({tmp_path / "a": b"new", tmp_path / "b": b"newer"})
    assert calls == ["fsync 3", "fsync 5", "rename", "rename"]


def test_a_file_larger_than_its_size_is_read_to_its_end() -> None:
    """A file that grows, or one in /proc, whose size is 0: nothing is cut off, and the limit holds."""
    path = Path("/proc/version")
    whole = path.read_bytes()
    assert path.stat().st_size == 0
    assert read_bounded(path, 4096) == whole
    assert read_bounded(path, len(whole)) == whole
    assert read_bounded(path, 10) == whole[:11]


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_directory_without_a_name_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A path without a name, such as /, is refused."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileAccessError, match="not a regular file but a directory"):
        write_atomic(Path(name), b"new")


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    """The temporary names are shorter, and differ where only the last letter does."""
    paths = [tmp_path / ("\u00e4" * 126 + letter) for letter in "ab"]
    write_all_atomic({path: path.name[-1].encode() for path in paths})
    write_all_atomic({path: path.name[-1].encode() for path in paths})
    assert [path.read_text() for path in paths] == ["a", "b"]
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(FileAccessError, match="cannot write: file name too long"):
        write_atomic(tmp_path / ("x" * 256), b"new")


def test_what_cannot_be_written_says_why(tmp_path: Path, as_root: None) -> None:
    """Not that its temporary file cannot be removed, which was never made."""
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileAccessError, match="file/x: cannot write: not a directory"):
        write_atomic(tmp_path / "file/x", b"new")
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        with pytest.raises(FileAccessError, match="place/x: cannot write: read-only file system"):
            write_atomic(place / "x", b"new")
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_directory_whose_name_is_too_long_is_an_error(tmp_path: Path) -> None:
    """And none of its parents stays."""
    with (
        pytest.raises(FileAccessError, match="cannot make directory: file name too long"),
        made_directories([tmp_path / "new" / ("x" * 490)]),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_user_without_a_home_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a container the number of the user often has no name, and HOME is not set."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_home(Path("~/.cache")) == tmp_path / ".cache"
    assert expand_home(Path("x/~")) == Path("x/~")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    for name in ("~", "~no-such-user"):
        with pytest.raises(UsageError, match=f"^{name}/x: no home directory for {name}$") as caught:
            expand_home(Path(name, "x"))
        assert caught.value.hint == "set HOME"


def test_home_directories_are_found_in_one_place() -> None:
    """Elsewhere the RuntimeError of a user without one would be a traceback."""
    pattern = re.compile(r"\.home\(\)|expanduser|getpwuid")
    found = {
        path.relative_to(package_directory()).as_posix()
        for path in package_directory().rglob("*.py")
        if pattern.search(path.read_text())
    }
    assert found == {"core/files.py"}
