# SPDX-License-Identifier: Apache-2.0
"""
Read and write the state directory: the highest accepted version of each object.

Source: spec/trust-policy.md, "State". loader/run/versions.c reads and writes the same file under the
same lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildtool.core.errors import FileAccessError, system_reason
from buildtool.core.files import read_bounded
from buildtool.core.strictjson import (
    check_members,
    described,
    is_integer,
    is_object,
    is_object_name,
    is_project,
    parse_json_object,
    to_bytes,
)

STATE_NAME = "versions.json"
_OWNER_HINT = "the user that verifies must own the directory"
_NEW_NAME = ".versions.json.new"
MAX_STATE_BYTES = 1024 * 1024
_STATE = {
    "stateVersion": described("1", lambda value: type(value) is int and value == 1),
    "projects": is_object,
}


@dataclass(kw_only=True, slots=True)
class VersionState:
    """The state in an open, locked directory: *versions* by project and object name."""

    path: Path
    descriptor: int
    versions: dict[str, dict[str, int]] = field(default_factory=dict)
    grew: bool = False

    def version(self, project: str, name: str) -> int:
        """Return the highest accepted version of object *name* in *project*, or 0."""
        return self.versions.get(project, {}).get(name, 0)

    def raise_version(self, project: str, name: str, version: int) -> None:
        """Store *version* in memory, if it is higher than the present one."""
        objects = self.versions.setdefault(project, {})
        if name not in objects or version > objects[name]:
            objects[name] = version
            self.grew = True

    def save(self) -> None:
        """
        Write changed versions. After a crash, the directory holds the old file or the new one.

        Raises: FileAccessError.
        """
        if not self.grew:
            return
        data = to_bytes({"stateVersion": 1, "projects": self.versions})
        if len(data) > MAX_STATE_BYTES:
            raise FileAccessError(
                f"{self.path / STATE_NAME}: would be larger than {MAX_STATE_BYTES} bytes",
                hint="give each project a state directory of its own by --state",
            )
        try:
            self._replace(data)
        except OSError as error:
            hint = "mount the directory for writing" if error.errno == errno.EROFS else _OWNER_HINT
            raise FileAccessError(
                f"{self.path / STATE_NAME}: cannot write: {system_reason(error)}", hint=hint
            ) from error
        self.grew = False

    def _replace(self, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        # Remove the file of a killed process, or a planted FIFO or hard link.
        with suppress(OSError):
            os.unlink(_NEW_NAME, dir_fd=self.descriptor)
        try:
            with os.fdopen(os.open(_NEW_NAME, flags, 0o644, dir_fd=self.descriptor), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(_NEW_NAME, STATE_NAME, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(_NEW_NAME, dir_fd=self.descriptor)
            raise
        os.fsync(self.descriptor)


@contextmanager
def open_state(path: Path) -> Iterator[VersionState]:
    """
    Yield the state in directory *path*, locked until the end of the block. Wait for other processes.

    Raises: FileAccessError, if the directory or its file is missing, unreadable or damaged.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FileAccessError(
            f"state {path}: {system_reason(error)}",
            hint=f"mkdir -p {path}; {_OWNER_HINT}",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise FileAccessError(f"state {path}: cannot lock: {system_reason(error)}") from error
        yield VersionState(path=path, descriptor=descriptor, versions=_read(path, descriptor))
    finally:
        os.close(descriptor)


def _read(directory: Path, descriptor: int) -> dict[str, dict[str, int]]:
    # Read from the locked directory's descriptor, because its name may now belong to another directory.
    path = directory / STATE_NAME
    try:
        os.stat(STATE_NAME, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise FileAccessError(f"{path}: cannot read: {system_reason(error)}") from error
    data = read_bounded(path, MAX_STATE_BYTES, directory=descriptor)
    try:
        if len(data) > MAX_STATE_BYTES:
            raise ValueError(f"larger than {MAX_STATE_BYTES} bytes")
        projects = check_members(parse_json_object(data), "state", _STATE)["projects"]
        return {project: _read_project(project, objects) for project, objects in projects.items()}
    except ValueError as error:
        raise FileAccessError(
            f"{path}: {error}", hint="restore the file: without it older versions would be accepted again"
        ) from error


def _read_project(project: str, objects: Any) -> dict[str, int]:
    if not is_project(project) or not isinstance(objects, dict):
        raise ValueError(f"{project[:80]!r} is not a project with its objects")
    if not all(is_object_name(name) and is_integer(version) for name, version in objects.items()):
        raise ValueError(f"project {project}: not names of objects and versions")
    return objects
