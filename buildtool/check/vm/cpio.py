# SPDX-License-Identifier: Apache-2.0
"""
Initial RAM disks: cpio archives of the "newc" form, the same bytes for the same files.

Layout: kernel documentation, driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"
_DIRECTORY = stat.S_IFDIR | 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class CpioFile:
    """A regular file: its *data* and permission bits *mode*; it belongs to root."""

    data: bytes
    mode: int = 0o644


def make_cpio(files: Mapping[str, CpioFile]) -> bytes:
    """Return an archive of *files* by absolute path, and of the directories that they need."""
    entries = {str(PurePosixPath(path)).strip("/"): file for path, file in files.items()}
    parents = {str(parent) for path in entries for parent in PurePosixPath(path).parents}
    parts: list[bytes] = []
    for number, path in enumerate(sorted({*entries, *parents} - {"."}), start=1):
        file = entries.get(path)
        mode = _DIRECTORY if file is None else stat.S_IFREG | file.mode
        parts += _entry(path, number, mode, b"" if file is None else file.data)
    parts += _entry(_TRAILER, 0, 0, b"")
    return b"".join(parts)


def _entry(name: str, number: int, mode: int, data: bytes) -> Iterator[bytes]:
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device and its node (two each), length of the name, checksum
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    yield b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
    yield bytes(-(110 + len(encoded)) % 4)
    yield data
    yield bytes(-len(data) % 4)
