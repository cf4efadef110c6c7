# SPDX-License-Identifier: Apache-2.0
"""Write a Dockerfile and its archive into one folder, which is a complete build context."""

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
    Check that a Dockerfile can be written into *directory*. *force* allows replacing one.

    Raises: UsageError, if *directory* is a file or has the name of a Dockerfile; FileAccessError.
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
    Write both files of *dockerfile* into *directory*, or none, and return both paths.

    A missing directory is created.

    *force* replaces files. The archive of a replaced Dockerfile is removed.

    Raises: FileAccessError.
    """
    archive = dockerfile.archive
    if archive is None:
        raise ValueError("a Dockerfile of one file has no folder")
    text_path, archive_path = directory / DOCKERFILE, directory / archive.name
    old = _find_old_archives(text_path)
    # The Dockerfile is renamed last, so it never refers to a missing archive.
    with (
        made_directories([directory]),
        staged_files([archive_path, text_path], replace=force, hint=FORCE_REPLACES) as stage,
    ):
        stage.write(text_path, dockerfile.text.encode())
        stage.write(archive_path, archive.data)
    for name in old - {archive.name}:
        # An archive that stays is harmless, because no Dockerfile refers to it.
        with suppress(OSError):
            (directory / name).unlink()
    return text_path, archive_path


def _find_old_archives(path: Path) -> set[str]:
    """Return the names of the archives that the Dockerfile at *path* copies, or none without a file."""
    try:
        text = read_bounded(path, MAX_DOCKERFILE_BYTES).decode("utf-8", "replace")
    except FileAccessError:
        return set()
    return set(_OWN_ARCHIVE.findall(text))
