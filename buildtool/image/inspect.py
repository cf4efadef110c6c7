# SPDX-License-Identifier: Apache-2.0
"""Show the contents of objects and images. Nothing is verified."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildtool.config.compiling import OBJECT_SUFFIX
from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.errors import EngineError, FileAccessError, ObjectFormatError
from buildtool.core.files import read_bounded
from buildtool.core.validate import LAYOUT_SCHEME, names_registry, split_layout
from buildtool.image.docker.client import connect, engine_errors, missing_errors
from buildtool.image.metadata import (
    OBJECTS_DIRECTORY,
    TINI_PATH,
    TYPES_DIRECTORY,
    Entrypoint,
    parse_entrypoint,
)
from buildtool.metrics.declared import Table, read_object_metrics
from buildtool.objects.capabilities import FILE_ATTRIBUTE
from buildtool.objects.describe import ObjectContents
from buildtool.objects.elf import (
    MAX_OBJECT_BYTES,
    ElfObject,
    blank_section,
    find_signature_section,
    has_signature_section,
    parse_object,
)
from buildtool.objects.tables import Section
from buildtool.oci.read import BlobSource, open_layer, open_layout, read_images
from buildtool.oci.tree import Tree, read_tree, resolve_path
from buildtool.signing.record import SignatureRecord
from buildtool.signing.record import from_bytes as parse_record
from buildtool.signing.statement import Statement, describe_stated
from buildtool.signing.statement import from_bytes as parse_statement

_BUILT_HINT = "inspect shows images of buildtool build; docker inspect shows others"
MAX_ARCHIVE_BYTES = 256 * 1024 * 1024
MAX_OBJECTS_BYTES = 1024 * 1024 * 1024  # of the images of all platforms together
_PREFIX = OBJECTS_DIRECTORY.strip("/") + "/"
_TYPES_PREFIX = TYPES_DIRECTORY.strip("/") + "/"
_GZIP_MAGIC = b"\x1f\x8b"
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectReport:
    """
    The contents of the object called *name*, as far as they are readable.

    *digest* is the subject digest, or that of the file if it is unsigned. *digest_matches* is true
    if the statement has this digest. *problem* describes a malformed part. *metrics* are declared in the
    object, unless *metrics_problem* says why they are wrong.
    """

    name: str
    size: int
    byte_order: str
    digest: Digest
    digest_matches: bool | None
    contents: ObjectContents | None
    record: SignatureRecord | None
    statement: Statement | None
    problem: str | None
    metrics: tuple[Table, ...] = ()
    metrics_problem: str | None = None

    @property
    def is_signed(self) -> bool:
        """True if the object has a signature record, valid or not."""
        return self.record is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """
    An image: its *reference*, *digest*, *platform*, *labels* and the *objects* in it.

    The digest is the engine's image id, or that of the manifest in an archive.
    *entrypoint* holds what its loader attaches and starts unasked. *user* is UID:GID. *in_engine*: the engine
    can run it by its reference. *unread* are the names of objects that are links, or too large.
    *command* is the argument list that a container starts with. *init_permits*: tini's file permits
    capabilities, so that the loader gets them under no_new_privs; None, if that was not read.
    """

    reference: str
    digest: str
    platform: str
    labels: dict[str, str]
    entrypoint: Entrypoint
    user: str = ""
    in_engine: bool = False
    objects: tuple[tuple[str, bytes], ...]
    unread: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    init_permits: bool | None = None


def is_file_name(target: str) -> bool:
    """Return whether *target* names a file rather than an image."""
    return Path(target).exists() or target.endswith(".o") or target.startswith((".", "/"))


def holds_image(target: str) -> bool:
    """
    Return whether *target* names an image in a file, a directory or the engine, and not an object.

    Raises: FileAccessError, for other directories and for compressed files.
    """
    path = Path(target)
    if target.startswith(LAYOUT_SCHEME) or not is_file_name(target):
        return True
    if path.is_dir():
        if not (path / "oci-layout").exists():
            raise FileAccessError(
                f"{target}: a directory, neither an object nor an OCI layout",
                hint=f"name one object: {path / 'NAME.bpf.o'}",
            )
        return True
    head = _read_head(path)
    if head.startswith(_GZIP_MAGIC):
        raise FileAccessError(f"{target}: compressed with gzip", hint=f"gunzip --keep {target}")
    return head[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC)


def _read_head(path: Path) -> bytes:
    """Return the first bytes of file *path*, which tell its kind, or nothing if the file cannot be read."""
    try:
        return read_bounded(path, _TAR_MAGIC_AT + len(_TAR_MAGIC))
    except FileAccessError:
        return b""


def inspect_object(name: str, data: bytes) -> ObjectReport:
    """
    Return a report on *data*, the bytes of the object called *name*.

    Raises: ObjectFormatError, if *data* is no object. Other faults are in the report.
    """
    obj = parse_object(data)
    contents, problem = _describe(obj)
    metrics, metrics_problem = _read_metrics(obj)
    record: SignatureRecord | None = None
    statement: Statement | None = None
    subject = data
    if has_signature_section(obj):
        try:
            section = find_signature_section(obj)
            subject = blank_section(obj, section)
            record = parse_record(obj.contents(section))
            statement = parse_statement(record.statement)
        except ObjectFormatError as error:
            problem = error.message
    digest = Digest(hashlib.sha256(subject).hexdigest())
    return ObjectReport(
        name=name,
        size=len(data),
        byte_order="little" if obj.is_little_endian else "big",
        digest=digest,
        digest_matches=None if statement is None else statement.digest == digest,
        contents=contents,
        record=record,
        statement=statement,
        problem=problem,
        metrics=metrics,
        metrics_problem=metrics_problem,
    )


def _read_metrics(obj: ElfObject) -> tuple[tuple[Table, ...], str | None]:
    try:
        return read_object_metrics(obj), None
    except ObjectFormatError as error:
        return (), error.message


def subject_file(data: bytes) -> bytes:
    """
    Return the file whose plain SHA-256 is the subject digest of object *data*.

    Raises: ObjectFormatError.
    """
    obj, section = _signed_object(data)
    return blank_section(obj, section)


def signature_record(data: bytes) -> SignatureRecord:
    """
    Return the signature record of object *data*.

    Raises: ObjectFormatError.
    """
    obj, section = _signed_object(data)
    return parse_record(obj.contents(section))


class _MissingError(EngineError):
    """No engine answers, or it has no such image."""


def inspect_images(target: str, cache: Cache) -> list[ImageReport]:
    """
    Return what the images of *target* carry: an archive, a layout, an image of the engine or of a registry.

    A registry is asked if the engine has no image of this name. Its blobs are kept in *cache*.

    Raises: EngineError, RegistryError, ObjectFormatError, FileAccessError, UsageError.
    """
    digest = ""
    if target.startswith(LAYOUT_SCHEME):
        path, digest = split_layout(target)
    elif is_file_name(target):
        path = Path(target)
    else:
        try:
            return [inspect_image(target)]
        except _MissingError:
            if not names_registry(target):
                raise
        return _with_objects(target, _inspect_registry(target, cache))
    with open_layout(path, Digest(digest) if digest else None) as source:
        found = list(inspect_stored(source))
    return _with_objects(target, found)


def _inspect_registry(reference: str, cache: Cache) -> list[ImageReport]:
    # Imported here, because the HTTP library takes as long to import as the rest.
    from buildtool.oci.registry import open_image

    return list(inspect_stored(open_image(reference, cache)))


def _with_objects(target: str, found: list[ImageReport]) -> list[ImageReport]:
    """Return *found*, the images of *target*, if one has objects. Raises: EngineError."""
    if not any(image.objects for image in found):
        raise EngineError(
            f"{target}: no objects in {OBJECTS_DIRECTORY}: not built by buildtool", hint=_BUILT_HINT
        )
    return found


def inspect_stored(source: BlobSource) -> Iterator[ImageReport]:
    """
    Yield a report on each image of *source*, one for each platform.

    Raises: ObjectFormatError; errors of *source*.
    """
    left = MAX_OBJECTS_BYTES
    for image in read_images(source):
        tree = read_tree((open_layer(source, layer) for layer in image.layers), keep=_is_object)
        found = [
            (path.removeprefix(_PREFIX).removeprefix(_TYPES_PREFIX), tree[path])
            for path in sorted(tree)
            if _is_object(path)
        ]
        readable = {name for name, entry in found if entry.is_file and entry.size <= MAX_OBJECT_BYTES}
        unread = [name for name, _ in found if name not in readable]
        left -= sum(entry.size for name, entry in found if name in readable)
        if left < 0:
            raise ObjectFormatError(f"{source.name}: objects of more than {MAX_OBJECTS_BYTES} bytes")
        # Instead of a link, the loader would read another directory.
        places = (directory.strip("/") for directory in (OBJECTS_DIRECTORY, TYPES_DIRECTORY))
        unread += [f"/{place}" for place in places if resolve_path(tree, place) != place]
        config = image.config.get("config") or {}
        yield ImageReport(
            reference=source.name,
            digest=f"sha256:{image.digest}",
            platform=image.platform,
            labels=dict(config.get("Labels") or {}),
            entrypoint=parse_entrypoint(config.get("Entrypoint") or []),
            user=str(config.get("User") or ""),
            objects=tuple((name, entry.data) for name, entry in found if name in readable),
            unread=tuple(unread),
            command=tuple(map(str, config.get("Entrypoint") or [])),
            init_permits=_has_capabilities(tree, TINI_PATH),
        )


def _has_capabilities(tree: Tree, path: str) -> bool:
    entry = tree.get(resolve_path(tree, path))
    return entry is not None and FILE_ATTRIBUTE in entry.xattrs


def _is_object(path: str) -> bool:
    """Return whether the loader reads *path* as an object: whatever is in its directory and not hidden."""
    prefix = _TYPES_PREFIX if path.startswith(_TYPES_PREFIX) else _PREFIX
    name = path.removeprefix(prefix)
    return path.startswith(prefix) and "/" not in name and not name.startswith(".")


def inspect_image(reference: str) -> ImageReport:
    """
    Return a report on image *reference* of the local engine. No program of the image runs.

    Raises: EngineError.
    """
    try:
        client = connect()
    except EngineError as error:
        raise _MissingError(f"{reference}: no such file, and {error.message}", hint=error.hint) from error
    with (
        closing(client),
        engine_errors(
            f"{reference}: cannot inspect the image", hint="buildtool doctor checks the Docker engine"
        ),
    ):
        try:
            image = client.images.get(reference)
        except missing_errors() as error:
            raise _MissingError(
                f"{reference}: no such file, and no image of the Docker engine",
                hint=f"docker pull {reference}, or name an archive that build wrote",
            ) from error
        platform = _platform(image.attrs)
        with _container(client, reference, platform) as container:
            objects = tuple(_read_objects(container))
        config = image.attrs.get("Config") or {}
        return ImageReport(
            reference=reference,
            digest=str(image.id),
            platform=platform,
            labels=dict(config.get("Labels") or {}),
            entrypoint=parse_entrypoint(config.get("Entrypoint") or []),
            user=str(config.get("User") or ""),
            in_engine=True,
            objects=objects,
        )


def _describe(obj: ElfObject) -> tuple[ObjectContents | None, str | None]:
    try:
        return describe_stated(obj), None
    except ObjectFormatError as error:
        return None, error.message


def _signed_object(data: bytes) -> tuple[ElfObject, Section]:
    obj = parse_object(data)
    if not has_signature_section(obj):
        raise ObjectFormatError("not signed", hint="buildtool sign OBJECT signs it")
    return obj, find_signature_section(obj)


def _platform(attrs: dict[str, Any]) -> str:
    return "/".join(filter(None, (attrs.get("Os"), attrs.get("Architecture"), attrs.get("Variant"))))


@contextmanager
def _container(client: Any, reference: str, platform: str) -> Iterator[Any]:
    """Yield a container of the image, which is never started, for access to its file system."""
    # The engine requires a command, although none runs.
    container = client.containers.create(reference, command=["-"], network_mode="none", platform=platform)
    try:
        yield container
    finally:
        container.remove(force=True)


def _read_objects(container: Any) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each object, sorted by name. Links and oversized files are skipped."""
    try:
        stream, _ = container.get_archive(OBJECTS_DIRECTORY)
    except missing_errors() as error:
        raise EngineError(
            f"the image has no {OBJECTS_DIRECTORY}: not built by buildtool", hint=_BUILT_HINT
        ) from error
    archive = b""
    for chunk in stream:
        archive += chunk
        if len(archive) > MAX_ARCHIVE_BYTES:
            raise EngineError(f"{OBJECTS_DIRECTORY} of the image is larger than {MAX_ARCHIVE_BYTES} bytes")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            if member.isreg() and member.name.endswith(OBJECT_SUFFIX) and member.size <= MAX_OBJECT_BYTES:
                file = tar.extractfile(member)
                assert file is not None
                yield member.name.rpartition("/")[2], file.read()
