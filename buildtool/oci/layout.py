# SPDX-License-Identifier: Apache-2.0
"""
Writes OCI image archives: layers, configurations, manifests, one index per reference.

Only what `docker load` and BuildKit read is written. Same input, same bytes:
blobs are sorted, times are the caller's, JSON has one spelling.

Sources: OCI image specification v1.1 (image-layout, image-index, manifest, config).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from buildtool.core.digests import Digest
from buildtool.core.errors import FileAccessError
from buildtool.core.platforms import Platform

MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
# containerd names a loaded image after this annotation; the OCI ref.name alone would be a bare tag.
NAME_ANNOTATION = "io.containerd.image.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer: bytes in *data* or in file *path*, their *digest* and *size*, *diff_id* of the plain tar."""

    media_type: str
    digest: Digest
    diff_id: Digest
    size: int
    data: bytes | None = None
    path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """One platform's image: *layers*, bottom first, runtime *config* (Env, Cmd) and a *comment* on it."""

    platform: Platform
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    created: int
    comment: str = ""


@dataclass(slots=True)
class _Blobs:
    """Everything the archive will hold, by digest."""

    small: dict[Digest, bytes] = field(default_factory=dict)
    files: dict[Digest, Path] = field(default_factory=dict)

    def add_json(self, value: object, media_type: str) -> dict[str, Any]:
        data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        digest = Digest(hashlib.sha256(data).hexdigest())
        self.small[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def add_layer(self, layer: Layer) -> dict[str, Any]:
        if layer.data is not None:
            self.small[layer.digest] = layer.data
        elif layer.path is not None:
            self.files[layer.digest] = layer.path
        return {"mediaType": layer.media_type, "digest": f"sha256:{layer.digest}", "size": layer.size}


def file_layer(path: Path) -> Layer:
    """
    Describe the plain tar *path* as a layer; it stays uncompressed.

    Raises: FileAccessError.
    """
    try:
        with path.open("rb") as file:
            digest = Digest(hashlib.file_digest(file, "sha256").hexdigest())
        size = path.stat().st_size
    except OSError as error:
        raise FileAccessError(f"{path}: cannot read: {error.strerror}") from error
    return Layer(media_type=MEDIA_LAYER, digest=digest, diff_id=digest, size=size, path=path)


def gzip_layer(tar: bytes, level: int = 9) -> Layer:
    """Compress *tar* to a layer with no time and no name in its header."""
    buffer = io.BytesIO()
    # Not gzip.compress: its header depends on the version of Python.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=buffer, mtime=0) as file:
        file.write(tar)
    data = buffer.getvalue()
    return Layer(
        media_type=f"{MEDIA_LAYER}+gzip",
        digest=Digest(hashlib.sha256(data).hexdigest()),
        diff_id=Digest(hashlib.sha256(tar).hexdigest()),
        size=len(data),
        data=data,
    )


def write_archive(path: Path, images: Mapping[str, Sequence[PlatformImage]]) -> dict[str, Digest]:
    """
    Write an OCI archive of *images* (reference: its platforms) to *path*.

    Returns each reference's index digest.

    Raises: FileAccessError.
    """
    blobs = _Blobs()
    manifests = []
    digests = {}
    for reference, platforms in sorted(images.items()):
        index = {
            "schemaVersion": 2,
            "mediaType": MEDIA_INDEX,
            "manifests": [_add_image(blobs, image) for image in platforms],
        }
        descriptor = blobs.add_json(index, MEDIA_INDEX)
        digests[reference] = Digest(descriptor["digest"].removeprefix("sha256:"))
        manifests.append({**descriptor, "annotations": {NAME_ANNOTATION: reference}})
    top = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": manifests}
    try:
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            _write_members(archive, blobs, json.dumps(top, sort_keys=True).encode())
    except OSError as error:
        raise FileAccessError(f"{path}: cannot write: {error.strerror}") from error
    return digests


def _add_image(blobs: _Blobs, image: PlatformImage) -> dict[str, Any]:
    platform: dict[str, Any] = {"architecture": image.platform.arch, "os": "linux"}
    if image.platform.variant:
        platform["variant"] = image.platform.variant
    created = datetime.fromtimestamp(image.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = {
        **platform,
        "created": created,
        "history": [{"created": created, "comment": image.comment} for _ in image.layers],
        "config": dict(image.config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in image.layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": blobs.add_json(config, MEDIA_CONFIG),
        "layers": [blobs.add_layer(layer) for layer in image.layers],
    }
    return {**blobs.add_json(manifest, MEDIA_MANIFEST), "platform": platform}


def _write_members(archive: tarfile.TarFile, blobs: _Blobs, index: bytes) -> None:
    _add_bytes(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    _add_bytes(archive, "index.json", index)
    for digest, data in sorted(blobs.small.items()):
        _add_bytes(archive, f"blobs/sha256/{digest}", data)
    for digest, path in sorted(blobs.files.items()):
        member = tarfile.TarInfo(f"blobs/sha256/{digest}")
        member.size = path.stat().st_size
        with path.open("rb") as file:
            archive.addfile(member, file)


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
