# SPDX-License-Identifier: Apache-2.0
"""
Read and write the lock: version and digest of each Debian package in the shipped loaders.

The file is tools/packages.lock, with one package in a line. A checkout and an installation read the
same file. `tools/loaders --lock` writes it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from buildtool.core.digests import Digest
from buildtool.core.errors import ConfigError
from buildtool.core.files import read_bounded, write_atomic
from buildtool.core.resources import resource_path

LOCK_NAME = "tools/packages.lock"
_MAX_LOCK_BYTES = 1024 * 1024
_HEAD = """\
# SPDX-License-Identifier: Apache-2.0
# Debian packages that loaders, tini, base layers and headers are made of. Refresh: tools/loaders --lock
# suite architecture package version sha256
"""
_LINE = re.compile(
    r"(?P<suite>[a-z]+) (?P<architecture>[a-z0-9]+) (?P<name>[a-z0-9][a-z0-9.+-]+)"
    r" (?P<version>[A-Za-z0-9.+:~-]+) (?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LockedPackage:
    """Package *name* in the list of *suite* for *architecture*: its *version* and *sha256*."""

    suite: str
    architecture: str
    name: str
    version: str
    sha256: str

    @property
    def line(self) -> str:
        """The package's line in the lock."""
        return f"{self.suite} {self.architecture} {self.name} {self.version} {self.sha256}\n"


@dataclass(frozen=True, slots=True)
class PackageLock:
    """The locked packages by suite, architecture and name."""

    packages: Mapping[tuple[str, str, str], LockedPackage] = field(default_factory=dict)

    def find(self, suite: str, architecture: str, name: str) -> LockedPackage | None:
        """Return the locked package, or None if the lock lacks it."""
        return self.packages.get((suite, architecture, name))

    @property
    def text(self) -> str:
        """The lines of all packages, sorted."""
        return "".join(each.line for each in sorted(self.packages.values()))

    def digest(self, suite: str = "", architecture: str = "") -> Digest:
        """Return the SHA-256 of the lines of *suite* and *architecture*, by default of all lines."""
        lines = self.text.splitlines(keepends=True)
        wanted = f"{suite} {architecture} " if suite else ""
        return Digest(hashlib.sha256("".join(x for x in lines if x.startswith(wanted)).encode()).hexdigest())


def make_lock(packages: Iterable[LockedPackage]) -> PackageLock:
    """Return the lock that holds *packages*."""
    return PackageLock({(each.suite, each.architecture, each.name): each for each in packages})


def read_lock(path: Path | None = None) -> PackageLock:
    """
    Return the lock in file *path*, by default that of this checkout or installation.

    Raises: FileAccessError; ConfigError, if a line is not a locked package.
    """
    path = path or resource_path(LOCK_NAME)
    text = read_bounded(path, _MAX_LOCK_BYTES).decode(errors="replace")
    packages = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ConfigError(
                f"{path}: line {number}: not a locked package",
                hint="tools/loaders --lock writes the file anew",
            )
        packages.append(LockedPackage(**found.groupdict()))
    return make_lock(packages)


def write_lock(path: Path, lock: PackageLock) -> None:
    """
    Write *lock* to file *path*, sorted.

    Raises: FileAccessError.
    """
    write_atomic(path, (_HEAD + lock.text).encode())
