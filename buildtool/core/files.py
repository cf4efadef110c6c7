# SPDX-License-Identifier: Apache-2.0
"""Bounded reads and atomic writes. Every OSError becomes a FileAccessError."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import tempfile
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
# link(2) is impossible: no hard links on the file system, another mount, or a file of another user
# (fs.protected_hardlinks).
_NO_LINK = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def expand_home(path: Path) -> Path:
    """
    Return *path* with ~ or ~USER at its start replaced by the home directory.

    Raises: UsageError, if the user has no home directory, as in many containers.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: no home directory for {path.parts[0]}", hint="set HOME") from error


def read_bounded(path: Path, limit: int, *, directory: int | None = None) -> bytes:
    """
    Return at most *limit* + 1 bytes of regular file *path*, read once.

    A result longer than *limit* means that the file is too large, and the caller decides what
    follows. If *directory* is an open descriptor, the file is opened by its name in that
    directory. FIFOs and devices are refused without blocking.

    Raises: FileAccessError.
    """
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        name = path if directory is None else path.name
        descriptor = os.open(name, flags, dir_fd=directory)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileAccessError(
                    f"{path}: not a regular file", hint="copy its contents into a file, and name that file"
                )
            # Python allocates a buffer of the requested size, so request the file's size first.
            # Files in /proc have size 0, hence the second read.
            data = file.read(min(status.st_size, limit) + 1)
            return data if len(data) <= status.st_size else data + file.read(limit + 1 - len(data))
    except IsADirectoryError as error:
        raise FileAccessError(f"{path}: a directory, not a file", hint=f"name its files: {path}/*") from error
    except OSError as error:
        raise FileAccessError(f"{path}: cannot read: {system_reason(error)}") from error


def write_atomic(
    path: Path, data: bytes, *, mode: int = 0o644, replace: bool = True, hint: str = OTHER_NAME
) -> None:
    """
    Write *data* to *path* by temporary file, fsync and rename. A failure leaves nothing behind.

    Without *replace*, an existing *path* is an error with *hint*. link(2) makes the name then,
    because it refuses an existing name without a race.

    Raises: FileAccessError.
    """
    with staged_files([path], replace=replace, hint=hint) as stage:
        stage.write(path, data, mode=mode)


def choose_targets(
    paths: Sequence[Path], output: Path | None, names: Sequence[str] | None = None
) -> list[Path]:
    """
    Return the output path of each of *paths*: its real path, or its name in directory *output*.

    *names* are those of the files in *output*, by default those of *paths*.

    Raises: UsageError, if two outputs are the same file.
    """
    targets: dict[Path, Path] = {}
    one_each = "name each object once" + (f", or give {output} the objects of one folder" if output else "")
    for path, name in zip(paths, names or [path.name for path in paths], strict=True):
        # Before Python 3.13, Path.resolve raises RuntimeError for a loop of symbolic links.
        target = output / name if output else Path(os.path.realpath(path))
        if target in targets:
            raise UsageError(
                f"{targets[target]} and {path}: both would be written to {target}", hint=one_each
            )
        targets[target] = path
    return list(targets)


def write_all_atomic(files: Mapping[Path, bytes], *, replace: bool = True) -> None:
    """
    Write all *files* or none, by `staged_files`.

    A replaced file keeps its mode. Without *replace*, an existing path is an error.

    Raises: FileAccessError.
    """
    with staged_files(list(files), replace=replace) as stage:
        for path, data in files.items():
            stage.write(path, data)


class Stage:
    """
    Temporary files beside their final paths.

    `pending` maps each final path to its temporary path. The names are chosen at the start, so
    that worker processes can write the files.
    """

    def __init__(self, paths: Sequence[Path], *, replace: bool, hint: str = OTHER_NAME) -> None:
        """
        Choose a temporary name beside each of *paths*. *hint* is the hint of the error for an existing path.

        Raises: FileAccessError, if a path is a directory.
        """
        token = os.urandom(8).hex()
        self.pending = {path: _beside(path, f"{token}{at}") for at, path in enumerate(paths)}
        self._replace, self._hint = replace, hint
        # The second hard link of each replaced file, or None for a new file.
        self._old: dict[Path, Path | None] = {}

    def write(self, path: Path, data: bytes, *, mode: int | None = None) -> None:
        """
        Write *data* for *path* to its temporary file, with fsync.

        If *mode* is None, the file has the mode of the file that it replaces, or 0644.

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
        Rename all temporary files to their final paths. If one rename fails, restore the files of before.

        Raises: FileAccessError.
        """
        done: list[Path] = []
        path = Path()
        try:
            # Link each file to a second name before the first rename, because link(2) may fail.
            # A single rename needs no second name: it succeeds or changes nothing.
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
        """Link the file at *path* to the second name *old*, if the file system allows it."""
        try:
            os.link(path, old)
            self._old[path] = old
        except FileNotFoundError:
            self._old[path] = None
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise

    def _undo(self, done: Sequence[Path], error: FileAccessError) -> FileAccessError:
        """Undo the renames of *done*. Return *error* with a hint that names the files not restored."""
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
        """Remove the remaining temporary files."""
        for temporary in (*self.pending.values(), *filter(None, self._old.values())):
            # An error of unlink would hide the first error. A name that was never created fails here, too.
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def staged_files(paths: Sequence[Path], *, replace: bool = True, hint: str = OTHER_NAME) -> Iterator[Stage]:
    """
    Yield a stage for *paths*. At the end of the block all files get their final names, or none does.

    All bytes are on the disk before the first rename. A replaced file keeps a second hard link
    until all renames are done. If a rename fails, that link restores the file. A crash between
    two renames leaves some files old and some new; so does a failure without hard links.

    Without *replace*, an existing path is an error with *hint*.

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
    Block signals that end this process while files are renamed and temporary files removed.

    Ctrl-C between two renames would otherwise leave half of the files, and second links later.
    The mask belongs to the calling thread. The kernel may deliver a signal to another thread
    that does not block it, so write files while this process has one thread.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_target(path: Path, *, replace: bool, hint: str = OTHER_NAME) -> os.stat_result | None:
    """
    Return the status of regular file *path*, which may be replaced, or None if *path* does not exist.

    A device, a FIFO or a symbolic link is refused: rename(2) would replace even /dev/stdout.
    Without *replace*, an existing file is an error with *hint*.

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


def check_writable(path: Path) -> None:
    """
    Check that *path* can be made, before the work whose result it gets: its directory takes a new file.

    A directory that is missing is an error; `check_makeable` is for commands that make it.

    Raises: FileAccessError.
    """
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise _write_error(path, error) from error


def check_makeable(directory: Path) -> None:
    """
    Check that files can be written into *directory*, which is made later if it is missing.

    Raises: FileAccessError.
    """
    place = directory.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise FileAccessError(f"{directory}: cannot make directory: {place} is a file", hint=OTHER_NAME)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise _write_error(directory, error) from error


def hidden_prefix(path: Path) -> str:
    """Return the first part of the name of a temporary file for *path*."""
    return f".{path.name[:50]}."  # 50 characters have at most 200 bytes in UTF-8, and a name has at most 255


def _beside(path: Path, token: str) -> Path:
    if not path.name:
        raise FileAccessError(f"{path}: not a regular file but a directory", hint="choose another name")
    return path.with_name(hidden_prefix(path) + token)


def _write_error(path: Path, error: OSError, hint: str = OTHER_NAME) -> FileAccessError:
    if isinstance(error, FileExistsError):
        return FileAccessError(f"{path}: already exists", hint=hint)
    return cannot_write(path, error)


def cannot_write(path: Path, error: OSError) -> FileAccessError:
    """Return the error for what the system says of writing *path*."""
    is_lost = isinstance(error, FileNotFoundError) and not path.parent.exists()
    hint = f"mkdir -p {path.parent}" if is_lost else None
    return FileAccessError(f"{path}: cannot write: {system_reason(error)}", hint=hint)


def make_directory(path: Path) -> None:
    """
    Make *path* and its missing parents.

    Raises: FileAccessError.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileAccessError(f"{path}: cannot make directory: {system_reason(error)}") from error


@contextmanager
def made_directories(paths: Sequence[Path]) -> Iterator[None]:
    """
    Make *paths* and their parents. If the block raises, remove the new directories that are empty.

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
    except OSError as error:  # such as ENAMETOOLONG
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
