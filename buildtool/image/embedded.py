# SPDX-License-Identifier: Apache-2.0
"""
Our own sources as text: what a Dockerfile must carry to compile and sign without buildtool on the host.

The Python part is the closure of the commands `compile`, `agree`, `sign` and `grant`:
their modules and every buildtool module these import, wherever in the file they do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from buildtool.core.errors import FileAccessError
from buildtool.core.files import read_bounded
from buildtool.core.resources import package_directory, resource_path
from buildtool.runtime.carried import loader_files

MAX_SOURCE_BYTES = 1024 * 1024
# Parsing 60 files with `ast` took a tenth of a second of each build. A name too many is no module of ours; a
# test compares the result with what the compiler finds.
_IMPORT = re.compile(
    r"^[ \t]*(?:from (buildtool[\w.]*) import (\([^)]*\)|[^\n(]*)|import (buildtool[\w.]*))", re.MULTILINE
)
# cli.main imports commands by name, which no import statement shows.
ROOTS = (
    "buildtool.__main__",
    "buildtool.cli.agree",
    "buildtool.cli.compile",
    "buildtool.cli.grant",
    "buildtool.cli.sign",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedFile:
    """A text file: *directory* inside the sources (buildtool/cli), *name*, *text*."""

    directory: str
    name: str
    text: str


@lru_cache(maxsize=1)
def python_sources() -> tuple[EmbeddedFile, ...]:
    """
    Return the modules that those commands need, sorted by path.

    Raises: FileAccessError.
    """
    package = package_directory()
    found: dict[Path, str] = {}
    waiting = list(ROOTS)
    while waiting:
        path = _module_path(package, waiting.pop())
        if path is None or path in found:
            continue
        found[path] = _read_text(path)
        waiting += _imported(found[path])
        waiting += _packages(package, path)
    return tuple(
        EmbeddedFile(directory=path.parent.relative_to(package.parent).as_posix(), name=path.name, text=text)
        for path, text in sorted(found.items())
    )


@lru_cache(maxsize=1)
def loader_sources() -> tuple[EmbeddedFile, ...]:
    """
    Return the files that the loader is linked from, sorted by path.

    Raises: FileAccessError.
    """
    directory = resource_path("loader")
    paths = [PurePosixPath("loader", name) for name in loader_files(directory)]
    return tuple(
        EmbeddedFile(directory=str(path.parent), name=path.name, text=_read_text(directory.parent / path))
        for path in paths
        if path.parts[1] != "probe"
    )


def _module_path(package: Path, module: str) -> Path | None:
    """Return the file of *module*, or None when the name is not a module of ours (a function, say)."""
    base = package.parent.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_name(base.name + ".py")):
        if path.is_file():
            return path
    return None


def _packages(package: Path, path: Path) -> Iterator[str]:
    """Yield the packages around *path*: Python runs each `__init__.py` on the way."""
    for parent in path.parents:
        yield ".".join(parent.relative_to(package.parent).parts)
        if parent == package:
            return


def _imported(text: str) -> Iterator[str]:
    """Yield every name of ours that *text* imports, including inside functions."""
    for module, names, plain in _IMPORT.findall(text):
        yield module or plain
        yield from (f"{module}.{name}" for name in re.findall(r"\w+", names))


def _read_text(path: Path) -> str:
    try:
        return read_bounded(path, MAX_SOURCE_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileAccessError(f"{path}: not UTF-8 text", hint="install buildtool again") from error
