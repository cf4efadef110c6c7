# SPDX-License-Identifier: Apache-2.0
"""
Find the parts of images that the installation carries: loader, tini and base layer of each platform.

`make loaders` makes these files and `loaders.json`, which lists digest and origin of each. Wheels
contain the files, git does not. A file with another digest is refused, and so is a loader made
from other sources than those beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildtool.core.digests import Digest
from buildtool.core.errors import ConfigError, FileAccessError, system_reason
from buildtool.core.files import read_bounded
from buildtool.core.platforms import PLATFORMS, Platform
from buildtool.core.resources import package_directory, resource_path
from buildtool.objects.capabilities import PINS_NAME

# The environment variable with another directory of parts, made by `make loaders`.
LOADERS_VARIABLE = "BUILDTOOL_LOADERS"
LOADER_NAME = "verify-and-load"
PROBE_NAME = "bpf-probe"
TINI_NAME = "tini-static"
LIST_VERSION = 1
MAX_PART_BYTES = 16 * 1024 * 1024
_MAX_LIST_BYTES = 1024 * 1024
_SOURCE_SUFFIXES = (".c", ".h", ".ld", ".txt")
# clang's arguments for libbpf, relative to the loader's directory. Each static program is linked with the
# result, one relocatable object file.
_LIBBPF = "vendor/libbpf"
LIBBPF_FROM = (f"@{_LIBBPF}/flags.txt", f"@{_LIBBPF}/sources.txt")
LIBBPF_NAME = "libbpf.o"
# clang's arguments for the sources of each static program, relative to the loader's directory.
_SHARED = ("@sources.txt", "@verify/sources.txt", "@flags.txt")
LINKED_FROM: Mapping[str, tuple[str, ...]] = {
    "loader": ("run/main.c", *_SHARED),
    "pins": ("operate/main.c", "operate/commands.c", *_SHARED),
    "probe": ("probe/probe.c", "probe/link.c", "base/static_gaps.c", "@flags.txt"),
}
_NOT_LINKED = ("fuzz/", "test/", "verify/example.c")
_HINT = (
    "install a release, whose wheel carries it; or run `make loaders` in a checkout (Debian, clang 19);"
    " --engine docker needs none"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """
    A file for one platform: its *path*, its bytes *data*, and their digest *sha256*.

    *record* is its entry in the list: size, and packages with version and digest. A loader's
    entry also has the compiler and the digest of the sources, the base's its diff_id.
    """

    path: Path
    data: bytes = field(repr=False)
    sha256: Digest
    record: Mapping[str, Any] = field(repr=False)


_NAMED_HINT = (
    f"{LOADERS_VARIABLE} names a directory that `make loaders` wrote (buildtool/data in a checkout);"
    " unset it for the loaders of this installation"
)


def data_directory() -> Path:
    """Return the directory of the parts, which may be missing."""
    return package_directory() / "data"


def named_directory(environ: Mapping[str, str]) -> Path | None:
    """
    Return the directory of parts in variable BUILDTOOL_LOADERS, or None.

    Raises: ConfigError, if there is no such directory.
    """
    if not environ.get(LOADERS_VARIABLE):
        return None
    directory = Path(environ[LOADERS_VARIABLE])
    if not directory.is_dir():
        raise ConfigError(f"{LOADERS_VARIABLE}: {directory}: no such directory", hint=_NAMED_HINT)
    return directory


def part_path(data: Path, kind: str, arch: str) -> Path:
    """Return the path of a part below directory *data*. *kind* is loader, pins, probe, tini or base."""
    return {
        "loader": data / "loaders" / arch / LOADER_NAME,
        "pins": data / "loaders" / arch / PINS_NAME,
        "probe": data / "loaders" / arch / PROBE_NAME,
        "tini": data / "tini" / arch / TINI_NAME,
        "base": data / "base" / arch / "layer.tar.gz",
    }[kind]


def list_path(data: Path) -> Path:
    """Return the path of the list below directory *data*."""
    return data / "loaders" / "loaders.json"


def find_loader(platform: Platform, data: Path | None = None) -> Part:
    """
    Return verify-and-load for *platform*, made from the sources of this installation.

    Raises: FileAccessError, whose hint names a command.
    """
    return _find_made(platform, "loader", data)


def find_pins_tool(platform: Platform, data: Path | None = None) -> Part:
    """
    Return ebpf-pins for *platform*, made from the sources of this installation.

    Raises: FileAccessError, whose hint names a command.
    """
    return _find_made(platform, "pins", data)


def find_probe(platform: Platform, data: Path | None = None) -> Part:
    """
    Return bpf-probe for *platform*, made from the sources of this installation.

    Raises: FileAccessError, whose hint names a command.
    """
    return _find_made(platform, "probe", data)


def find_tini(platform: Platform, data: Path | None = None) -> Part:
    """
    Return tini-static for *platform*.

    Raises: FileAccessError, whose hint names a command.
    """
    return _find(platform, "tini", data)


def find_base(platform: Platform, data: Path | None = None) -> Part:
    """
    Return the only layer of the base for *platform*, a compressed tar.

    record["diff_id"] is the digest of the uncompressed tar.

    Raises: FileAccessError, whose hint names a command.
    """
    part = _find(platform, "base", data)
    if not isinstance(part.record.get("diff_id"), str):
        raise FileAccessError(
            f"{part.path}: loaders.json lists no diff_id",
            hint="install buildtool again; in a checkout, run `make loaders`",
        )
    return part


def find_loader_platforms(data: Path | None = None) -> tuple[Platform, ...]:
    """Return the platforms with parts in *data*, by default in the installation."""
    try:
        entries = read_list(data or data_directory())
    except FileAccessError:
        return ()
    return tuple(platform for arch, platform in PLATFORMS.items() if arch in entries)


def _find_made(platform: Platform, kind: str, data: Path | None) -> Part:
    part = _find(platform, kind, data)
    if part.record.get("source") != loader_digest():
        raise FileAccessError(
            f"{part.path}: made of other sources than loader/",
            hint="install buildtool again; in a checkout, run `make loaders`",
        )
    return part


def loader_files(directory: Path | None = None) -> list[str]:
    """
    Return the files in loader/ of which the static programs consist: relative paths, sorted.

    Raises: FileAccessError.
    """
    directory = directory or resource_path("loader")
    try:
        if not directory.is_dir():
            raise FileAccessError(f"{directory}: no such directory", hint="install buildtool again")
        paths = [path for path in directory.rglob("*") if path.suffix in _SOURCE_SUFFIXES]
    except OSError as error:
        raise FileAccessError(f"{directory}: cannot read: {system_reason(error)}") from error
    names = (path.relative_to(directory).as_posix() for path in paths)
    return sorted(name for name in names if not name.startswith(_NOT_LINKED))


def loader_digest(directory: Path | None = None) -> Digest:
    """
    Return the digest of the loader's sources: the SHA-256 of the output of `sha256sum`, sorted by path.

    Raises: FileAccessError.
    """
    return _digest_files(directory or resource_path("loader"))


def _digest_files(directory: Path, start: str = "") -> Digest:
    lines = [
        f"{hashlib.sha256(read_bounded(directory / name, MAX_PART_BYTES)).hexdigest()}  {name}\n"
        for name in loader_files(directory)
        if name.startswith(start)
    ]
    return Digest(hashlib.sha256("".join(lines).encode()).hexdigest())


def libbpf_digest(directory: Path | None = None) -> Digest:
    """
    Return the digest of libbpf's sources in loader/vendor, made as `loader_digest` is.

    Raises: FileAccessError.
    """
    return _digest_files(directory or resource_path("loader"), f"{_LIBBPF}/")


def read_libbpf_version(directory: Path | None = None) -> str:
    """
    Return the version of the libbpf in loader/vendor, for example 1.7.0.

    Raises: FileAccessError.
    """
    path = (directory or resource_path("loader")) / _LIBBPF / "ORIGIN"
    text = read_bounded(path, MAX_PART_BYTES).decode(errors="replace")
    found = re.search(r"^# libbpf (\d+\.\d+\.\d+)\b", text)
    if found is None:
        raise FileAccessError(f"{path}: names no version", hint="install buildtool again")
    return found[1]


def read_list(data: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """
    Return the records in the list of directory *data*, by architecture and kind.

    Raises: FileAccessError, if the list is missing or damaged.
    """
    path = list_path(data)
    try:
        document = json.loads(read_bounded(path, _MAX_LIST_BYTES))
        entries: dict[str, dict[str, dict[str, Any]]] = document["platforms"]
        if document["version"] != LIST_VERSION:
            raise ValueError("version")
        records = [record for entry in entries.values() for record in entry.values()]
        if not all(isinstance(record, dict) for record in records):
            raise TypeError("record")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileAccessError(f"{path}: not a list of loaders", hint="run `make loaders` again") from error
    return entries


def _find(platform: Platform, kind: str, data: Path | None) -> Part:
    data = data or data_directory()
    if not list_path(data).exists() and data != data_directory():
        raise FileAccessError(f"{data}: no loaders/loaders.json in it", hint=_NAMED_HINT)
    if not list_path(data).exists():
        raise FileAccessError("this installation carries no loader for images", hint=_HINT)
    record = read_list(data).get(platform.arch, {}).get(kind)
    if record is None:
        raise FileAccessError(f"this installation carries no {kind} for {platform.arch}", hint=_HINT)
    path = part_path(data, kind, platform.arch)
    content = read_bounded(path, MAX_PART_BYTES)
    digest = Digest(hashlib.sha256(content).hexdigest())
    if digest != record.get("sha256"):
        raise FileAccessError(
            f"{path}: not the file that loaders.json lists",
            hint="install buildtool again; in a checkout, run `make loaders`",
        )
    return Part(path=path, data=content, sha256=digest, record=record)
