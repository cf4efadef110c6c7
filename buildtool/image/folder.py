# SPDX-License-Identifier: Apache-2.0
"""Writes a Dockerfile and its archive into one folder, which is then a whole build context."""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from pathlib import Path

from buildtool.core.errors import FileAccessError, UsageError, system_reason
from buildtool.core.files import (
    FORCE_REPLACES,
    check_makeable,
    check_target,
    made_directories,
    read_bounded,
    staged_files,
)
from buildtool.image.dockerfile import Dockerfile

DOCKERFILE = "Dockerfile"
MAX_DOCKERFILE_BYTES = 16 * 1024 * 1024
_LOOKS_LIKE_A_FILE = re.compile(r"dockerfile(\..*)?|.*\.dockerfile", re.IGNORECASE)
_OWN_ARCHIVE = re.compile(r"^COPY (buildtool-sources-[0-9a-f]{12}\.tar) /$", re.MULTILINE)


def check_folder(directory: Path, *, force: bool) -> None:
    """
    Check that a Dockerfile may go into *directory*, before anything is read; *force* replaces one.

    Raises: UsageError, when *directory* is a file, or a name that people give to files; FileAccessError.
    """
    try:
        is_file = not stat.S_ISDIR(directory.stat().st_mode)
    except FileNotFoundError:
        is_file = _LOOKS_LIKE_A_FILE.fullmatch(directory.name) is not None
    except OSError as error:
        raise FileAccessError(f"{directory}: cannot write: {system_reason(error)}") from error
    if is_file:
        raise UsageError(
            f"{directory}: not a directory",
            hint=f"--output . writes a folder, --inline --output {directory} writes one file",
        )
    check_target(directory / DOCKERFILE, replace=force, hint=FORCE_REPLACES)
    check_makeable(directory)


def write_folder(directory: Path, dockerfile: Dockerfile, *, force: bool) -> tuple[Path, ...]:
    """
    Write both files of *dockerfile* into *directory*, which is made if it is missing, or none; return them.

    *force* replaces files; the archive that only the replaced Dockerfile named is removed.

    Raises: FileAccessError.
    """
    archive = dockerfile.archive
    if archive is None:
        raise ValueError("a Dockerfile of one file has no folder")
    text_path, archive_path = directory / DOCKERFILE, directory / archive.name
    old = _find_old_archives(text_path)
    # The Dockerfile gets its name last, so it never names an archive that is not there.
    with (
        made_directories([directory]),
        staged_files([archive_path, text_path], replace=force, hint=FORCE_REPLACES) as stage,
    ):
        stage.write(text_path, dockerfile.text.encode())
        stage.write(archive_path, archive.data)
    for name in old - {archive.name}:
        # A leftover is harmless: nothing names it any more.
        with suppress(OSError):
            (directory / name).unlink()
    return text_path, archive_path


def _find_old_archives(path: Path) -> set[str]:
    """Return the names of archives that the Dockerfile at *path* copies, if there is one."""
    try:
        text = read_bounded(path, MAX_DOCKERFILE_BYTES).decode("utf-8", "replace")
    except FileAccessError:
        return set()
    return set(_OWN_ARCHIVE.findall(text))
