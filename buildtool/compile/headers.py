# SPDX-License-Identifier: Apache-2.0
"""
Headers of Linux and of libbpf, which programs include: those of one release of Debian for every architecture.

A compiler for eBPF that searches this machine's headers gets this machine's `asm/`: another size of long and
another byte order than the target's. So compilers get this directory alone, on each machine and in each
engine: `common/` is of all architectures, `ARCH/asm/` of one. `headers.json` names the packages and lists the
digest of each file; a file that clang read must be as listed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildtool.core.errors import FileAccessError
from buildtool.core.files import read_bounded
from buildtool.core.platforms import Platform
from buildtool.core.resources import package_directory

# Names headers that `make loaders` made elsewhere, in place of what the installation carries.
HEADERS_VARIABLE = "BUILDTOOL_HEADERS"
COMMON = "common"
LIST_NAME = "headers.json"
LIST_VERSION = 1
MAX_HEADER_BYTES = 16 * 1024 * 1024
# Where Debian installs these headers; their names stand in BTF, and must not be those of a directory of ours.
_SHOWN = "/usr/include"
_DAMAGED = "install buildtool again; in a checkout, run `make loaders`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """
    The headers in *directory*: versions of the *packages* that they come from, digests of the *files*.

    The names of files are relative to the directory: common/linux/bpf.h, arm64/asm/types.h. *lock* is the
    digest of what they were made of: the locked packages, and a header of our own.
    """

    directory: Path
    packages: Mapping[str, str]
    lock: str
    files: Mapping[str, str] = field(repr=False)

    def flags(self, platform: Platform) -> list[str]:
        """Return the flags by which clang finds these headers, behind those of the project and its own."""
        flags = []
        for name in (platform.arch, COMMON):
            place = str(self.directory / name)
            flags += ["-idirafter", place, f"-ffile-prefix-map={place}={_SHOWN}"]
        return flags

    def find(self, path: str) -> str | None:
        """Return the name of the file at *path*, or None when it is not below the directory."""
        top = f"{self.directory}/"
        return path.removeprefix(top) if path.startswith(top) else None

    def check(self, paths: Iterable[str]) -> None:
        """
        Refuse files of *paths* that are below the directory and not as listed.

        Raises: FileAccessError.
        """
        for path in sorted(set(paths)):
            name = self.find(path)
            if name is not None:
                self.read(name)

    def read(self, name: str) -> bytes:
        """
        Return the bytes of file *name*.

        Raises: FileAccessError, also when they are not those that the list names.
        """
        path = self.directory / name
        data = read_bounded(path, MAX_HEADER_BYTES)
        if hashlib.sha256(data).hexdigest() != self.files.get(name):
            raise FileAccessError(f"{path}: not the file that {LIST_NAME} lists", hint=_DAMAGED)
        return data

    def list_document(self, names: Iterable[str]) -> bytes:
        """Return a list for the files *names* alone."""
        return make_list(self.packages, self.lock, {name: self.files[name] for name in names})


def make_list(packages: Mapping[str, str], lock: str, files: Mapping[str, str]) -> bytes:
    """Return the document `headers.json`, the same bytes for the same values."""
    document = {"version": LIST_VERSION, "packages": dict(packages), "lock": lock, "files": dict(files)}
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def carried_headers() -> Path:
    """Return where the installation's headers are, whether they have been made or not."""
    return package_directory() / "data/headers"


def read_headers(directory: Path) -> Headers:
    """
    Return the headers in *directory*.

    Raises: FileAccessError, when there are none or the list is damaged.
    """
    path = directory / LIST_NAME
    try:
        document: dict[str, Any] = json.loads(read_bounded(path, MAX_HEADER_BYTES))
        packages, lock, files = document["packages"], document["lock"], document["files"]
        if document["version"] != LIST_VERSION:
            raise ValueError("version")
        texts = [lock, *packages.values(), *files.values()]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("files")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileAccessError(f"{path}: not a list of headers", hint=_DAMAGED) from error
    place = Path(os.path.abspath(directory))  # noqa: PTH100 - the name that clang will give its files
    return Headers(directory=place, packages=packages, lock=lock, files=files)
