# SPDX-License-Identifier: Apache-2.0
"""
Make layers, manifests and indexes of images, and write them as an OCI layout: a directory or an archive.

The same input gives the same bytes: one encoding of JSON, blobs sorted by digest, times from the caller.

Sources: OCI image specification v1.1 (image-layout, image-index, manifest, config).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from buildtool.core.digests import Digest
from buildtool.core.errors import FileAccessError, system_reason
from buildtool.core.files import FORCE_REPLACES, cannot_write, check_target, hidden_prefix
from buildtool.core.platforms import Platform
from buildtool.core.validate import names_registry
from buildtool.oci.tarwriter import BLOCK_BYTES, TarEntry, end_of_archive, entry_header

MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
# containerd names a loaded image by this annotation. OCI's ref.name holds the tag only.
NAME_ANNOTATION = "io.containerd.image.name"
TAG_ANNOTATION = "org.opencontainers.image.ref.name"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
CHUNK_BYTES = 1024 * 1024
_DIRECTORY_MODE = 0o755
# All paths of a layout: the specification's, and those that BuildKit and `docker save` add.
_LAYOUT_PART = re.compile(
    r"oci-layout|index\.json(\.lock)?|manifest\.json|repositories|ingest|blobs(/[a-z0-9]+(/[0-9a-f]+)?)?"
)
_DEFAULT_REGISTRY = "docker.io"  # engines add it to a name without a registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """
    A layer: its bytes in *data* or in file *path*, with their *digest* and *size*.

    *diff_id* is the digest of the uncompressed tar.
    """

    media_type: str
    digest: Digest
    diff_id: Digest
    size: int
    data: bytes | None = None
    path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A JSON document of an image: *media_type* and *data*."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> Digest:
        """The SHA-256 of the data."""
        return Digest(hashlib.sha256(self.data).hexdigest())

    @property
    def descriptor(self) -> dict[str, Any]:
        """The descriptor by which another document refers to this one."""
        return {"mediaType": self.media_type, "digest": f"sha256:{self.digest}", "size": len(self.data)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """
    Images that are written together. *top* is the index, or the manifest of a single platform.

    *manifests* has one entry for each platform, *configs* their configurations, and *layers* all
    of their layers, each once. In a layout, the descriptor of *top* has *annotations*. *tagged_whole*: the
    tag in a layout is the whole reference.
    """

    top: Document
    manifests: tuple[Document, ...]
    configs: tuple[Document, ...]
    layers: tuple[Layer, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    tagged_whole: bool = False

    def blobs(self) -> dict[Digest, Layer | bytes]:
        """Return all layers and documents by digest."""
        found: dict[Digest, Layer | bytes] = {layer.digest: layer for layer in self.layers}
        documents = (*self.configs, *self.manifests, self.top)
        return found | {document.digest: document.data for document in documents}


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPart:
    """
    The image of one *platform* in an index: *config* and *layers*, of any media types.

    *artifact_type* and *annotations* are those of the manifest. The configuration's descriptor and the
    entry in the index have the annotations, too.
    """

    platform: Platform
    config: Document
    layers: tuple[Layer, ...]
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


def file_layer(path: Path) -> Layer:
    """
    Return the layer of the uncompressed tar file *path*.

    Raises: FileAccessError.
    """
    try:
        with path.open("rb") as file:
            digest = Digest(hashlib.file_digest(file, "sha256").hexdigest())
        size = path.stat().st_size
    except OSError as error:
        raise FileAccessError(f"{path}: cannot read: {system_reason(error)}") from error
    return Layer(media_type=MEDIA_LAYER, digest=digest, diff_id=digest, size=size, path=path)


def gzip_file_layer(layer: Layer, path: Path, level: int) -> Layer:
    """
    Return *layer*, an uncompressed tar file, compressed into file *path*.

    Raises: FileAccessError.
    """
    try:
        # The header has neither time nor name, so the same tar gives the same bytes.
        with (
            path.open("wb") as file,
            gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=file, mtime=0) as packed,
        ):
            for chunk in _layer_chunks(layer):
                packed.write(chunk)
    except OSError as error:
        raise cannot_write(path, error) from error
    return replace(file_layer(path), media_type=f"{layer.media_type}+gzip", diff_id=layer.diff_id)


def blob_layer(data: bytes, media_type: str) -> Layer:
    """Return *data* as it is, as a layer of *media_type*."""
    digest = Digest(hashlib.sha256(data).hexdigest())
    return Layer(media_type=media_type, digest=digest, diff_id=digest, size=len(data), data=data)


def gzip_layer(tar: bytes, level: int = 9) -> Layer:
    """Return *tar* compressed as a layer, with neither time nor name in the gzip header."""
    buffer = io.BytesIO()
    # The header of gzip.compress depends on the version of Python.
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


def make_image_set(images: Sequence[tuple[Platform, Mapping[str, Any], Sequence[Layer]]]) -> ImageSet:
    """Return the set of *images*, given as platform, configuration without rootfs, layers from the bottom."""
    configs, manifests, entries = [], [], []
    layers: dict[Digest, Layer] = {}
    for platform, settings, own in images:
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in own]}
        about = _platform_fields(platform)
        config = encode_document(MEDIA_CONFIG, {**settings, **about, "rootfs": rootfs})
        content = {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": config.descriptor,
            "layers": [_layer_descriptor(layer) for layer in own],
        }
        manifest = encode_document(MEDIA_MANIFEST, content)
        configs.append(config)
        manifests.append(manifest)
        entries.append({**manifest.descriptor, "platform": about})
        layers |= {layer.digest: layer for layer in own}
    index = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries}
    top = manifests[0] if len(manifests) == 1 else encode_document(MEDIA_INDEX, index)
    return ImageSet(
        top=top, manifests=tuple(manifests), configs=tuple(configs), layers=tuple(layers.values())
    )


def make_index(parts: Sequence[IndexPart], *, tagged_whole: bool = False) -> ImageSet:
    """
    Return the set of *parts* with an index, also for a single one.

    The index has the annotations of the first part. Its entries name no variant of an architecture.
    """
    manifests, entries = [], []
    layers: dict[Digest, Layer] = {}
    for part in parts:
        about = {"annotations": dict(part.annotations)} if part.annotations else {}
        content = {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": {**part.config.descriptor, **about},
            "layers": [_layer_descriptor(layer) for layer in part.layers],
            **({"artifactType": part.artifact_type} if part.artifact_type else {}),
            **about,
        }
        manifest = encode_document(MEDIA_MANIFEST, content)
        manifests.append(manifest)
        platform = {"architecture": part.platform.arch, "os": "linux"}
        entries.append({**manifest.descriptor, "platform": platform, **about})
        layers |= {layer.digest: layer for layer in part.layers}
    common = {"annotations": dict(parts[0].annotations)} if parts[0].annotations else {}
    index = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries, **common}
    return ImageSet(
        top=encode_document(MEDIA_INDEX, index),
        manifests=tuple(manifests),
        configs=tuple(part.config for part in parts),
        layers=tuple(layers.values()),
        tagged_whole=tagged_whole,
    )


def full_name(reference: str) -> str:
    """Return *reference* with the registry and the tag that engines add if they are missing."""
    if not names_registry(reference):
        path = reference if "/" in reference else f"library/{reference}"
        reference = f"{_DEFAULT_REGISTRY}/{path}"
    return reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"


def write_archive(path: Path, images: ImageSet, *references: str, replace: bool = False) -> None:
    """
    Write *images* as tar file *path* with the image names *references*. A failure leaves nothing behind.

    Raises: FileAccessError.
    """
    check_target(path, replace=replace, hint=FORCE_REPLACES)
    with _finished_file(path) as file:
        for name, data in _members(images, references):
            if data is None:
                file.write(entry_header(TarEntry(path=name, kind=b"5", mode=_DIRECTORY_MODE), 0))
                continue
            size = data.size if isinstance(data, Layer) else len(data)
            file.write(entry_header(TarEntry(path=name), size))
            _copy(data, file)
            file.write(bytes(-size % BLOCK_BYTES))
        file.write(end_of_archive())


def write_directory(path: Path, images: ImageSet, *references: str, replace: bool = False) -> None:
    """
    Write *images* as directory *path* with the image names *references*. A failure leaves nothing behind.

    With *replace*, an existing OCI layout is replaced. Another directory is never replaced.

    Raises: FileAccessError.
    """
    check_layout(path, replace=replace)
    work = ""
    try:
        work = tempfile.mkdtemp(prefix=hidden_prefix(path), dir=path.absolute().parent)
        new, old = Path(work, "new"), Path(work, "old")
        new.mkdir(_DIRECTORY_MODE)
        for name, data in _members(images, references):
            if data is None:
                (new / name).mkdir(_DIRECTORY_MODE)
                continue
            with (new / name).open("wb") as file:
                _copy(data, file)
        put_layout(new, path, old)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if work:
            shutil.rmtree(work, ignore_errors=True)


def check_layout(path: Path, *, replace: bool) -> None:
    """
    Check that *path* can become a layout: it is missing, an empty directory, or a layout to *replace*.

    A layout with a foreign file is not replaced, because the file would be deleted.

    Raises: FileAccessError.
    """
    try:
        is_empty = not any(path.iterdir())
        # rename(2) would replace a symbolic link, not its target.
        is_layout = not path.is_symlink() and (is_empty or (path / "oci-layout").is_file())
        foreign = _find_foreign(path) if is_layout and replace else ""
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_write(path, error) from error
    if not is_layout:
        raise FileAccessError(f"{path}: not an OCI layout, so it is not replaced", hint="choose another name")
    if not is_empty and not replace:
        raise FileAccessError(f"{path}: already exists", hint=FORCE_REPLACES)
    if foreign:
        raise _holds_foreign(path, foreign)


def _find_foreign(path: Path) -> str:
    """Return the path, below directory *path*, of a file that is not part of a layout, or ""."""
    names = sorted(found.relative_to(path).as_posix() for found in path.rglob("*"))
    return next((name for name in names if not _LAYOUT_PART.fullmatch(name)), "")


def _holds_foreign(path: Path, name: str) -> FileAccessError:
    return FileAccessError(
        f"{path}: not replaced: {name} is not part of an OCI layout",
        hint="move the file out of the directory, or choose another name",
    )


def put_layout(new: Path, path: Path, old: Path) -> None:
    """
    Rename *new*, a directory or a file, to *path*.

    An existing *path* is renamed to *old*, and restored after a failure.

    Raises: OSError; FileAccessError, if a foreign file was added since the check.
    """
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    try:
        if foreign := _find_foreign(old):
            raise _holds_foreign(path, foreign)
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise


def put_all(places: Mapping[Path, Path], work: Path) -> None:
    """
    Rename each file or layout in the keys of *places* to its value. If one rename fails, restore all.

    What was there moves into directory *work*, which is on the same file system.

    Raises: FileAccessError, also if a foreign file was added to a layout since the check.
    """
    done: list[tuple[Path, Path | None]] = []
    path = Path()
    try:
        for number, (new, path) in enumerate(places.items()):
            old = work / f"old-{number}"
            put_layout(new, path, old)
            done.append((path, old if old.exists() else None))
    except BaseException as error:
        for number, (there, before) in enumerate(reversed(done)):
            there.rename(work / f"new-{number}")
            if before is not None:
                before.rename(there)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def _members(images: ImageSet, references: Sequence[str]) -> Iterator[tuple[str, Layer | bytes | None]]:
    """Yield name and contents of each file of a layout. The contents of a directory are None."""
    entries = [
        {
            **images.top.descriptor,
            "annotations": {**images.annotations, **_name_annotations(reference, whole=images.tagged_whole)},
        }
        for reference in references
    ]
    top = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries}
    yield from (("blobs", None), ("blobs/sha256", None))
    for digest, data in sorted(images.blobs().items()):
        yield f"blobs/sha256/{digest}", data
    yield "index.json", encode_document(MEDIA_INDEX, top).data
    yield "oci-layout", LAYOUT_FILE


def _name_annotations(reference: str, *, whole: bool) -> dict[str, str]:
    name = full_name(reference)
    tag = name if whole else name.rpartition(":")[2]
    return {NAME_ANNOTATION: name, TAG_ANNOTATION: tag} if reference else {}


def _copy(data: Layer | bytes, file: IO[bytes]) -> None:
    """Write *data* to *file*. A layer in a file is copied in chunks, because it may have gigabytes."""
    if isinstance(data, bytes):
        file.write(data)
    elif data.data is not None:
        file.write(data.data)
    else:
        for chunk in _layer_chunks(data):
            file.write(chunk)


def _layer_chunks(layer: Layer) -> Iterator[bytes]:
    """
    Yield the file of *layer* in chunks.

    Raises: FileAccessError, also after the last chunk, if the file does not have the layer's digest.
    """
    assert layer.path is not None
    digest = hashlib.sha256()
    try:
        with layer.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                yield chunk
    except OSError as error:
        raise FileAccessError(f"{layer.path}: cannot read: {system_reason(error)}") from error
    if digest.hexdigest() != layer.digest:
        raise FileAccessError(
            f"{layer.path}: changed while the image was made",
            hint="run the command again when nothing else writes to the file",
        )


def layer_bytes(layer: Layer) -> bytes:
    """
    Return the stored bytes of *layer*.

    Raises: FileAccessError, if its file is unreadable or does not have the layer's digest.
    """
    return layer.data if layer.data is not None else b"".join(_layer_chunks(layer))


@contextmanager
def _finished_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a temporary file beside *path*, renamed to *path* at the end of the block."""
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=hidden_prefix(path))
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            yield file
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
        temporary = ""
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()


def _platform_fields(platform: Platform) -> dict[str, str]:
    fields = {"architecture": platform.arch, "os": "linux"}
    return {**fields, "variant": platform.variant} if platform.variant else fields


def _layer_descriptor(layer: Layer) -> dict[str, Any]:
    return {"mediaType": layer.media_type, "digest": f"sha256:{layer.digest}", "size": layer.size}


def encode_document(media_type: str, value: object) -> Document:
    """Return the document of *value*: sorted members and no white space."""
    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return Document(media_type=media_type, data=data)
