# SPDX-License-Identifier: Apache-2.0
"""Bases and stand-ins for loader and tini, the input of the embedded engine, and readers of images."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from buildtool.core.platforms import PLATFORMS
from buildtool.image.metadata import OBJECTS_DIRECTORY
from buildtool.objects.capabilities import FILE_ATTRIBUTE, file_attribute
from buildtool.oci.read import StoredImage, open_layer, open_layout, read_images
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.tree import Tree, read_tree
from buildtool.oci.write import ImageSet, Layer, gzip_layer, make_image_set
from buildtool.runtime.carried import list_path, loader_digest, part_path


def directory(path: str, **more: int) -> TarEntry:
    """Return the entry of a directory in a layer."""
    return TarEntry(path=path, kind=tarfile.DIRTYPE, **{"mode": 0o755, "mtime": 1600000000, **more})


BASE = (
    directory("etc"),
    TarEntry(path="etc/passwd", data=b"root:x:0:0::/:\n", mtime=1600000000),
    TarEntry(path="sbin", kind=tarfile.SYMTYPE, target="usr/sbin", mode=0o777, mtime=1600000000),
    directory("usr"),
    directory("usr/bin"),
    directory("usr/sbin", mode=0o750, uid=3, gid=4),
)


def make_base(
    entries: Sequence[TarEntry] = BASE,
    architectures: Sequence[str] = ("amd64", "arm64"),
    entrypoint: Sequence[str] = (),
) -> ImageSet:
    """Return an image of one layer with *entries*."""
    return base_of_layers([gzip_layer(pack_tar(entries))], architectures, entrypoint)


def make_programs_image(
    objects: Mapping[str, bytes], architectures: Sequence[str] = ("amd64", "arm64"), *more: TarEntry
) -> ImageSet:
    """Return an image that has *objects* where the loader looks for them, and the entries *more*."""
    place = OBJECTS_DIRECTORY.strip("/")
    entries = [TarEntry(path=f"{place}/{name}", data=data) for name, data in objects.items()]
    return make_base([*BASE, *entries, *more], architectures)


def base_of_layers(
    layers: Sequence[Layer],
    architectures: Sequence[str] = ("amd64", "arm64"),
    entrypoint: Sequence[str] = (),
) -> ImageSet:
    """Return an image of *layers*."""
    config = {"Env": ["PATH=/usr/bin"], "Cmd": ["/bin/sh"], "Labels": {"org.example.base": "yes"}}
    settings = {
        "created": "2020-01-01T00:00:00Z",
        "config": config | ({"Entrypoint": list(entrypoint)} if entrypoint else {}),
        "history": [{"comment": "base"} for _ in layers],
    }
    return make_image_set([(PLATFORMS[arch], settings, layers) for arch in architectures])


def make_parts(root: Path, architectures: Sequence[str], *, base: bool = False) -> Path:
    """Write stand-ins for loader, tini and (with *base*) base layer into *root*, as `make loaders` would."""
    entries: dict[str, dict[str, dict[str, str]]] = {}
    for arch in architectures:
        entries[arch] = {}
        for kind in ("loader", "tini", *(("base",) if base else ())):
            path = part_path(root, kind, arch)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{kind} of {arch}\n".encode() * 1000)
            entries[arch][kind] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        entries[arch]["loader"]["source"] = loader_digest()
        if base:
            entries[arch]["base"]["diff_id"] = "0" * 64
    list_path(root).write_text(json.dumps({"version": 1, "platforms": entries}))
    return root


# An unusual base: links, modes and owners that affect the places of files, and a file in place of tini.
ODD_BASE = (
    directory("etc", mode=0o700, uid=8),
    TarEntry(path="etc/buildtool", kind=tarfile.SYMTYPE, target="../opt", mode=0o777),
    directory("opt", mode=0o711),
    TarEntry(path="opt/" + "n" * 150, data=b"a long name", mode=0o4755),
    TarEntry(path="opt/straße", data=b"not ASCII", uid=70000, gid=3),
    TarEntry(path="opt/able", data=b"able", xattrs={FILE_ATTRIBUTE: file_attribute(("NET_RAW",))}),
    TarEntry(path="opt/hard", kind=tarfile.LNKTYPE, target="opt/able"),
    TarEntry(path="sbin", kind=tarfile.SYMTYPE, target="/own/../own/sbin", mode=0o777),
    directory("own", mode=0o1777, gid=5),
    directory("own/sbin", mode=0o750, uid=3, gid=4, mtime=1900000000),
    TarEntry(path="own/sbin/tini", data=b"another", mode=0o600, mtime=1900000000),
    directory("usr", mode=0o751, uid=5),
    directory("usr/bin", mode=0o700, uid=6, gid=7),
    directory("usr/lib", mode=0o711),
    directory("usr/lib/buildtool", mode=0o700, uid=9),
    directory("usr/lib/buildtool/objects", mode=0o700, uid=9),
    TarEntry(path="usr/lib/buildtool/objects/two.bpf.o", data=b"old"),
)


ODD_SETTINGS = (
    'CMD ["/bin/sh"]',
    'ENTRYPOINT ["/bin/init"]',
    "ENV PATH=/own/bin MORE=a=b",
    "EXPOSE 80/tcp 53/udp",
    "HEALTHCHECK --interval=5s --start-period=7s CMD true",
    'LABEL org.example.base=yes org.opencontainers.image.title="another title"',
    "STOPSIGNAL SIGQUIT",
    "USER somebody",
    "VOLUME /data",
    "WORKDIR /opt",
)


def read_image(path: Path) -> dict[str, tuple[StoredImage, Tree]]:
    """Return the images of an OCI layout or archive by platform, with all files and their bytes."""
    with open_layout(path) as source:
        return {
            image.platform: (
                image,
                read_tree(
                    [open_layer(source, layer) for layer in image.layers],
                    keep=lambda _: True,
                ),
            )
            for image in read_images(source)
        }


def flat(tree: Tree) -> dict[str, Any]:
    """Return the compared facts of each file by path."""
    return {path: _facts(entry) for path, entry in tree.items()}


def _facts(entry: TarEntry) -> tuple[Any, ...]:
    content = hashlib.sha256(entry.data).hexdigest()
    owner = (entry.uid, entry.gid)
    return (entry.kind, entry.mode, owner, entry.mtime, entry.target, dict(entry.xattrs), entry.size, content)
