# SPDX-License-Identifier: Apache-2.0
"""
Provide loader, tini and base layer of an image: those of the installation, or linked now.

A wheel of a release carries these parts. In an installation from a checkout, the first build links
them from Debian's static libraries, which are unpacked without root. The result is kept in this
user's cache. Parts of other sources, or of another package lock, are removed a day after their
last use.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from buildtool.core.cache import DIRECTORY_VARIABLE, open_cache
from buildtool.core.errors import ConfigError, FileAccessError, ToolMissingError, system_reason
from buildtool.core.files import hold_lock
from buildtool.core.platforms import Platform
from buildtool.core.process import Runner
from buildtool.runtime.carried import (
    data_directory,
    find_base,
    find_loader,
    find_tini,
    list_path,
    loader_digest,
    named_directory,
)
from buildtool.runtime.link import PartsRequest, Report, check_tools, make_parts
from buildtool.runtime.packagelock import read_lock

log = logging.getLogger(__name__)

LOCK_NAME = "parts.lock"  # beside the directories of parts
KEPT_SECONDS = 24 * 3600
_PREFIX = "parts-"


def provide_parts(
    platforms: Sequence[Platform], environ: Mapping[str, str], *, report: Report, runner: Runner
) -> Path:
    """
    Return a directory with the parts for *platforms*. *report* receives a line if they are linked now.

    The directory in BUILDTOOL_LOADERS is returned unchecked.

    Raises: FileAccessError or ToolMissingError, whose hint names a command; ConfigError, for a damaged
    package lock; errors of `make_parts` for a platform.
    """
    named = named_directory(environ)
    if named is not None or _has_parts(data_directory(), platforms):
        return named or data_directory()
    data = _linked_directory(environ)
    if data is None:
        raise _no_place(environ)
    if not _has_parts(data, platforms):
        # Without the lock, two first builds would each write a list that lacks the parts of the other.
        with hold_lock(data.parent / LOCK_NAME):
            if not _has_parts(data, platforms):
                _link_parts(platforms, data, report, runner)
    _remove_unused(data)
    return data


def check_linkable(environ: Mapping[str, str], runner: Runner) -> str:
    """
    Return the compiler that `provide_parts` would use, after checking this machine. Nothing is fetched.

    Raises: FileAccessError, ToolMissingError, ToolFailedError, ConfigError.
    """
    if _linked_directory(environ) is None:
        raise _no_place(environ)
    return check_tools(runner)


def find_parts(environ: Mapping[str, str]) -> Path:
    """
    Return the directory of parts that a build would use. Nothing is linked.

    Raises: FileAccessError; ConfigError, for a damaged package lock.
    """
    named = named_directory(environ)
    if named is not None or list_path(data_directory()).exists():
        return named or data_directory()
    linked = _linked_directory(environ)
    return linked if linked is not None and list_path(linked).exists() else data_directory()


def _no_place(environ: Mapping[str, str]) -> FileAccessError:
    place = environ.get(DIRECTORY_VARIABLE)
    why = f"{DIRECTORY_VARIABLE}: {place} cannot be used" if place else "this user has no cache directory"
    return FileAccessError(
        f"loader for images: no place to keep it: {why}",
        hint="set BUILDTOOL_CACHE to a directory that only this user may write to",
    )


def _linked_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the directory of parts of these sources and this package lock, or None without a cache."""
    cache = open_cache(environ).directory
    if cache is None:
        return None
    return cache.parent / f"{_PREFIX}{loader_digest()[:16]}-{read_lock().digest()[:16]}"


def _has_parts(data: Path, platforms: Sequence[Platform]) -> bool:
    try:
        for platform in platforms:
            for find in (find_loader, find_tini, find_base):
                find(platform, data)
    except FileAccessError:
        return False
    return True


def _remove_unused(data: Path) -> None:
    """Mark directory *data* as used, and remove directories beside it that were unused for a day."""
    # Another installation of this user may build with other sources now, so its parts stay for a day.
    try:
        os.utime(data)
        for other in data.parent.glob(f"{_PREFIX}*"):
            if other != data and time.time() - other.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(other)
    except OSError as error:
        log.debug("parts: %s", error)


def _link_parts(platforms: Sequence[Platform], data: Path, report: Report, runner: Runner) -> None:
    """Link the parts into *data*, and remove the packages afterwards."""
    report("this installation carries no loader: link one from Debian's static libraries, once")
    try:
        with tempfile.TemporaryDirectory(prefix="packages-", dir=data.parent) as packages:
            request = PartsRequest(platforms=tuple(platforms), data=data, cache=Path(packages), report=report)
            made = make_parts(request, runner=runner)
    except ToolMissingError as error:
        message = f"loader for images: cannot link it: {error.message}"
        raise ToolMissingError(message, hint=error.hint) from error
    except ConfigError as error:
        raise FileAccessError(
            f"loader for images: cannot link it: {error.message}",
            hint="install a release, whose wheel carries loaders, or build with --engine docker",
        ) from error
    except OSError as error:
        raise FileAccessError(f"{data.parent}: cannot write: {system_reason(error)}") from error
    for failure in made.failed.values():
        raise failure
