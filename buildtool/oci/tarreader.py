# SPDX-License-Identifier: Apache-2.0
"""
Reads tar files that somebody else made.

Module tarfile believes their headers: a negative size makes it read for ever, and an extended header of
some kilobytes, compressed, takes all the memory there is. So it reads through a file that goes forward
only, gives little at once and has an end. A damaged header is the end for tarfile, though other readers
may see more; here it is an error.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

from buildtool.core.errors import has_system_reason, system_reason
from buildtool.oci.tarwriter import BLOCK_BYTES

MAX_TAR_BYTES = 16 * 1024**3  # of a layer, without compression
MAX_HEADER_BYTES = 1024 * 1024
# What a damaged archive raises; headers of headers end in a RecursionError.
TAR_ERRORS = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError, RecursionError)
_CHUNK_BYTES = 256 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_END = (b"", bytes(BLOCK_BYTES))  # the end of an archive without and with its blocks of zeros


class TarLimitError(tarfile.ReadError):
    """What tarfile would take, and what is refused here."""


def describe_tar_error(error: BaseException) -> str:
    """Return what *error*, one of TAR_ERRORS, means: the texts of the libraries name their own insides."""
    text = str(error)
    if isinstance(error, TarLimitError):
        return text
    if isinstance(error, OSError) and has_system_reason(error):
        return system_reason(error)
    if isinstance(error, zlib.error | gzip.BadGzipFile):
        return "damaged gzip data"
    if isinstance(error, EOFError) or "end of" in text or "truncated" in text:
        return "truncated"
    return "empty" if text == "empty file" else "damaged header"


class _Forward:
    """What tarfile needs of *file*: bytes from its begin to at most *limit*; *last* is what was read last."""

    def __init__(self, file: gzip.GzipFile | IO[bytes], limit: int) -> None:
        self._file = file
        self._limit = limit
        self._position = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        """Return the next bytes. Raises: tarfile.ReadError."""
        # tarfile reads a whole extended header at once; data is read in smaller pieces below.
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise TarLimitError(f"an extended header of {size} bytes")
        self.last = self._file.read(size)
        self._position += len(self.last)
        if self._position > self._limit:
            raise TarLimitError("too large without its compression")
        return self.last

    def seek(self, offset: int) -> None:
        """Go forward to *offset*. Raises: tarfile.ReadError."""
        if not self._position <= offset <= self._limit:
            raise TarLimitError("a member that ends before its begin or behind the archive")
        self._position = self._file.seek(offset)

    def tell(self) -> int:
        """Return the position."""
        return self._position


def read_layer(
    layer: IO[bytes], limit: int = MAX_TAR_BYTES
) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """
    Yield each member of *layer*, plain or with gzip, and the archive, which has its data until the next one.

    Raises: one of TAR_ERRORS, also when the layer has more than *limit* bytes without compression.
    """
    return _read_members(_unpack(layer, limit))


def index_archive(file: IO[bytes]) -> dict[str, tuple[int, int]]:
    """
    Return where the regular files of *file*, a tar file without compression, are: name to offset and size.

    Links and devices lead nowhere here.

    Raises: one of TAR_ERRORS.
    """
    members = _read_members(_Forward(file, os.fstat(file.fileno()).st_size))
    return {
        member.name.removeprefix("./"): (member.offset_data, member.size)
        for member, _ in members
        if member.isreg() and not member.issparse()
    }


def read_data(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """
    Return the data of *member*, which *archive* has come to.

    Raises: one of TAR_ERRORS.
    """
    data = bytearray()
    file = archive.extractfile(member)
    while file and (chunk := file.read(_CHUNK_BYTES)):
        data += chunk
    return bytes(data)


def digest_unpacked(layer: IO[bytes], limit: int = MAX_TAR_BYTES) -> str:
    """
    Return the SHA-256 of *layer* without its compression.

    Raises: one of TAR_ERRORS, also when it has more than *limit* bytes.
    """
    file, digest = _unpack(layer, limit), hashlib.sha256()
    while data := file.read(_CHUNK_BYTES):
        digest.update(data)
    return digest.hexdigest()


def _read_members(file: _Forward) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    fileobj: Any = file
    with tarfile.open(fileobj=fileobj, mode="r:") as archive:
        while (member := archive.next()) is not None:
            if member.size < 0:
                raise TarLimitError(f"a member of {member.size} bytes")
            yield member, archive
        if file.last not in _END:
            raise TarLimitError("damaged header")


def _unpack(layer: IO[bytes], limit: int) -> _Forward:
    """Return *layer* without gzip, known by its first bytes as container engines know it."""
    magic = layer.read(len(_GZIP_MAGIC))
    layer.seek(0)
    return _Forward(gzip.GzipFile(fileobj=layer) if magic == _GZIP_MAGIC else layer, limit)
