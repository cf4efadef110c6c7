# SPDX-License-Identifier: Apache-2.0
"""
Pack the archive beside a Dockerfile: buildtool's sources, and the project's for a rendered folder.

The same files give the same bytes: paths are sorted, and modes, owners and times are fixed. The
Dockerfile contains the SHA-256 of the archive, and compares it before unpacking.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from buildtool.core.digests import Digest
from buildtool.core.errors import ConfigError, FileAccessError, system_reason
from buildtool.core.files import read_bounded
from buildtool.image.context import check_no_links
from buildtool.image.embedded import EmbeddedFile, loader_sources, python_sources
from buildtool.image.ignore import IGNORE_FILE, IgnoreRules, read_ignore_file
from buildtool.oci.tarwriter import TarEntry, pack_tar

ARCHIVE_EPOCH = 315532800  # 1980, because GNU tar warns about time 0
PROJECT_DIRECTORY = "project"
MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class SourceArchive:
    """A tar file: its *data*, *digest* and *name*."""

    data: bytes = field(repr=False)

    @cached_property
    def digest(self) -> Digest:
        """The SHA-256 of the whole file."""
        return Digest(hashlib.sha256(self.data).hexdigest())

    @property
    def name(self) -> str:
        """The name of the file. It contains the digest, so that no cache confuses two archives."""
        return f"buildtool-sources-{self.digest[:12]}.tar"

    def write(self, directory: Path) -> None:
        """
        Write the archive into *directory* with a fixed time: BuildKit does not send an unchanged file again.

        Raises: FileAccessError.
        """
        path = directory / self.name
        try:
            path.write_bytes(self.data)
            os.utime(path, (ARCHIVE_EPOCH, ARCHIVE_EPOCH))
        except OSError as error:
            raise FileAccessError(f"{path}: cannot write: {system_reason(error)}") from error


def pack_own_sources(headers: tuple[EmbeddedFile, ...] = (), more: Sequence[TarEntry] = ()) -> SourceArchive:
    """
    Return the archive of the loader's sources, of the modules that compile and sign, of *headers* and *more*.

    Raises: FileAccessError.
    """
    return _pack([*_own_entries(headers), *more]) if more else _pack_own(headers)


@lru_cache(maxsize=1)
def _pack_own(headers: tuple[EmbeddedFile, ...]) -> SourceArchive:
    return _pack(_own_entries(headers))


def pack_project(
    root: Path,
    directories: Sequence[str],
    sources: Iterable[str],
    headers: Sequence[EmbeddedFile] = (),
    more: Sequence[TarEntry] = (),
) -> SourceArchive:
    """
    Return the archive of buildtool's sources, of *directories* of project *root*, and of *more*.

    The files are those that BuildKit would receive: without those in .dockerignore, and with
    symbolic links as links.

    Raises: ConfigError, if one of *sources* is excluded, one of *directories* is a symbolic link, or
    a file is too large; FileAccessError.
    """
    check_no_links(root, directories)
    rules = read_ignore_file(root)
    entries = [entry for name in directories for entry in _list(root, name, rules)]
    # If a source is behind a link to a directory, the archive holds the link.
    packed = {PurePosixPath(entry.path) for entry in entries if not entry.is_directory}
    for source in map(PurePosixPath, sources):
        if not packed.intersection((source, *source.parents)):
            raise ConfigError(
                f"{root / source}: excluded by {IGNORE_FILE}, so the builder would not have it",
                hint=f"change {IGNORE_FILE}",
            )
    moved = (replace(entry, path=f"{PROJECT_DIRECTORY}/{entry.path}") for entry in entries)
    return _pack([*_own_entries(headers), *moved, *more])


def _pack(entries: Iterable[TarEntry]) -> SourceArchive:
    ordered = sorted(entries, key=lambda entry: PurePosixPath(entry.path).parts)
    return SourceArchive(data=pack_tar(ordered))


def _own_entries(headers: Iterable[EmbeddedFile]) -> list[TarEntry]:
    return [
        TarEntry(path=f"{file.directory}/{file.name}", mtime=ARCHIVE_EPOCH, data=file.text.encode())
        for file in (*loader_sources(), *python_sources(), *headers)
    ]


def _list(root: Path, name: str, rules: IgnoreRules) -> Iterator[TarEntry]:
    """Yield what is sent of *name*, a directory, or a file beside buildtool.toml."""
    if not (root / name).is_file():
        yield from _walk(root, name, rules)
    elif not rules.excludes(PurePosixPath(name)):
        yield _read(root, PurePosixPath(name))


def _walk(root: Path, directory: str, rules: IgnoreRules) -> Iterator[TarEntry]:
    """
    Yield the directories, files and links in *directory* that *rules* do not exclude.

    Devices and other special files are left out. *rules* may include a file of an excluded directory.
    """
    waiting = [PurePosixPath(directory)]
    while waiting:
        place = waiting.pop()
        if rules.excludes_all_below(place):
            continue
        if not rules.excludes(place):
            yield TarEntry(path=_checked(place), kind=tarfile.DIRTYPE, mode=0o755, mtime=ARCHIVE_EPOCH)
        try:
            with os.scandir(root / place) as found:
                entries = list(found)
        except OSError as error:
            raise FileAccessError(f"{root / place}: cannot read: {system_reason(error)}") from error
        for entry in entries:
            path = place / entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif rules.excludes(path):
                continue
            elif entry.is_symlink():
                yield _read_link(root, path)
            elif entry.is_file(follow_symlinks=False):
                yield _read(root, path)


def _read(root: Path, path: PurePosixPath) -> TarEntry:
    data = read_bounded(root / path, MAX_FILE_BYTES)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"{root / path}: larger than {MAX_FILE_BYTES} bytes",
            hint=f"move it out of the directories of sources, or name it in {IGNORE_FILE}",
        )
    return TarEntry(path=_checked(path), mtime=ARCHIVE_EPOCH, data=data)


def _read_link(root: Path, path: PurePosixPath) -> TarEntry:
    try:
        target = os.readlink(root / path)  # noqa: PTH115 - a Path would change the text of the link
    except OSError as error:
        raise FileAccessError(f"{root / path}: cannot read: {system_reason(error)}") from error
    if not _is_utf8(target):
        raise ConfigError(
            f"{str(root / path)!r}: the target of the link is not UTF-8: {target!r}",
            hint=f"rename the target, or name the link in {IGNORE_FILE}",
        )
    return TarEntry(path=_checked(path), kind=tarfile.SYMTYPE, mode=0o777, mtime=ARCHIVE_EPOCH, target=target)


def _checked(path: PurePosixPath) -> str:
    text = str(path)
    if not _is_utf8(text):
        raise ConfigError(f"{text!r}: the name is not UTF-8", hint=f"rename it, or name it in {IGNORE_FILE}")
    return text


def _is_utf8(text: str) -> bool:
    """Return whether *text*, a decoded name of the file system, was UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
