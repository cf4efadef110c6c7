# SPDX-License-Identifier: Apache-2.0
"""
Read tar files from untrusted sources.

Module tarfile trusts the headers. A negative size makes it read for ever, and some kilobytes of
compressed extended header fill the memory. Therefore it reads from a file that only moves
forward, bounds each read, and has a limit. tarfile ends silently at a damaged header, although
other readers may continue. This module raises an error.
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

MAX_TAR_BYTES = 16 * 1024**3  # of an uncompressed layer
MAX_HEADER_BYTES = 1024 * 1024
# The exceptions of damaged archives. Nested extended headers raise RecursionError.
TAR_ERRORS = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError, RecursionError)
_CHUNK_BYTES = 256 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_END = (b"", bytes(BLOCK_BYTES))  # the last read of an archive without and with blocks of zeros at its end


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
    """The first *limit* bytes of *file*, forward only, for tarfile. *last* is the result of the last read."""

    def __init__(self, file: gzip.GzipFile | IO[bytes], limit: int) -> None:
        self._file = file
        self._limit = limit
        self._position = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        """Return the next bytes. Raises: tarfile.ReadError."""
        # tarfile reads an extended header in one call. `read_data` uses smaller chunks.
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise TarLimitError(f"an extended header of {size} bytes")
        self.last = self._file.read(size)
        self._position += len(self.last)
        if self._position > self._limit:
            raise TarLimitError("too large without its compression")
        return self.last

    def seek(self, offset: int) -> None:
        """Move forward to *offset*. Raises: tarfile.ReadError, also for a backward move."""
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
    Yield each member of *layer* (tar, perhaps with gzip) and its archive.

    `read_data` can read a member's data until the next member is requested.

    Raises: one of TAR_ERRORS, also if the layer has more than *limit* bytes uncompressed.
    """
    return _read_members(_unpack(layer, limit))


def index_archive(file: IO[bytes]) -> dict[str, tuple[int, int]]:
    """
    Return offset and size of each regular file in *file*, an uncompressed tar file, by name.

    Links and devices are left out.

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
    Return the data of *member*, the present member of *archive*.

    Raises: one of TAR_ERRORS.
    """
    data = bytearray()
    file = archive.extractfile(member)
    while file and (chunk := file.read(_CHUNK_BYTES)):
        data += chunk
    return bytes(data)


def digest_unpacked(layer: IO[bytes], limit: int = MAX_TAR_BYTES) -> str:
    """
    Return the SHA-256, in hex, of *layer* uncompressed.

    Raises: one of TAR_ERRORS, also if the layer has more than *limit* bytes uncompressed.
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
    """Return *layer* uncompressed. The first bytes show gzip, as for container engines."""
    magic = layer.read(len(_GZIP_MAGIC))
    layer.seek(0)
    return _Forward(gzip.GzipFile(fileobj=layer) if magic == _GZIP_MAGIC else layer, limit)
