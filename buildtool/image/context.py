# SPDX-License-Identifier: Apache-2.0
"""
Check the directories of sources before they are sent to BuildKit.

Private keys must not leave this machine. Symbolic links are sent as links, and their targets may be
missing in the builder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from buildtool.core.errors import ConfigError, FileAccessError, UsageError
from buildtool.core.files import read_bounded
from buildtool.core.validate import check_relative_path, is_inside

MAX_SEARCHED_BYTES = 64 * 1024  # of each file; a key with a certificate chain above it is smaller
MAX_LINKS = 40  # MAXSYMLINKS of Linux
# PEM has this text at the start of a line. C code that mentions keys has it inside quotes.
_PRIVATE_KEY = re.compile(rb"^[ \t]*-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----", re.MULTILINE)


def check_sent(root: Path, directories: Sequence[str], sources: Iterable[str], key: Path | None) -> None:
    """
    Check that *directories* of project *root* contain all *sources* and no private key.

    *key* is the signing key's file, which is refused there whatever its contents are.

    Raises: ConfigError, which names the first wrong file.
    """
    check_no_links(root, directories)
    for name in directories:
        if key is not None and key.resolve().is_relative_to((root / name).resolve()):
            raise ConfigError(
                f"signing key {key} is in {name}/, which is sent to the builder",
                hint=f"mv {key} keys/, and name it there by sign.key",
            )
    for source in sources:
        target = _find_way_out(root, source, directories)
        if target is not None:
            raise ConfigError(
                f"{root / source}: a link that leads out of the directories that are sent (to {target})",
                hint="put the file itself there; --engine local, which sends nothing, follows links",
            )
    for name in directories:
        for path in _regular_files(root / name):
            if _holds_private_key(path):
                raise ConfigError(
                    f"{path}: a private key in {name}/, which is sent to the builder",
                    hint="move it out of there, to keys/ for example",
                )


def check_no_links(root: Path, directories: Sequence[str]) -> None:
    """
    Check that no path of *directories* in project *root* contains a symbolic link.

    A link could send a directory outside the project, or the whole project with its keys.

    Raises: ConfigError.
    """
    for name in map(PurePosixPath, directories):
        for path in (*reversed(name.parents[:-1]), name):
            if (root / path).is_symlink():
                raise ConfigError(
                    f"{root / path}: a symbolic link, which is not sent to the builder",
                    hint="name the directory itself in buildtool.toml, or use --engine local",
                )


def check_outside(root: Path, directories: Sequence[str], place: Path) -> None:
    """
    Check that *place* is outside *directories* of project *root*. An archive there would contain itself.

    Raises: UsageError.
    """
    for name in directories:
        if place.resolve().is_relative_to((root / name).resolve()):
            raise UsageError(
                f"{place}: cannot hold the Dockerfile: {name}/ is sent to the builder whole",
                hint="choose another folder, for example -o image",
            )


def sent_directories(root: Path, sources: Iterable[str], include: Iterable[str]) -> list[str]:
    """
    Return the directories of project *root* that compiling *sources* reads, without those inside another.

    Only they are mounted, so BuildKit sends no other file of the project to the engine. The project's own
    directory is never among them, but the sources and headers (.h) that are in it directly.

    Raises: UsageError.
    """
    sources = list(sources)
    wanted = {PurePosixPath(check_relative_path(path)).parent for path in sources}
    wanted |= {PurePosixPath(check_relative_path(path)) for path in include if is_inside(path)}
    top = PurePosixPath()
    files = set[str]()
    if top in wanted:
        wanted.remove(top)
        files = {os.path.normpath(path) for path in sources if PurePosixPath(path).parent == top}
        files |= {path.name for path in root.glob("*.h") if path.is_file()}
    return sorted({*files, *(str(path) for path in wanted if not wanted.intersection(path.parents))})


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsentFile:
    """
    A file *name* that clang reads, and that is not sent to the builder.

    *directory* is its directory in the project, which compile.include could name. It is empty if no setting
    sends the file: outside the project, behind a symbolic link, or beside buildtool.toml.
    """

    name: str
    directory: str

    @property
    def remedy(self) -> str:
        """The hint of an error about this file."""
        if self.directory:
            return f'add "{self.directory}" to compile.include in buildtool.toml'
        return "copy the file into a directory of sources, or use --engine local"


def find_unsent(root: Path, directories: Sequence[str], names: Iterable[str]) -> UnsentFile | None:
    """
    Return the first of *names* that is not sent with *directories*, or None.

    *names* are files that clang reads in *root*, as clang names them. Headers of the system have absolute
    names, and the builder has its own.
    """
    top = f"{os.path.realpath(root)}/"
    for name in sorted({name.removeprefix(top) for name in names}):
        way_out = None if name.startswith("/") else _find_way_out(root, name, directories)
        if way_out is not None:
            path = PurePosixPath(os.path.normpath(name))
            is_own = not way_out and len(path.parts) > 1 and path.parts[0] != ".."
            return UnsentFile(name=str(path), directory=str(path.parent) if is_own else "")
    return None


def _find_way_out(root: Path, source: str, directories: Sequence[str]) -> str | None:
    """
    Return the target of the link by which *source* leaves *directories*, or None.

    In the builder, only *directories* of the project are mounted. Therefore links are followed by
    their text and not by their targets on this machine.
    """
    mounts = [PurePosixPath(name) for name in directories]
    here, waiting, text = PurePosixPath(), list(reversed(PurePosixPath(source).parts)), ""
    links = 0
    while waiting:
        part = waiting.pop()
        if part == ".." and not here.parts:
            return text
        step = here.parent if part == ".." else here / part
        if not any(step.is_relative_to(mount) or mount.is_relative_to(step) for mount in mounts):
            return text
        if not (root / step).is_symlink():
            here = step
            continue
        text, links = str((root / step).readlink()), links + 1
        if text.startswith("/") or links > MAX_LINKS:
            return text
        waiting += reversed(PurePosixPath(text).parts)
    return None


def _regular_files(directory: Path) -> Iterator[Path]:
    """Yield the regular files below *directory*. Symbolic links are not followed."""
    waiting = [directory]
    if directory.is_file():  # one of the files beside buildtool.toml
        yield directory
        return
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue  # BuildKit's client cannot read it either
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def _holds_private_key(path: Path) -> bool:
    try:
        return has_private_key(read_bounded(path, MAX_SEARCHED_BYTES))
    except FileAccessError:
        return False  # BuildKit's client cannot read it either


def has_private_key(data: bytes) -> bool:
    """Return whether the beginning of *data*, a file's contents, has a private key in PEM."""
    data = data[:MAX_SEARCHED_BYTES]
    return b"PRIVATE KEY" in data and _PRIVATE_KEY.search(data) is not None
