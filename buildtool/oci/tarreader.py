# SPDX-License-Identifier: Apache-2.0
"""
Reads tar files that somebody else made.

Module tarfile believes their headers: one with a negative size, or of an exabyte, makes it read for ever, and
an extended header of some kilobytes, compressed, takes all the memory there is. A damaged header is the end
for it, though others may see more.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

MAX_TAR_BYTES = 16 * 1024**3  # of a layer, without compression
MAX_HEADER_BYTES = 1024 * 1024
# What a damaged archive raises; headers of headers end in a RecursionError.
TAR_ERRORS = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError, RecursionError)
_CHUNK_BYTES = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_DAMAGED = ("InvalidHeaderError", "TruncatedHeaderError")
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Member(tarfile.TarInfo):
    """A member whose sizes were looked at."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Read the next member. Raises: tarfile.TarError."""
        try:
            member = super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ not in _DAMAGED:
                raise  # the end, with or without its blocks of zeros
            raise tarfile.ReadError(f"damaged header: {error}") from error
        # To get over a member a stream is read so many times, also when it has ended.
        if not 0 <= member.size <= MAX_TAR_BYTES:
            raise tarfile.ReadError(f"a member of {member.size} bytes")
        return member

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Look at what is read before the member is: its own header, and those of names."""
        if not 0 <= self.size <= MAX_TAR_BYTES:
            raise tarfile.ReadError(f"a member of {self.size} bytes")
        if self.type in _HEADERS and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found


class _Bounded:
    """What tarfile needs of *file*, of which it gets no more than *limit* bytes."""

    def __init__(self, file: gzip.GzipFile | IO[bytes], limit: int) -> None:
        self._file = file
        self._left = limit

    def read(self, size: int) -> bytes:
        """Return the next bytes. Raises: tarfile.ReadError."""
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError("too large without its compression")
        return data


def open_tar(path: Path) -> tarfile.TarFile:
    """
    Return the archive *path*, which is not compressed.

    Raises: one of TAR_ERRORS.
    """
    return tarfile.open(path, "r:", tarinfo=_Member)


@contextmanager
def open_layer_tar(layer: IO[bytes], limit: int = MAX_TAR_BYTES) -> Iterator[tarfile.TarFile]:
    """
    Give *layer*, plain or with gzip, as an archive to be read from its begin to its end.

    Raises: one of TAR_ERRORS, also when it has more than *limit* bytes without compression.
    """
    file: Any = _unpack(layer, limit)
    with tarfile.open(fileobj=file, mode="r|", tarinfo=_Member) as archive:
        yield archive


def digest_unpacked(layer: IO[bytes], limit: int = MAX_TAR_BYTES) -> str:
    """
    Return the SHA-256 of *layer* without its compression.

    Raises: one of TAR_ERRORS, also when it has more than *limit* bytes.
    """
    file, digest = _unpack(layer, limit), hashlib.sha256()
    while data := file.read(_CHUNK_BYTES):
        digest.update(data)
    return digest.hexdigest()


def _unpack(layer: IO[bytes], limit: int) -> _Bounded:
    """Return *layer* without gzip, known by its first bytes as container engines know it."""
    magic = layer.read(len(_GZIP_MAGIC))
    layer.seek(0)
    return _Bounded(gzip.GzipFile(fileobj=layer) if magic == _GZIP_MAGIC else layer, limit)
