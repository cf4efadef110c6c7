# SPDX-License-Identifier: Apache-2.0
"""Bounded reads and atomic writes; every OSError becomes a FileAccessError here."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from buildtool.errors import FileAccessError


def read_bounded(path: Path, limit: int) -> bytes:
    """
    Read regular file *path* once, at most *limit* + 1 bytes.

    A result longer than *limit* says that the file is too large; the caller
    decides what that means. FIFOs and devices are refused without blocking.

    Raises: FileAccessError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileAccessError(f"{path}: not a regular file")
            return file.read(limit + 1)
    except OSError as error:
        raise FileAccessError(f"{path}: cannot read: {_reason(error)}") from error


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, replace: bool = True) -> None:
    """
    Write *data* to *path* by temporary file, fsync and rename; a failure leaves nothing behind.

    Without *replace* an existing *path* is an error, without a race: the name
    is made by link(2).

    Raises: FileAccessError.
    """
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        if replace:
            os.replace(temporary, path)
            temporary = ""
        else:
            os.link(temporary, path)
    except FileExistsError as error:
        raise FileAccessError(f"{path}: already exists", hint="choose another name or remove it") from error
    except OSError as error:
        raise FileAccessError(f"{path}: cannot write: {_reason(error)}") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def make_directory(path: Path) -> None:
    """
    Make *path* and its parents where they are missing.

    Raises: FileAccessError.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileAccessError(f"{path}: cannot make directory: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
