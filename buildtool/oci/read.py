# SPDX-License-Identifier: Apache-2.0
"""
Read OCI images from layout directories, archives and other sources of blobs.

Each blob is compared with its digest and size before its contents are used.

Sources: OCI image specification v1.1 (image-layout, image-index, manifest, config).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol

from buildtool.core.digests import Digest
from buildtool.core.errors import EngineError, FileAccessError, ObjectFormatError, system_reason
from buildtool.core.files import read_bounded
from buildtool.core.platforms import Platform
from buildtool.core.validate import LAYOUT_SCHEME
from buildtool.oci.tarreader import TAR_ERRORS, describe_tar_error, index_archive

MAX_JSON_BYTES = 4 * 1024 * 1024
MAX_LAYER_BYTES = 512 * 1024 * 1024
MAX_INDEXES = 4  # one within another
MAX_MANIFESTS = 1000  # of indexes and images that an index names, each as often as it is named
MAX_SHOWN = 8  # digests in a hint
ARCHIVE_HINT = (
    "buildtool build --output type=oci,dest=FILE writes an archive; docker save since Docker 25, too"
)
LAYOUT_HINT = "buildtool build --output type=oci,tar=false,dest=DIRECTORY writes a layout"
COPY_HINT = "copy or build the image again"
# Errors while reading a document of another form.
DOCUMENT_ERRORS = (KeyError, TypeError, AttributeError, ValueError, RecursionError)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
# Documents of the Docker media types have the same members as OCI's.
_INDEXES = ("index.v1+json", "manifest.list.v2+json")
_IMAGES = ("image.manifest.v1+json", "distribution.manifest.v2+json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A reference to a blob: *media_type*, *digest*, *size* in bytes and, in an index, *platform*."""

    media_type: str
    digest: Digest
    size: int
    platform: str = ""

    @property
    def is_manifest(self) -> bool:
        """True for an image or an index, which registries keep apart from other blobs."""
        return self.media_type.endswith((*_INDEXES, *_IMAGES))

    @property
    def is_index(self) -> bool:
        """True for an index of several images."""
        return self.media_type.endswith(_INDEXES)


class BlobSource(Protocol):
    """A source of an image: its *name* in messages, its *top* document, and all blobs by digest."""

    @property
    def name(self) -> str:
        """The name that the user gave."""

    def top(self) -> Descriptor:
        """Return the descriptor of the image or index."""

    def fetch(self, wanted: Descriptor) -> bytes:
        """Return the blob, not much longer than its size. The caller compares size and digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """The image of one *platform*: *digest* of the manifest, *config*, and *layers* from the bottom."""

    platform: str
    digest: Digest
    config: Mapping[str, Any]
    layers: tuple[Descriptor, ...]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the uncompressed layers, each with the prefix sha256:."""
        return tuple(self.config["rootfs"]["diff_ids"])


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutDirectory:
    """An OCI layout in directory *path*. *digest* selects one of several images."""

    path: Path
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def top(self) -> Descriptor:
        """Return the descriptor of the image or index. Raises: ObjectFormatError, FileAccessError."""
        if not (self.path / "oci-layout").is_file():
            raise ObjectFormatError(
                f"{self.path}: not an OCI layout: it has no file oci-layout", hint=LAYOUT_HINT
            )
        return _choose_top(read_bounded(self.path / "index.json", MAX_JSON_BYTES), self.name, self.digest)

    def fetch(self, wanted: Descriptor) -> bytes:
        """Return a blob. Raises: FileAccessError."""
        return read_bounded(self.path / "blobs/sha256" / wanted.digest, wanted.size)


class LayoutArchive:
    """An OCI layout in the open tar file *file*, called *name*. *digest* selects one of several images."""

    def __init__(self, file: IO[bytes], digest: Digest | None, name: str) -> None:
        self._file = file
        self._digest = digest
        self.name = name
        try:
            self._members = index_archive(file)
        except TAR_ERRORS as error:
            problem = describe_tar_error(error)
            raise ObjectFormatError(
                f"{name}: not an image archive (tar), or damaged: {problem}", hint=ARCHIVE_HINT
            ) from error

    def top(self) -> Descriptor:
        """Return the descriptor of the image or index. Raises: ObjectFormatError."""
        if "index.json" not in self._members:
            raise ObjectFormatError(
                f"{self.name}: not an OCI archive: it has no index.json", hint=ARCHIVE_HINT
            )
        return _choose_top(self._read("index.json", MAX_JSON_BYTES), self.name, self._digest)

    def fetch(self, wanted: Descriptor) -> bytes:
        """Return a blob. Raises: ObjectFormatError."""
        return self._read(f"blobs/sha256/{wanted.digest}", wanted.size)

    def _read(self, member: str, limit: int) -> bytes:
        if member not in self._members:
            raise ObjectFormatError(f"{self.name}: {member} is missing: a truncated archive", hint=COPY_HINT)
        offset, size = self._members[member]
        try:
            self._file.seek(offset)
            return self._file.read(min(size, limit + 1))
        except OSError as error:
            raise FileAccessError(f"{self.name}: cannot read: {system_reason(error)}") from error


def find_archive_digest(path: Path) -> str | None:
    """
    Return the digest of the image or index in archive *path*, with sha256:, or None if there is no file.

    Raises: FileAccessError, if another kind of file has this name.
    """
    if not path.exists():
        return None
    try:
        with open_layout(path) as source:
            return f"sha256:{source.top().digest}"
    except (ObjectFormatError, EngineError) as error:
        raise FileAccessError(
            f"{path}: already exists, and is no archive of an image",
            hint="--force replaces it; --output NAME.tar writes another file",
        ) from error


@contextmanager
def open_layout(path: Path, digest: Digest | None = None, name: str = "") -> Iterator[BlobSource]:
    """
    Yield the OCI layout at *path*, a directory or a tar file. *digest* selects one of several images.

    Raises: ObjectFormatError, FileAccessError.
    """
    if path.is_dir():
        yield LayoutDirectory(path=path, digest=digest)
        return
    if not path.is_file():
        raise FileAccessError(f"{path}: neither an OCI layout nor an archive", hint=LAYOUT_HINT)
    try:
        file = path.open("rb")
    except OSError as error:
        raise FileAccessError(f"{path}: cannot read: {system_reason(error)}") from error
    with file:
        yield LayoutArchive(file, digest, name or str(path))


def read_blob(source: BlobSource, descriptor: Descriptor, limit: int = MAX_LAYER_BYTES) -> bytes:
    """
    Return the blob of *descriptor*, compared with size and digest.

    Raises: ObjectFormatError; errors of *source*.
    """
    if descriptor.size > limit:
        raise ObjectFormatError(f"{source.name}: a blob of {descriptor.size} bytes, the most is {limit}")
    data = source.fetch(descriptor)
    if len(data) != descriptor.size:
        what = "truncated" if len(data) < descriptor.size else "longer than its descriptor says"
        raise ObjectFormatError(
            f"{source.name}: blob sha256:{descriptor.digest[:12]}... is {what}", hint=COPY_HINT
        )
    if hashlib.sha256(data).hexdigest() != descriptor.digest:
        raise ObjectFormatError(
            f"{source.name}: blob sha256:{descriptor.digest[:12]}... has other contents", hint=COPY_HINT
        )
    return data


def open_layer(source: BlobSource, descriptor: Descriptor) -> IO[bytes]:
    """
    Return the stored bytes of the layer of *descriptor*, perhaps compressed, as a file.

    Raises: ObjectFormatError; errors of *source*.
    """
    check_layer_type(source.name, descriptor)
    return io.BytesIO(read_blob(source, descriptor))


def check_layer_type(name: str, descriptor: Descriptor) -> None:
    """
    Check that the layer of *descriptor*, in the image called *name*, is plain tar or gzip.

    Raises: ObjectFormatError.
    """
    if not descriptor.media_type.endswith((".tar", "tar+gzip", "tar.gzip")):
        raise ObjectFormatError(
            f"{name}: a layer of type {descriptor.media_type[:80]!r}",
            hint="copy the image with gzip layers: skopeo copy --dest-compress-format gzip",
        )


def read_images(source: BlobSource) -> list[StoredImage]:
    """
    Return the images of *source*, one for each platform, in the order of its index.

    Raises: ObjectFormatError; errors of *source*.
    """
    try:
        return list(_read_images(source, source.top(), 0, count(1)))
    except DOCUMENT_ERRORS as error:
        raise ObjectFormatError(
            f"{source.name}: not an OCI image: {_describe(error)}", hint=ARCHIVE_HINT
        ) from error


def _read_images(
    source: BlobSource, top: Descriptor, depth: int, numbers: Iterator[int]
) -> Iterator[StoredImage]:
    if next(numbers) > MAX_MANIFESTS:
        raise ObjectFormatError(f"{source.name}: more than {MAX_MANIFESTS} images and image indexes")
    document = _parse(read_blob(source, top, MAX_JSON_BYTES))
    if top.is_index:
        if depth >= MAX_INDEXES:
            raise ObjectFormatError(f"{source.name}: image indexes nested too deep")
        for entry in document["manifests"]:
            child = read_descriptor(entry)
            # BuildKit lists attestations of an image as images of platform unknown/unknown.
            if child.platform != "unknown/unknown":
                yield from _read_images(source, child, depth + 1, numbers)
        return
    config = _parse(read_blob(source, read_descriptor(document["config"]), MAX_JSON_BYTES))
    layers = tuple(read_descriptor(entry) for entry in document["layers"])
    _check_settings(config)
    diff_ids = config["rootfs"]["diff_ids"]
    if len(diff_ids) != len(layers) or not all(_DIGEST.fullmatch(item) for item in diff_ids):
        raise ObjectFormatError(
            f"{source.name}: the manifest and the configuration list different layers", hint=COPY_HINT
        )
    platform = _platform_name(config)
    yield StoredImage(platform=platform, digest=top.digest, config=config, layers=layers)


def _check_settings(config: Any) -> None:
    """Check the types of the configuration's members, which later code relies on."""
    run, history = config.get("config") or {}, config.get("history") or []
    if not isinstance(run, dict):
        raise _DocumentError("a configuration of another form")
    mappings = [run, run.get("Labels") or {}, run.get("Healthcheck") or {}]
    lists = [history, *(run.get(name) or [] for name in ("Cmd", "Entrypoint", "Env", "OnBuild"))]
    texts = [run.get("User") or "", *mappings[1].values()]
    wrong = [
        value
        for values, kind in ((mappings, dict), (lists, list), (texts, str))
        for value in values
        if not isinstance(value, kind)
    ]
    if wrong:
        raise _DocumentError(f"a configuration with {repr(wrong[0])[:80]} in it")


def find_image(images: list[StoredImage], platform: Platform, name: str) -> StoredImage:
    """
    Return the image of *platform* among *images*. *name* is the base image's name in the message.

    Raises: EngineError, if *images* lack the platform.
    """
    for image in images:
        found = image.platform
        # linux/arm64 and linux/arm64/v8 are the same platform.
        if found == platform.oci or (found == f"{platform.oci}/v8" and platform.arch == "arm64"):
            return image
    have = ", ".join(image.platform for image in images) or "no platform at all"
    raise EngineError(
        f"base image {name} is not for {platform.oci} but {have}",
        hint="name a base image that has the platform, or build another --arch",
    )


def _choose_top(index: bytes, name: str, digest: Digest | None) -> Descriptor:
    try:
        entries = [read_descriptor(entry) for entry in _parse(index)["manifests"]]
    except DOCUMENT_ERRORS as error:
        raise ObjectFormatError(
            f"{name}: not an OCI layout: index.json: {_describe(error)}", hint=LAYOUT_HINT
        ) from error
    chosen = [entry for entry in entries if digest in (None, entry.digest)]
    if not chosen and digest:
        have = " ".join(f"sha256:{entry.digest}" for entry in entries[:MAX_SHOWN])
        hint = f"choose from {have}" if have else "build or copy the image again: the index is empty"
        raise ObjectFormatError(f"{name}: no image sha256:{digest} in it", hint=hint)
    if len({entry.digest for entry in chosen}) != 1:
        digests = " ".join(f"sha256:{entry.digest}" for entry in chosen[:MAX_SHOWN])
        hint = f"choose one by {LAYOUT_SCHEME}PATH@sha256:DIGEST: {digests}" if chosen else ARCHIVE_HINT
        raise ObjectFormatError(f"{name}: {len(chosen) or 'no'} images", hint=hint)
    return chosen[0]


def _parse(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"))


class _DocumentError(ValueError):
    """A document of an image breaks a rule that its text names."""


def _describe(error: BaseException) -> str:
    """Return what *error*, one of DOCUMENT_ERRORS, means."""
    match error:
        case _DocumentError():
            return str(error)
        case json.JSONDecodeError():
            return f"not valid JSON: line {error.lineno} column {error.colno}"
        case UnicodeDecodeError():
            return "not UTF-8"
        case KeyError(args=[str(member), *_]):
            return f"no member {member!r}"
        case RecursionError():
            return "nested too deep"
    return "a member of another type than the specification's"


def read_descriptor(value: Mapping[str, Any]) -> Descriptor:
    """Return the descriptor in member *value* of a document. Raises: one of DOCUMENT_ERRORS."""
    found = _DIGEST.fullmatch(value["digest"])
    if found is None or not isinstance(value["size"], int) or value["size"] < 0:
        raise _DocumentError("a descriptor without a sha256 digest and a size")
    platform = value.get("platform")
    return Descriptor(
        media_type=str(value["mediaType"]),
        digest=Digest(found[1]),
        size=value["size"],
        platform=_platform_name(platform) if platform else "",
    )


def _platform_name(value: Mapping[str, Any]) -> str:
    parts = (value.get("os"), value.get("architecture"), value.get("variant"))
    return "/".join(str(part) for part in parts if part)
