# SPDX-License-Identifier: Apache-2.0
"""
A directory of reproducible results: objects, layers, blobs of base images.

Cached bytes get signed and shipped, so only this user may write to the directory.
Each entry begins with the SHA-256 of its bytes, and a damaged entry counts as missing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from buildtool.core.errors import ConfigError, FileAccessError, system_reason
from buildtool.core.files import expand_home, read_bounded

log = logging.getLogger(__name__)

DIRECTORY_VARIABLE = "BUILDTOOL_CACHE"
MAX_ENTRY_BYTES = 512 * 1024 * 1024
MAX_AGE_SECONDS = 30 * 24 * 3600
_PRUNE_SECONDS = 24 * 3600
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """
    Entries below *directory*, by kind and key (a hex digest).

    If *directory* is None, the cache stays empty. If *reads* is false, entries are written only.
    """

    directory: Path | None
    reads: bool = True

    def read(self, kind: str, key: str) -> bytes | None:
        """Return the entry, or None if it is missing, unreadable, damaged or above MAX_ENTRY_BYTES."""
        if self.directory is None or not self.reads:
            return None
        path = self.directory / kind / key[:2] / key
        try:
            data = read_bounded(path, MAX_ENTRY_BYTES)
            digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            if hashlib.sha256(body).digest() != digest:
                return None
            os.utime(path)
        except (FileAccessError, OSError):
            return None
        return body

    def write(self, kind: str, key: str, body: bytes) -> None:
        """Store the entry. A failed write is logged and otherwise ignored: the result can be made again."""
        if self.directory is None:
            return
        path = self.directory / kind / key[:2] / key
        # fsync is not needed: after a crash, the digest exposes a torn entry.
        temporary = path.with_name(f".{os.urandom(8).hex()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(hashlib.sha256(body).digest() + body)
            temporary.replace(path)
        except OSError as error:
            log.debug("cache: %s", error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def open_cache(environ: Mapping[str, str], *, reads: bool = True) -> Cache:
    """
    Return this user's cache, in BUILDTOOL_CACHE, XDG_CACHE_HOME/buildtool or HOME/.cache/buildtool.

    The cache has no directory if none of these is an absolute path, or if other users may write
    there. Entries unused for MAX_AGE_SECONDS are removed.

    Raises: ConfigError, if BUILDTOOL_CACHE names no absolute path.
    """
    place = environ.get(DIRECTORY_VARIABLE, "")
    if place and not Path(place).is_absolute():
        raise ConfigError(
            f"{DIRECTORY_VARIABLE}: {place!r} is not an absolute path",
            hint=f'{DIRECTORY_VARIABLE}="$PWD/{place}" for example; unset it for ~/.cache/buildtool',
        )
    origin = f"{DIRECTORY_VARIABLE}: " if place else ""
    if not place and (base := environ.get("XDG_CACHE_HOME") or environ.get("HOME")):
        parent = Path(base) if environ.get("XDG_CACHE_HOME") else Path(base, ".cache")
        place = str(parent / "buildtool")
    if not place or not Path(place).is_absolute():
        return Cache(directory=None)
    directory = Path(place, "v1")
    try:
        for path in (directory.parent, directory):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            _check_owner(path)
    except OSError as error:
        log.warning("%sno cache in %s: %s", origin, place, system_reason(error))
        return Cache(directory=None)
    _prune(directory)
    return Cache(directory=directory, reads=reads)


def _check_owner(path: Path) -> None:
    """Refuse a directory in which another user could have placed an object."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(1, "others may write there")


def _prune(directory: Path) -> None:
    """Remove entries unused for MAX_AGE_SECONDS, at most once a day."""
    mark, now = directory / "pruned", time.time()
    try:
        if mark.exists() and now - mark.stat().st_mtime < _PRUNE_SECONDS:
            return
        mark.touch()
        for path in directory.glob("*/*/*"):
            if now - path.stat().st_mtime > MAX_AGE_SECONDS:
                path.unlink(missing_ok=True)
    except OSError as error:
        log.debug("cache: %s", error)


def tools_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of kernels and probes, below BUILDTOOL_CACHE, XDG_CACHE_HOME or HOME."""
    if (own := environ.get(DIRECTORY_VARIABLE, "")).startswith("/"):
        return Path(own) / "vm"
    base = environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else expand_home(Path("~/.cache"))) / "buildtool/vm"
