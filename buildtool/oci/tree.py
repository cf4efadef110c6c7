# SPDX-License-Identifier: Apache-2.0
"""
Read layers into the tree of files in a container, without unpacking them.

Paths that leave the root, hard links to missing files, and devices are refused, because other
tools unpack the same layers.

Source: OCI image layer specification v1.1 (whiteouts).
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import IO

from buildtool.core.errors import ObjectFormatError
from buildtool.oci.tarreader import TAR_ERRORS, describe_tar_error, read_data, read_layer
from buildtool.oci.tarwriter import TarEntry

Tree = dict[str, TarEntry]

MAX_MEMBERS = 500_000
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_KEPT_BYTES = 256 * 1024 * 1024  # of all files whose data a caller wants
MAX_LINKS = 40  # MAXSYMLINKS of Linux
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_KINDS = (*_PLAIN, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)


def read_tree(layers: Iterable[IO[bytes]], *, keep: Callable[[str], bool] = lambda _: False) -> Tree:
    """
    Return, by path, the files of an image with *layers* (tar, perhaps with gzip) from the bottom.

    The result holds the data of those files for whose path *keep* returns True.

    Raises: ObjectFormatError.
    """
    tree: Tree = {}
    parents: set[str] = set()
    budget = [MAX_KEPT_BYTES]
    for layer in layers:
        try:
            _apply(tree, parents, layer, keep, budget)
        except TAR_ERRORS as error:
            raise ObjectFormatError(f"a layer cannot be read: {describe_tar_error(error)}") from error
    return tree


def _apply(
    tree: Tree, parents: set[str], layer: IO[bytes], keep: Callable[[str], bool], budget: list[int]
) -> None:
    """
    Apply *layer* to *tree*. A whiteout removes files of lower layers, and none of its own layer.

    *parents* are all directories above a path that was in the tree, also those without an entry. *budget* is
    how many bytes may still be kept.
    """
    added: set[str] = set()
    for number, (member, archive) in enumerate(read_layer(layer)):
        if number >= MAX_MEMBERS:
            raise ObjectFormatError(f"a layer has more than {MAX_MEMBERS} members")
        path = _place(tree, _check_path(member.name))
        name = PurePosixPath(path).name
        if name.startswith(_WHITEOUT):
            _remove(tree, path, name, added)
        elif path:
            if path in parents and member.type != tarfile.DIRTYPE:
                _remove_below(tree, path, set())
            tree[path] = _read_entry(tree, path, member, archive, keep)
            added.add(path)
            above = path.rpartition("/")[0]
            while above and above not in parents:
                parents.add(above)
                above = above.rpartition("/")[0]
            budget[0] -= len(tree[path].data)
            if budget[0] < 0:
                raise ObjectFormatError(f"files of more than {MAX_KEPT_BYTES} bytes to look at")


def _place(tree: Tree, path: str) -> str:
    """Return where an engine unpacks *path*: links in place of the directories above it are followed."""
    above, _, name = path.rpartition("/")
    return "/".join(filter(None, (resolve_path(tree, above), name)))


def _read_entry(
    tree: Tree, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile, keep: Callable[[str], bool]
) -> TarEntry:
    if member.type not in _KINDS:
        kind = "device" if member.isdev() else f"member of kind {member.type!r}"
        raise ObjectFormatError(f"/{path}: unsupported file type: {kind}")
    if member.type == tarfile.LNKTYPE:
        linked = tree.get(_check_path(member.linkname))
        if linked is None or linked.is_directory:
            raise ObjectFormatError(
                f"/{path}: a hard link to {member.linkname!r}, which is no file before it"
            )
        return replace(linked, path=path)
    data = b""
    if member.type in _PLAIN and keep(path):
        if member.size > MAX_FILE_BYTES:
            raise ObjectFormatError(f"/{path}: larger than {MAX_FILE_BYTES} bytes")
        data = read_data(archive, member)
    return TarEntry(
        path=path,
        kind=tarfile.REGTYPE if member.type in _PLAIN else member.type,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
        data=data,
        target=member.linkname if member.issym() else "",
        size=member.size if member.type in _PLAIN else 0,
        xattrs={
            key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
            for key, value in member.pax_headers.items()
            if key.startswith(_XATTR)
        },
    )


def _check_path(name: str) -> str:
    """
    Return *name* without "." parts and outer slashes, or empty text for the root.

    Raises: ObjectFormatError, if *name* leaves the root.
    """
    if name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise ObjectFormatError(f"{name!r}: the path leads out of the image")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _remove(tree: Tree, path: str, name: str, added: set[str]) -> None:
    directory = path.rpartition("/")[0]
    if name == _OPAQUE:
        _remove_below(tree, directory, added)
        return
    hidden = "/".join(filter(None, (directory, name.removeprefix(_WHITEOUT))))
    if hidden not in added:
        tree.pop(hidden, None)
    _remove_below(tree, hidden, added)


def _remove_below(tree: Tree, directory: str, added: set[str]) -> None:
    prefix = f"{directory}/" if directory else ""
    for path in [path for path in tree if path.startswith(prefix) and path not in added]:
        del tree[path]


def resolve_path(tree: Tree, path: str) -> str:
    """
    Return *path* in *tree* with symbolic links resolved as in a container: no link leaves the root.

    Raises: ObjectFormatError, for a loop of links.
    """
    done: list[str] = []
    waiting = [part for part in reversed(path.split("/")) if part]
    links = 0
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        entry = tree.get("/".join((*done, part)))
        if entry is None or not entry.target:
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise ObjectFormatError(f"/{path}: loop of symbolic links")
        if entry.target.startswith("/"):
            done = []
        waiting += [step for step in reversed(entry.target.split("/")) if step]
    return "/".join(done)
