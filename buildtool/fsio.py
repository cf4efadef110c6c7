# SPDX-License-Identifier: Apache-2.0
"""Bounded reads and atomic writes; every OSError becomes a FileAccessError here."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from buildtool.errors import FileAccessError, UsageError

MANY_FILES = 32
SYNC_THREADS = 16


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
        raise FileAccessError(f"{path}: cannot read: {_reason(error)}") from error


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, replace: bool = True) -> None:
    """
    Write *data* to *path* by temporary file, fsync and rename; a failure leaves nothing behind.

    Without *replace* an existing *path* is an error, without a race: the name
    is made by link(2).

    Raises: FileAccessError.
    """
    with staged_files([path], replace=replace) as stage:
        stage.write(path, data, mode=mode)


def choose_targets(paths: Sequence[Path], output: Path | None) -> list[Path]:
    """
    Return where each of *paths* is written: in its place, or in directory *output*.

    Raises: UsageError, when two would be one file.
    """
    targets: dict[Path, Path] = {}
    for path in paths:
        target = output / path.name if output else path.resolve()
        if target in targets:
            raise UsageError(f"{path}: two objects for {target}")
        targets[target] = path
    return list(targets)


def write_all_atomic(files: Mapping[Path, bytes], *, replace: bool = True) -> None:
    """
    Write all *files* or, as far as a file system allows, none: all bytes are on disk before the first rename.

    A file that is replaced keeps its mode. Without *replace* an existing path is an error.

    Raises: FileAccessError.
    """
    with staged_files(list(files), replace=replace) as stage:
        for path, data in files.items():
            stage.write(path, data)


class Stage:
    """Files beside where they will be; their names are fixed from the start, so that forks can write them."""

    def __init__(self, paths: Sequence[Path], *, replace: bool) -> None:
        """Choose a temporary name beside each of *paths*."""
        token = os.urandom(8).hex()
        self.pending = {path: path.with_name(f".{path.name}.{token}") for path in paths}
        self._replace = replace

    def write(self, path: Path, data: bytes, *, mode: int | None = None) -> None:
        """
        Write *data* for *path*; without a *mode* it gets that of *path*, or 0644 when that is new.

        Raises: FileAccessError.
        """
        try:
            there = _stat(path)
            if there and not self._replace:
                raise FileExistsError
            if mode is None:
                mode = stat.S_IMODE(there.st_mode) if there else 0o644
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(self.pending[path], flags, 0o600), "wb", buffering=0) as file:
                os.fchmod(file.fileno(), mode)
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
        except OSError as error:
            raise _write_error(path, error) from error

    def publish(self) -> None:
        """
        Give all files their names, once all their bytes are on disk.

        Raises: FileAccessError.
        """
        # All data first, then all fsyncs: so the journal is written a few times, not once for each file.
        _sync_all(self.pending)
        for path, temporary in self.pending.items():
            try:
                if self._replace:
                    temporary.replace(path)
                else:
                    os.link(temporary, path)
            except OSError as error:
                raise _write_error(path, error) from error

    def clear(self) -> None:
        """Remove what is left of the temporary files."""
        for temporary in self.pending.values():
            temporary.unlink(missing_ok=True)


@contextmanager
def staged_files(paths: Sequence[Path], *, replace: bool = True) -> Iterator[Stage]:
    """
    Give a stage that *paths* are written to; at the end of the block all get their names, or none does.

    Raises: FileAccessError.
    """
    stage = Stage(paths, replace=replace)
    try:
        yield stage
        stage.publish()
    finally:
        stage.clear()


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _write_error(path: Path, error: OSError) -> FileAccessError:
    if isinstance(error, FileExistsError):
        return FileAccessError(f"{path}: already exists", hint="choose another name or remove it")
    return FileAccessError(f"{path}: cannot write: {_reason(error)}")


def _sync_all(pending: Mapping[Path, Path]) -> None:
    """Sync the temporary file of each path."""
    if len(pending) < MANY_FILES:
        for item in pending.items():
            _sync(item)
        return
    from concurrent.futures import ThreadPoolExecutor  # its import costs more than a few syncs

    # Syncs that wait together share a commit of the journal.
    items = list(pending.items())
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        # Each thread has its own: handing them out one by one takes longer than the syncs.
        list(pool.map(_sync_each, (items[start::SYNC_THREADS] for start in range(SYNC_THREADS))))


def _sync_each(items: Sequence[tuple[Path, Path]]) -> None:
    for item in items:
        _sync(item)


def _sync(item: tuple[Path, Path]) -> None:
    path, temporary = item
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _write_error(path, error) from error


def make_directory(path: Path) -> None:
    """
    Make *path* and its parents where they are missing.

    Raises: FileAccessError.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileAccessError(f"{path}: cannot make directory: {_reason(error)}") from error


@contextmanager
def made_directories(paths: Sequence[Path]) -> Iterator[None]:
    """
    Make *paths* and their parents for a job; when it fails, those that are new and empty go again.

    Raises: FileAccessError.
    """
    new: list[Path] = []
    try:
        for path in paths:
            new += [place for place in (path, *path.parents) if not place.exists() and place not in new]
            make_directory(path)
        yield
    except BaseException:
        for place in sorted(new, reverse=True):
            with suppress(OSError):
                place.rmdir()
        raise


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
