# SPDX-License-Identifier: Apache-2.0
"""
List and read the files of a project that nobody has checked: bounded, without leaving the project.

Directories that are symbolic links are not entered, so a loop of links ends. A linked file counts if its
target is a regular file inside the project. Text in an unknown encoding is read with replacements.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from buildtool.core.errors import FileAccessError, UsageError
from buildtool.core.files import read_bounded

MAX_ENTRIES = 300_000
MAX_FILE_BYTES = 4 * 1024 * 1024  # of a C file; build files are smaller
MAX_BUILD_FILE_BYTES = 1024 * 1024
MAX_TOTAL_BYTES = 512 * 1024 * 1024
# Folders of tools, without files of the project.
_IGNORED = {".git", ".hg", ".svn", "node_modules", ".venv", "venv", "__pycache__", ".cache", ".tox"}
# Folders with the sources of others. Their headers count, and their programs do not.
_FOREIGN = re.compile(r"vendor|(?:third|3rd)[-_]?party|extern(?:al)?|deps")


class Tree:
    """The files below *root*, by names relative to it, and their texts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: set[str] = set()
        self.folders: set[str] = {""}
        self.is_complete = True
        self._texts: dict[str, str] = {}
        self._bytes = 0
        self._by_name: dict[str, list[str]] = {}
        if not root.is_dir():
            raise FileAccessError(f"{root}: not a directory", hint="name the project's directory by --from")
        top = os.path.realpath(root)
        for number, name in enumerate(self._walk(str(root), "")):
            if number >= MAX_ENTRIES:
                self.is_complete = False
                break
            if self._is_inside(name, top):
                self.files.add(name)
        for name in sorted(self.files):
            self._by_name.setdefault(name.rpartition("/")[2], []).append(name)
        self.foreign = self._submodules()

    def _walk(self, place: str, name: str) -> Iterator[str]:
        """Yield the names of files, those of the upper folders first."""
        waiting = [(place, name)]
        while waiting:
            place, name = waiting.pop()
            try:
                with os.scandir(place) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in found:
                inside = f"{name}/{entry.name}" if name else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _IGNORED:
                        self.folders.add(inside)
                        waiting.append((entry.path, inside))
                elif inside.isprintable():
                    yield inside

    def _is_inside(self, name: str, top: str) -> bool:
        path = self.root / name
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                return os.path.realpath(path).startswith(top + os.sep) and stat.S_ISREG(path.stat().st_mode)
            return stat.S_ISREG(status.st_mode)
        except (OSError, RuntimeError):
            return False

    def _submodules(self) -> frozenset[str]:
        lines = self.read(".gitmodules").splitlines() if ".gitmodules" in self.files else []
        pairs = (line.partition("=") for line in lines)
        return frozenset(value.strip().strip("/") for key, _, value in pairs if key.strip() == "path")

    def read(self, name: str) -> str:
        """Return the text of file *name*, its beginning if it is large; empty text if it cannot be read."""
        if name not in self._texts:
            try:
                limit = MAX_FILE_BYTES if name.endswith((".c", ".h")) else MAX_BUILD_FILE_BYTES
                data = read_bounded(self.root / name, limit)[:limit]
            except FileAccessError:
                data = b""
            self._bytes += len(data)
            if self._bytes > MAX_TOTAL_BYTES:
                raise UsageError(
                    f"{self.root}: more than {MAX_TOTAL_BYTES} bytes of sources and build files",
                    hint="name the directory of the programs by --from",
                )
            encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
            text = data.decode(encoding, errors="replace").replace("\r\n", "\n")
            self._texts[name] = text.translate({1: None, 2: None, 3: None})
        return self._texts[name]

    def head(self, name: str, size: int) -> bytes:
        """Return the first *size* bytes of file *name*, or nothing if it cannot be read."""
        try:
            with (self.root / name).open("rb") as file:
                return file.read(size)
        except OSError:
            return b""

    def has_folder(self, name: str) -> bool:
        """Return whether *name*, relative to the project, is a folder: inside, or outside by .. or from /."""
        if name in (".", ""):
            return True
        if name.startswith(("/", "../")) or name == "..":
            return (self.root / name).is_dir()
        return name in self.folders

    def has_file(self, name: str) -> bool:
        """Return whether *name* is a file: inside the project, or outside by .. or from /."""
        if name.startswith(("/", "../")):
            return (self.root / name).is_file()
        return name in self.files

    def named(self, base: str) -> list[str]:
        """Return the files called *base*, in any folder."""
        return self._by_name.get(base, [])

    def is_foreign(self, name: str) -> bool:
        """Return whether file *name* is part of another project: of a submodule, or vendored."""
        parts = name.split("/")[:-1]
        above = {"/".join(parts[: at + 1]) for at in range(len(parts))}
        return bool(above & self.foreign) or any(_FOREIGN.fullmatch(part) for part in parts)


def join(directory: str, name: str) -> str:
    """Return *name*, which starts from *directory* of the project, relative to the project, normalised."""
    joined = posixpath.normpath(posixpath.join(directory or ".", name))
    return "" if joined == "." else joined


def folder_of(name: str) -> str:
    """Return the folder of file *name*, empty for the project's own."""
    return name.rpartition("/")[0]
