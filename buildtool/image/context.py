# SPDX-License-Identifier: Apache-2.0
"""
What BuildKit is sent: the directories of sources, whole. They are looked at before it is.

Two things are found here: private keys, which must not leave this machine, and
links, which are sent as links: what they lead to is often not there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from buildtool.core.errors import ConfigError, FileAccessError, UsageError
from buildtool.core.files import read_bounded

MAX_SEARCHED_BYTES = 64 * 1024  # of each file: a key, and a certificate chain above it, are smaller
MAX_LINKS = 40  # as the kernel does
# At the start of a line, as PEM has it: C code that speaks of keys has it in quotes.
_PRIVATE_KEY = re.compile(rb"^[ \t]*-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----", re.MULTILINE)


def check_sent(root: Path, directories: Sequence[str], sources: Iterable[str], key: Path | None) -> None:
    """
    Refuse private keys in *directories* of project *root*, and *sources* that would not arrive with them.

    *key* is the signing key's file, whatever it holds.

    Raises: ConfigError, with the first file that is wrong.
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
    Refuse a symbolic link at, or on the way to, one of *directories* of project *root*.

    A link could send a directory that is not in the project, or all of the project with its keys.

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
    Refuse to write below *directories* of project *root*: the archive at *place* would hold itself.

    Raises: UsageError.
    """
    for name in directories:
        if place.resolve().is_relative_to((root / name).resolve()):
            raise UsageError(
                f"{place}: cannot hold the Dockerfile: {name}/ is sent to the builder whole",
                hint="choose another folder, for example -o image",
            )


def _find_way_out(root: Path, source: str, directories: Sequence[str]) -> str | None:
    """
    Return what the link says by which *source* leaves *directories*, None when it does not.

    Links are followed as the builder does, where *directories* are mounted and
    nothing else of the project is: by their text, not by where they lead here.
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
    """Yield the regular files below *directory*; links in it are sent as links."""
    waiting = [directory]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue  # what cannot be read here, BuildKit's client cannot send
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def _holds_private_key(path: Path) -> bool:
    try:
        data = read_bounded(path, MAX_SEARCHED_BYTES)
    except FileAccessError:
        return False  # as above
    return b"PRIVATE KEY" in data and _PRIVATE_KEY.search(data) is not None
