# SPDX-License-Identifier: Apache-2.0
"""
Names of interfaces, network namespaces and cgroups, for labels.

A name is looked up once in a reading. Without that, a reading of 10,000 series spends most of its time in
looking up interfaces, one by one. The kernel's names are bytes: U+FFFD is in place of what is not UTF-8.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import socket
import struct
import threading
from pathlib import Path

from buildtool.core.text import replace_bytes

_FILEID_KERNFS = 0xFE  # include/linux/exportfs.h
_HANDLE = struct.Struct("=IiQ")
_CGROUP_BYTES = 8
_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_MAX_CGROUPS = 100_000
_MAX_NAMESPACES = 1000


class Names:
    """Looks names up. `begin` starts a reading, after which names are looked up again."""

    def __init__(self) -> None:
        self._interfaces: dict[int, dict[int, str]] = {}
        self._places: dict[int, Path] | None = None
        self._namespaces: dict[int, str] | None = None
        self._own: int | None = None
        self._cgroups: dict[int, str] = {}
        self._hierarchy: tuple[int, str] | None = None

    def begin(self) -> None:
        """Forget what may have changed. The id of a cgroup always means the same directory."""
        self._interfaces = {}
        self._places = self._namespaces = self._own = None
        self._close_hierarchy()
        if len(self._cgroups) > _MAX_CGROUPS:
            self._cgroups.clear()

    def interface(self, index: int, namespace: int | None = None) -> str:
        """
        Return the name of interface *index*, or the number.

        *namespace* is the inode of the interface's network namespace, by default the own one.
        """
        own = self._own_namespace()
        inode = own if namespace is None else namespace
        if inode not in self._interfaces:
            if len(self._interfaces) >= _MAX_NAMESPACES:
                return str(index)
            self._interfaces[inode] = _list_interfaces() if inode == own else self._list_elsewhere(inode)
        return self._interfaces[inode].get(index) or str(index)

    def namespace(self, inode: int) -> str:
        """Return the name of the network namespace with *inode* below /run/netns, or the number."""
        if self._namespaces is None:
            self._namespaces = {}
            for path in _listed(_NAMESPACES):
                try:
                    self._namespaces.setdefault(path.stat().st_ino, replace_bytes(path.name))
                except OSError:
                    continue  # it has just gone
        return self._namespaces.get(inode) or str(inode)

    def cgroup(self, number: int) -> str:
        """Return the path of the cgroup with id *number* below the root of the hierarchy, or the number."""
        if number not in self._cgroups:
            path = self._find_cgroup(number)
            if path is None:
                return str(number)
            self._cgroups[number] = path
        return self._cgroups[number]

    def _list_elsewhere(self, inode: int) -> dict[int, str]:
        """Return the interfaces of another network namespace: a named one, or one of a process."""
        if self._places is None:
            self._places = {}
            for path in (*_listed(_NAMESPACES), *(each / "ns/net" for each in _listed(Path("/proc")))):
                try:
                    self._places.setdefault(path.stat().st_ino, path)
                except OSError:
                    continue  # no process, or one that has just ended
        place = self._places.get(inode)
        return {} if place is None else _list_inside(place, inode)

    def _own_namespace(self) -> int:
        if self._own is None:
            self._own = os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116 - a magic link, which exists
        return self._own

    def _find_cgroup(self, number: int) -> str | None:
        """Return the path of a cgroup by its file handle, which needs no walk through the hierarchy."""
        if self._hierarchy is None:
            self._hierarchy = _open_hierarchy()
        descriptor, mount = self._hierarchy
        if descriptor < 0:
            return None
        handle = ctypes.create_string_buffer(_HANDLE.pack(_CGROUP_BYTES, _FILEID_KERNFS, number))
        found = _library().open_by_handle_at(descriptor, handle, os.O_PATH | os.O_CLOEXEC)
        if found < 0:
            return None
        try:
            path = str(Path(f"/proc/self/fd/{found}").readlink())
        except OSError:
            return None
        finally:
            os.close(found)
        if path != mount and not path.startswith(f"{mount.rstrip('/')}/"):
            return None  # removed: the link ends in " (deleted)", or has another root
        return replace_bytes(path[len(mount.rstrip("/")) :]) or "/"

    def _close_hierarchy(self) -> None:
        if self._hierarchy is not None and self._hierarchy[0] >= 0:
            os.close(self._hierarchy[0])
        self._hierarchy = None


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _list_interfaces() -> dict[int, str]:
    try:
        return {index: replace_bytes(name) for index, name in socket.if_nameindex()}
    except OSError:
        return {}


def _list_inside(place: Path, inode: int) -> dict[int, str]:
    """Return the interfaces of the network namespace at *place*, which a thread of its own enters."""
    found: dict[int, str] = {}

    def look() -> None:
        try:
            with place.open("rb") as file:
                # The process of this number may be another one by now.
                if (
                    os.fstat(file.fileno()).st_ino == inode
                    and _library().setns(file.fileno(), _CLONE_NEWNET) == 0
                ):
                    found.update(_list_interfaces())
        except OSError:
            pass  # it has just gone

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _open_hierarchy() -> tuple[int, str]:
    """Return a descriptor of the cgroup v2 hierarchy and its mount point; -1 without one."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        words = before.split()
        if after.startswith("cgroup2 ") and words[3] == "/":
            mount = words[4].replace("\\040", " ")
            try:
                return os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), mount
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM):
                    raise
    return -1, ""
