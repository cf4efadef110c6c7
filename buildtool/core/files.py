# SPDX-License-Identifier: Apache-2.0
"""Bounded reads and atomic writes; every OSError becomes a FileAccessError here."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from buildtool.core.errors import FileAccessError, UsageError, system_reason

OTHER_NAME = "choose another name or remove it"
FORCE_REPLACES = "--force replaces it"
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# No second name for this file: the file system has none, it is another mount, it is somebody else's.
_NO_LINK = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def expand_home(path: Path) -> Path:
    """
    Return *path* with the home directory for a ~ or ~USER at its start.

    Raises: UsageError, when that user has no home directory, as in many containers.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: no home directory for {path.parts[0]}", hint="set HOME") from error


def read_bounded(path: Path, limit: int, *, directory: int | None = None) -> bytes:
    """
    Read regular file *path* once, at most *limit* + 1 bytes; its name in open *directory* where one is given.

    A result longer than *limit* says that the file is too large; the caller
    decides what that means. FIFOs and devices are refused without blocking.

    Raises: FileAccessError.
    """
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        name = path if directory is None else path.name
        descriptor = os.open(name, flags, dir_fd=directory)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileAccessError(f"{path}: not a regular file")
            # Asked for the limit, Python would make a buffer of that size first; files in /proc have size 0.
            data = file.read(min(status.st_size, limit) + 1)
            return data if len(data) <= status.st_size else data + file.read(limit + 1 - len(data))
    except OSError as error:
        raise FileAccessError(f"{path}: cannot read: {system_reason(error)}") from error


def write_atomic(
    path: Path, data: bytes, *, mode: int = 0o644, replace: bool = True, hint: str = OTHER_NAME
) -> None:
    """
    Write *data* to *path* by temporary file, fsync and rename; a failure leaves nothing behind.

    Without *replace* an existing *path* is an error with *hint*, without a
    race: the name is made by link(2).

    Raises: FileAccessError.
    """
    with staged_files([path], replace=replace, hint=hint) as stage:
        stage.write(path, data, mode=mode)


def choose_targets(paths: Sequence[Path], output: Path | None) -> list[Path]:
    """
    Return where each of *paths* is written: in its place, or in directory *output*.

    Raises: UsageError, when two would be one file.
    """
    targets: dict[Path, Path] = {}
    for path in paths:
        # Not Path.resolve, which has an error of its own for links that lead round and round.
        target = output / path.name if output else Path(os.path.realpath(path))
        if target in targets:
            raise UsageError(f"{path}: two objects for {target}")
        targets[target] = path
    return list(targets)


def write_all_atomic(files: Mapping[Path, bytes], *, replace: bool = True) -> None:
    """
    Write all *files* or none, as `staged_files` does.

    A file that is replaced keeps its mode. Without *replace* an existing path is an error.

    Raises: FileAccessError.
    """
    with staged_files(list(files), replace=replace) as stage:
        for path, data in files.items():
            stage.write(path, data)


class Stage:
    """Files beside where they will be; their names are fixed from the start, so workers can write them."""

    def __init__(self, paths: Sequence[Path], *, replace: bool, hint: str = OTHER_NAME) -> None:
        """
        Choose a temporary name beside each of *paths*; *hint* is what to do about one that exists.

        Raises: FileAccessError.
        """
        token = os.urandom(8).hex()
        self.pending = {path: _beside(path, f"{token}{at}") for at, path in enumerate(paths)}
        self._replace, self._hint = replace, hint
        # The second name of what is replaced, None for what is new.
        self._old: dict[Path, Path | None] = {}

    def write(self, path: Path, data: bytes, *, mode: int | None = None) -> None:
        """
        Bring *data* for *path* to the disk; without a *mode* it has that of *path*, or 0644 when that is new.

        Raises: FileAccessError.
        """
        there = check_target(path, replace=self._replace, hint=self._hint)
        if mode is None:
            mode = stat.S_IMODE(there.st_mode) if there else 0o644
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(self.pending[path], flags, 0o600), "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _write_error(path, error) from error

    def publish(self) -> None:
        """
        Give all files their names; when one cannot have its own, what was there is put back.

        Raises: FileAccessError.
        """
        done: list[Path] = []
        path = Path()
        try:
            # One file needs no way back. For many, all second names are made first, as a link may fail.
            if self._replace and len(self.pending) > 1:
                for path, temporary in self.pending.items():
                    self._keep(path, temporary.with_name(f"{temporary.name}.old"))
            for path, temporary in self.pending.items():
                if self._replace:
                    temporary.replace(path)
                else:
                    os.link(temporary, path)
                    self._old[path] = None
                done.append(path)
        except OSError as error:
            raise self._undo(done, _write_error(path, error, self._hint)) from error

    def _keep(self, path: Path, old: Path) -> None:
        """Give what is at *path* the second name *old*, where that is possible."""
        try:
            os.link(path, old)
            self._old[path] = old
        except FileNotFoundError:
            self._old[path] = None
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise

    def _undo(self, done: Sequence[Path], error: FileAccessError) -> FileAccessError:
        """Take back the names of *done*; return *error*, which tells of those that it could not."""
        left = []
        for path in reversed(done):
            try:
                if old := self._old[path]:
                    old.replace(path)
                else:
                    path.unlink()
            except (OSError, KeyError):
                left.append(path)
        if left:
            more = f" and {len(left) - 1} more" if left[1:] else ""
            error.hint = f"written all the same: {left[-1]}{more}"
        return error

    def clear(self) -> None:
        """Remove what is left of the temporary files."""
        for temporary in (*self.pending.values(), *filter(None, self._old.values())):
            # What could not be made cannot be removed either; the error is that it could not be made.
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def staged_files(paths: Sequence[Path], *, replace: bool = True, hint: str = OTHER_NAME) -> Iterator[Stage]:
    """
    Give a stage that *paths* are written to; at the end of the block all get their names, or none does.

    All bytes are on the disk before the first rename. A file that is replaced
    has a second name until all renames are done, by which it comes back when one
    fails. Only a crash between two renames, or a file system without hard links,
    leaves some of the files old and some new.

    Without *replace* a path that exists is an error with *hint*.

    Raises: FileAccessError.
    """
    stage, complete = Stage(paths, replace=replace, hint=hint), False
    try:
        yield stage
        complete = True
    finally:
        with _signals_waiting():
            try:
                if complete:
                    stage.publish()
            finally:
                stage.clear()


@contextmanager
def _signals_waiting() -> Iterator[None]:
    """
    Let signals that end this process wait while files get their names and temporary ones go.

    Without it Ctrl-C between two renames would leave half of the files, and later ones second names.
    Signals wait for the calling thread only: while another thread runs that does not block them, the
    kernel may deliver them there, so write files where no other thread of this process runs.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_target(path: Path, *, replace: bool, hint: str = OTHER_NAME) -> os.stat_result | None:
    """
    Return the status of regular file *path*, which may be replaced, or None when nothing is there.

    A rename replaces a device, a FIFO or a link as it does a file: /dev/stdout
    would be gone, for everybody. Without *replace* a file is an error with *hint*.

    Raises: FileAccessError.
    """
    try:
        there = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _write_error(path, error) from error
    if not stat.S_ISREG(there.st_mode):
        kind = _KINDS.get(stat.S_IFMT(there.st_mode), "something else")
        raise FileAccessError(f"{path}: not a regular file but {kind}", hint="choose another name")
    if not replace:
        raise _write_error(path, FileExistsError(), hint)
    return there


def hidden_prefix(path: Path) -> str:
    """Return what the name of a temporary file for *path* begins with; short enough for any file system."""
    return f".{path.name[:50]}."  # 50 letters of UTF-8 have at most 200 of 255 bytes


def _beside(path: Path, token: str) -> Path:
    if not path.name:
        raise FileAccessError(f"{path}: not a regular file but a directory", hint="choose another name")
    return path.with_name(hidden_prefix(path) + token)


def _write_error(path: Path, error: OSError, hint: str = OTHER_NAME) -> FileAccessError:
    if isinstance(error, FileExistsError):
        return FileAccessError(f"{path}: already exists", hint=hint)
    return FileAccessError(f"{path}: cannot write: {system_reason(error)}")


def make_directory(path: Path) -> None:
    """
    Make *path* and its parents where they are missing.

    Raises: FileAccessError.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileAccessError(f"{path}: cannot make directory: {system_reason(error)}") from error


@contextmanager
def made_directories(paths: Sequence[Path]) -> Iterator[None]:
    """
    Make *paths* and their parents for a job; when it fails, those that are new and empty go again.

    Raises: FileAccessError.
    """
    new: list[Path] = []
    try:
        for path in paths:
            new += [place for place in (path, *path.parents) if place not in new and _is_missing(place)]
            make_directory(path)
        yield
    except BaseException:
        for place in sorted(new, reverse=True):
            with suppress(OSError):
                place.rmdir()
        raise


def _is_missing(place: Path) -> bool:
    try:
        return not place.exists()
    except OSError as error:  # a name that is too long, for one
        raise FileAccessError(f"{place}: cannot make directory: {system_reason(error)}") from error


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """
    Hold the lock of file *path*, so that one run at a time fetches and writes.

    Raises: FileAccessError, also for what the caller's block cannot write.
    """
    try:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise FileAccessError(f"{path}: cannot write: {system_reason(error)}") from error
