# SPDX-License-Identifier: Apache-2.0
"""
Collect buildtool's sources for a Dockerfile, which compiles and signs without buildtool on the host.

The Python part consists of the modules of `compile`, `agree`, `sign` and `grant`, and of all buildtool
modules that these import anywhere in a file.
"""

from __future__ import annotations

import gzip
import re
from base64 import encodebytes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from buildtool.core.errors import FileAccessError
from buildtool.core.files import read_bounded
from buildtool.core.resources import package_directory, resource_path
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.runtime.carried import loader_files

MAX_SOURCE_BYTES = 1024 * 1024
_PROBE = "loader/probe"
# Parsing 60 files with `ast` took a tenth of a second of each build. A surplus name is no module of ours.
# A test compares the result with the imports that the compiler finds.
_NAME = r"(buildtool(?:\.\w+)*)"
_IMPORT = re.compile(rf"^[ \t]*(?:from {_NAME} import (\([^)]*\)|[^\n(]*)|import {_NAME})", re.MULTILINE)
# cli.main imports commands by name, without an import statement.
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


VENDORED = "loader/vendor/"  # the beginning of directories with sources of other projects
VENDORED_NAME = "vendored.tar.gz"


def pack_vendored(files: Iterable[EmbeddedFile]) -> str:
    """
    Return *files* in base64, as a tar file that holds VENDORED_NAME.

    As text they would make a Dockerfile of 60,000 lines more, and BuildKit's client sends at most 16 MiB.
    """
    entries = (
        TarEntry(path=f"{file.directory}/{file.name}", data=file.text.encode(), mtime=0) for file in files
    )
    data = gzip.compress(pack_tar(entries), 9, mtime=0)
    return encodebytes(pack_tar([TarEntry(path=VENDORED_NAME, data=data, mtime=0)])).decode()


@lru_cache(maxsize=1)
def python_sources() -> tuple[EmbeddedFile, ...]:
    """
    Return the modules that the commands in ROOTS need, sorted by path.

    Raises: FileAccessError.
    """
    package = package_directory()
    found: dict[Path, str] = {}
    known, waiting = set(ROOTS), list(ROOTS)
    while waiting:
        path = _module_path(package, waiting.pop())
        if path is None or path in found:
            continue
        found[path] = _read_text(path)
        new = {*_imported(found[path]), *_packages(package, path)} - known
        known |= new
        waiting += new
    return tuple(
        EmbeddedFile(directory=path.parent.relative_to(package.parent).as_posix(), name=path.name, text=text)
        for path, text in sorted(found.items())
    )


@lru_cache(maxsize=1)
def loader_sources() -> tuple[EmbeddedFile, ...]:
    """
    Return the sources of the loader and ebpf-pins, sorted by path.

    Raises: FileAccessError.
    """
    return tuple(file for file in _static_sources() if file.directory != _PROBE)


def probe_sources() -> tuple[EmbeddedFile, ...]:
    """
    Return the sources of bpf-probe that `loader_sources` lacks, sorted by path.

    Raises: FileAccessError.
    """
    return tuple(file for file in _static_sources() if file.directory == _PROBE)


def _static_sources() -> tuple[EmbeddedFile, ...]:
    directory = resource_path("loader")
    paths = [PurePosixPath("loader", name) for name in loader_files(directory)]
    return tuple(
        EmbeddedFile(directory=str(path.parent), name=path.name, text=_read_text(directory.parent / path))
        for path in paths
    )


def _module_path(package: Path, module: str) -> Path | None:
    """Return the file of *module*, or None if the name is no module of buildtool, such as a function."""
    base = package.parent.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_name(base.name + ".py")):
        if path.is_file():
            return path
    return None


def _packages(package: Path, path: Path) -> Iterator[str]:
    """Yield the packages that contain *path*, because Python runs the `__init__.py` of each."""
    for parent in path.parents:
        yield ".".join(parent.relative_to(package.parent).parts)
        if parent == package:
            return


def _imported(text: str) -> Iterator[str]:
    """Yield each name of buildtool that *text* imports, also inside functions."""
    for module, names, plain in _IMPORT.findall(text):
        yield module or plain
        yield from (f"{module}.{name}" for name in re.findall(r"\w+", names))


def _read_text(path: Path) -> str:
    try:
        return read_bounded(path, MAX_SOURCE_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileAccessError(f"{path}: not UTF-8 text", hint="install buildtool again") from error
