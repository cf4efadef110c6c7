# SPDX-License-Identifier: Apache-2.0
"""
Write layers: deterministic tar files with the headers that BuildKit writes for the same files.

Equal files give an equal diff_id with each engine. Headers are POSIX ustar. Values that ustar
cannot hold are in an extended header (pax).

Sources: POSIX.1-2017 pax (ustar and extended headers), OCI image layer specification v1.1.
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from buildtool.core.errors import UsageError

BLOCK_BYTES = 512
_NAME_BYTES, _PREFIX_BYTES, _LINK_BYTES = 100, 155, 100
_MAX_SIZE = 8 ** (12 - 1) - 1
_XATTR = "SCHILY.xattr."


@dataclass(frozen=True, slots=True, kw_only=True)
class TarEntry:
    """
    A member of a layer: *path* without a slash at either end, *kind* as in module tarfile.

    *data* are a file's bytes, and *target* is a link's target. *xattrs* are extended attributes by
    name (security.capability). *size* is set by readers only.
    """

    path: str
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    data: bytes = b""
    target: str = ""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    size: int = -1

    @property
    def is_directory(self) -> bool:
        """True for a directory."""
        return self.kind == tarfile.DIRTYPE

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return self.kind in (tarfile.REGTYPE, tarfile.AREGTYPE)


def pack_tar(entries: Iterable[TarEntry]) -> bytes:
    """
    Return the tar file of *entries*, in their order and with their times.

    Raises: UsageError, if a tar file cannot hold an entry.
    """
    body = bytearray()
    for entry in entries:
        body += entry_header(entry, len(entry.data))
        body += entry.data
        body += bytes(-len(entry.data) % BLOCK_BYTES)
    return bytes(body + end_of_archive())


def end_of_archive() -> bytes:
    """Return the two blocks of zeros after the last member."""
    return bytes(2 * BLOCK_BYTES)


def entry_header(entry: TarEntry, size: int) -> bytes:
    """
    Return the header blocks of *entry*. The caller writes *size* bytes of data and the padding after them.

    Raises: UsageError.
    """
    path = entry.path + "/" if entry.is_directory else entry.path
    if not entry.path or entry.path.startswith("/") or ".." in entry.path.split("/") or "\0" in path:
        raise UsageError(f"{entry.path!r}: not a path inside an image")
    if size > _MAX_SIZE:
        raise UsageError(f"{entry.path}: too large for a layer")
    records = {f"{_XATTR}{name}": value for name, value in entry.xattrs.items()}
    prefix, name = _split(path)
    if not name:
        records["path"] = path.encode()
        name = path.encode("ascii", "ignore")[:_NAME_BYTES].rstrip(b"/")
    target = entry.target.encode()
    if len(target) > _LINK_BYTES or not target.isascii():
        records["linkpath"] = target
        target = entry.target.encode("ascii", "ignore")[:_LINK_BYTES]
    header = _ustar(
        name=name,
        prefix=prefix,
        mode=stat.S_IMODE(entry.mode),
        owner=(entry.uid, entry.gid),
        size=size,
        mtime=entry.mtime,
        kind=entry.kind,
        target=target,
    )
    return _extended(path, records) + header if records else header


def _split(path: str) -> tuple[bytes, bytes]:
    """Return ustar's prefix and name for *path*, or an empty name if they cannot hold *path*."""
    name = path.encode()
    if not path.isascii():
        return b"", b""
    if len(name) <= _NAME_BYTES:
        return b"", name
    length = min(len(name) - name.endswith(b"/"), _PREFIX_BYTES + 1)
    at = name[:length].rfind(b"/")
    rest = name[at + 1 :]
    return (name[:at], rest) if at > 0 and 0 < len(rest) <= _NAME_BYTES else (b"", b"")


def _extended(path: str, records: Mapping[str, bytes]) -> bytes:
    body = b"".join(_record(key, value) for key, value in sorted(records.items()))
    directory, _, base = path.rstrip("/").rpartition("/")
    name = "/".join(filter(None, (directory, "PaxHeaders.0", base)))
    header = _ustar(
        name=name.encode("ascii", "ignore")[:_NAME_BYTES],
        prefix=b"",
        mode=0,
        owner=(0, 0),
        size=len(body),
        mtime=0,
        kind=tarfile.XHDTYPE,
        target=b"",
    )
    return header + body + bytes(-len(body) % BLOCK_BYTES)


def _record(key: str, value: bytes) -> bytes:
    """Return a pax record, LENGTH KEY=VALUE. LENGTH includes its own digits."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest)
    while length != len(str(length)) + len(rest):
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _ustar(
    *,
    name: bytes,
    prefix: bytes,
    mode: int,
    owner: tuple[int, int],
    size: int,
    mtime: int,
    kind: bytes,
    target: bytes,
) -> bytes:
    uid, gid = owner
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            _octal(mode, 8),
            _octal(uid, 8),
            _octal(gid, 8),
            _octal(size, 12),
            _octal(mtime, 12),
            b" " * 8,
            kind,
            target.ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),  # no names of user and group: containers use the numbers
            # Go's archive/tar leaves the device numbers of an extended header empty.
            bytes(16) if kind == tarfile.XHDTYPE else b"0000000\0" * 2,
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]


def _octal(value: int, width: int) -> bytes:
    text = f"{value:0{width - 1}o}"
    if value < 0 or len(text) >= width:
        raise UsageError(f"{value} is too large a number for a tar file")
    return text.encode() + b"\0"
