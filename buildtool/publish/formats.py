# SPDX-License-Identifier: Apache-2.0
"""
Make images of other tools' formats from the signed objects of a runtime image, and read them back.

bpfman and Inspektor Gadget read one object from an image. Each object of the runtime image therefore gets an
image of its own, for all architectures that the other tool knows. The bytes of an object are the same in all.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildtool.config.compiling import OBJECT_SUFFIX
from buildtool.core.cache import Cache
from buildtool.core.errors import ConfigError, ObjectFormatError, UsageError
from buildtool.core.files import read_bounded
from buildtool.core.platforms import PLATFORMS, Platform
from buildtool.image.inspect import inspect_stored
from buildtool.image.metadata import LABEL_PREFIX, OBJECTS_DIRECTORY
from buildtool.image.result import OtherImage
from buildtool.objects.describe import ObjectContents
from buildtool.objects.elf import MAX_OBJECT_BYTES, parse_object
from buildtool.oci.read import (
    DOCUMENT_ERRORS,
    MAX_JSON_BYTES,
    BlobSource,
    Descriptor,
    check_layer_type,
    read_blob,
    read_descriptor,
    read_images,
)
from buildtool.oci.registry import open_image, parse_reference, push_images
from buildtool.oci.tree import read_tree
from buildtool.oci.write import ImageSet, IndexPart, make_index, write_archive, write_directory
from buildtool.publish.bpfman import bytecode_labels, bytecode_part, is_bytecode
from buildtool.publish.gadget import (
    ARCHITECTURES,
    ARTIFACT_TYPE,
    MEDIA_PROGRAM,
    gadget_annotations,
    gadget_part,
)
from buildtool.publish.sign import sign_image
from buildtool.signing.signers.signer import Signer
from buildtool.signing.statement import describe_stated

BPFMAN, GADGET = "bpfman", "gadget"
MAX_METADATA_BYTES = 1024 * 1024
_ENDS = (".oci.tar", ".tar", "")  # of the names of archives and layouts
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# Labels of the runtime image that say nothing about an image with one object.
_OF_RUNTIME = ("org.opencontainers.image.base.", LABEL_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatImage:
    """An image of *format* with the object called *name*, without its suffix."""

    format: str
    name: str
    images: ImageSet

    @property
    def suffix(self) -> str:
        """The end of the image's tag or file name."""
        return format_suffix(self.format, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundObject:
    """An object that was read back: OCI *platform*, file *name*, *data*."""

    platform: str
    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    """An object for *platform*: its *data* and *contents*."""

    platform: Platform
    data: bytes
    contents: ObjectContents


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runtime:
    """The runtime image *name*: its *labels*, when it was *created*, and its *objects* by name."""

    name: str
    labels: Mapping[str, str]
    created: str
    objects: Mapping[str, Sequence[_Object]]


def format_suffix(kind: str, name: str) -> str:
    """Return the end of tags and file names of the image of format *kind* with object *name*."""
    return f"-{kind}-{short_name(name)}"


def short_name(name: str) -> str:
    """Return *name*, of an object, without .bpf.o or .o."""
    return name.removesuffix(OBJECT_SUFFIX).removesuffix(".bpf")


def read_metadata(path: Path | None) -> bytes | None:
    """
    Return the bytes of the project's gadget.yaml, or None without a *path*.

    Raises: ConfigError, if it is no text; FileAccessError.
    """
    if path is None:
        return None
    data = read_bounded(path, MAX_METADATA_BYTES)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"publish.gadget: {path}: not UTF-8", hint="name a gadget.yaml") from error
    return data


def make_formats(
    source: BlobSource,
    formats: Collection[str],
    *,
    metadata: bytes | None = None,
    report: Callable[[str], None],
) -> tuple[FormatImage, ...]:
    """
    Return the images of *formats* with the objects of the runtime image *source*.

    *metadata* is the gadget.yaml of the gadgets. *report* receives a warning for each object, and each
    architecture, that a format leaves out.

    Raises: ObjectFormatError, also if an object's programs or maps differ between architectures; errors of
        *source*.
    """
    runtime = _read_runtime(source)
    kinds = [kind for kind in formats if kind in (BPFMAN, GADGET)]
    return tuple(image for kind in kinds for image in _make_format(runtime, kind, metadata, report))


def _make_format(
    runtime: _Runtime, kind: str, metadata: bytes | None, report: Callable[[str], None]
) -> Iterator[FormatImage]:
    count = 0
    for name, found in runtime.objects.items():
        known = [item for item in found if kind == BPFMAN or item.platform.arch in ARCHITECTURES]
        if left := [item.platform.arch for item in found if item not in known]:
            report(f"{name}: no {kind} image for {', '.join(left)}: {' and '.join(ARCHITECTURES)} only")
        if not known:
            continue
        if kind == BPFMAN:
            parts = _bytecode_parts(name, known, runtime)
        else:
            parts = _gadget_parts(name, known, runtime, metadata)
        if not parts:
            report(f"{name}: no bpfman image: bpfman knows none of its programs' sections")
            continue
        count += 1
        # `ig image import` looks an image up by its whole reference.
        images = make_index(parts, tagged_whole=kind == GADGET)
        yield FormatImage(format=kind, name=short_name(name), images=images)
    if not count:
        raise ObjectFormatError(
            f"{runtime.name}: no object for a {kind} image", hint=f"leave {kind} out of publish.formats"
        )


def _read_runtime(source: BlobSource) -> _Runtime:
    """Return what the runtime image *source* holds. Raises: ObjectFormatError; errors of *source*."""
    reports = list(inspect_stored(source))
    objects: dict[str, list[_Object]] = {}
    for image in reports:
        arch = image.platform.split("/")[1] if "/" in image.platform else ""
        for name in image.unread:
            raise ObjectFormatError(f"{source.name}: {name}: not a file, or too large")
        for name, data in image.objects:
            if arch not in PLATFORMS:
                raise ObjectFormatError(f"{source.name}: {name}: for an unknown platform, {image.platform}")
            try:
                contents = describe_stated(parse_object(data))
            except ObjectFormatError as error:
                raise ObjectFormatError(f"{source.name}: {name} ({arch}): {error.message}") from error
            item = _Object(platform=PLATFORMS[arch], data=data, contents=contents)
            objects.setdefault(name, []).append(item)
    if not objects:
        raise ObjectFormatError(
            f"{source.name}: no objects in {OBJECTS_DIRECTORY}: not built by buildtool",
            hint="name an image that buildtool build made",
        )
    names = [short_name(name) for name in objects]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ObjectFormatError(
            f"{source.name}: two objects would have images called {twice}", hint="rename one of the sources"
        )
    return _Runtime(
        name=source.name,
        labels={key: text for key, text in reports[0].labels.items() if not key.startswith(_OF_RUNTIME)},
        created=str(read_images(source)[0].config.get("created") or ""),
        objects={name: sorted(found, key=lambda item: item.platform.arch) for name, found in objects.items()},
    )


def _bytecode_parts(name: str, objects: Sequence[_Object], runtime: _Runtime) -> list[IndexPart]:
    found = {item.platform.arch: bytecode_labels(item.contents) for item in objects}
    _check_same(name, found)
    if not all(found.values()):
        return []
    return [
        bytecode_part(
            item.platform,
            name,
            item.data,
            labels={
                **runtime.labels,
                **found[item.platform.arch],
                LABEL_PREFIX + "object-digest": f"sha256:{hashlib.sha256(item.data).hexdigest()}",
            },
            created=runtime.created,
        )
        for item in objects
    ]


def _gadget_parts(
    name: str, objects: Sequence[_Object], runtime: _Runtime, metadata: bytes | None
) -> list[IndexPart]:
    # One gadget.yaml describes the data of all architectures.
    _check_same(
        name,
        {
            item.platform.arch: {
                "programs": _show({program.name: program.section for program in item.contents.programs}),
                "maps": _show({each.name: each.type for each in item.contents.maps}),
            }
            for item in objects
        },
    )
    annotations = gadget_annotations(short_name(name), runtime.labels, runtime.created)
    return [
        gadget_part(item.platform, item.data, metadata=metadata, annotations=annotations) for item in objects
    ]


def _show(names: Mapping[str, str]) -> str:
    return json.dumps(names, sort_keys=True)


def _check_same(name: str, found: Mapping[str, Mapping[str, str]]) -> None:
    """Check that all architectures have the same texts. Raises: ObjectFormatError."""
    first, *rest = found
    for other in rest:
        for key in sorted({*found[first], *found[other]}):
            ours, theirs = found[first].get(key, "missing"), found[other].get(key, "missing")
            if ours != theirs:
                raise ObjectFormatError(
                    f"{name}: {key} differ between architectures: {first} has {ours}, {other} has {theirs}",
                    hint="declare the same programs and maps for all, or build other architectures apart",
                )


def format_place(destination: Path, suffix: str) -> Path:
    """Return the file or layout beside *destination*, a runtime image, for the image with *suffix*."""
    name = destination.name
    end = next(end for end in _ENDS if name.endswith(end))
    return destination.with_name(f"{name.removesuffix(end)}{suffix}{end}")


def write_format(image: FormatImage, path: Path, reference: str, *, is_layout: bool) -> OtherImage:
    """
    Write *image*, called *reference*, to the new file or layout *path*.

    Raises: FileAccessError.
    """
    write = write_directory if is_layout else write_archive
    write(path, image.images, reference)
    return OtherImage(
        format=image.format,
        name=image.name,
        reference=reference,
        digest=f"sha256:{image.images.top.digest}",
        file=str(path),
    )


def format_reference(reference: str, suffix: str) -> str:
    """
    Return the tag beside *reference* for the image with *suffix*.

    Raises: UsageError, if *reference* has no tag, or if the tag would be too long.
    """
    parsed = parse_reference(reference)
    tag = f"{parsed.tag}{suffix}"
    if not parsed.tag:
        raise UsageError(
            f"{reference}: no tag, from which those of other formats are made",
            hint="name the image as NAME:TAG@sha256:DIGEST",
        )
    if not _TAG.fullmatch(tag):
        raise UsageError(f"{tag[:140]}: a tag has at most 128 letters", hint="choose a shorter tag")
    return f"{parsed.host}/{parsed.repository}:{tag}"


def is_runtime(source: BlobSource) -> bool:
    """
    Return whether *source* is a runtime image, from which images of other formats can be made.

    Raises: ObjectFormatError; errors of *source*.
    """
    return not read_format(source) and any(image.objects for image in inspect_stored(source))


def push_formats(
    reference: str,
    formats: Collection[str],
    signer: Signer | None,
    cache: Cache,
    *,
    metadata: bytes | None = None,
    report: Callable[[str], None],
) -> tuple[OtherImage, ...]:
    """
    Make images of *formats* from the runtime image *reference*, push them beside it, and sign them.

    What is there already stays.

    Raises: UsageError, RegistryError, ObjectFormatError, SigningKeyError; errors of *signer*.
    """
    made = make_formats(open_image(reference, cache), formats, metadata=metadata, report=report)
    places = [format_reference(reference, image.suffix) for image in made]
    pushed = []
    for image, place in zip(made, places, strict=True):
        push_images(image.images, place)
        digest = f"sha256:{image.images.top.digest}"
        if signer is not None:
            sign_image(f"{place.rpartition(':')[0]}@{digest}", signer)
        pushed.append(OtherImage(format=image.format, name=image.name, reference=place, digest=digest))
    return tuple(pushed)


def read_format(source: BlobSource) -> tuple[FoundObject, ...]:
    """
    Return the object of each platform in *source*, an image of bpfman or Inspektor Gadget, else nothing.

    Raises: ObjectFormatError, also if it is not clear which bytes the other tool loads; errors of *source*.
    """
    try:
        return tuple(_read_format(source))
    except DOCUMENT_ERRORS:
        return ()  # the reader of runtime images says what is wrong


def _read_format(source: BlobSource) -> Iterator[FoundObject]:
    top = source.top()
    manifests = [top]
    if top.is_index:
        entries = json.loads(read_blob(source, top, MAX_JSON_BYTES))["manifests"]
        manifests = [read_descriptor(entry) for entry in entries]
    for number, each in enumerate(manifests):
        if each.is_index:
            return
        manifest = json.loads(read_blob(source, each, MAX_JSON_BYTES))
        layers = [read_descriptor(layer) for layer in manifest["layers"]]
        if manifest.get("artifactType") == ARTIFACT_TYPE:
            found = _gadget_object(source, each, layers)
        else:
            config = json.loads(read_blob(source, read_descriptor(manifest["config"]), MAX_JSON_BYTES))
            if not is_bytecode((config.get("config") or {}).get("Labels") or {}):
                if number:
                    raise ObjectFormatError(f"{source.name}: images of several formats in one index")
                return
            found = _bytecode_object(source, config, layers)
        yield found


def _gadget_object(source: BlobSource, manifest: Descriptor, layers: Sequence[Descriptor]) -> FoundObject:
    (layer,) = [each for each in layers if each.media_type == MEDIA_PROGRAM]
    data = read_blob(source, layer, MAX_OBJECT_BYTES)
    return FoundObject(platform=manifest.platform, name="program", data=data)


def _bytecode_object(
    source: BlobSource, config: Mapping[str, Any], layers: Sequence[Descriptor]
) -> FoundObject:
    (layer,) = layers
    check_layer_type(source.name, layer)
    tree = read_tree([io.BytesIO(read_blob(source, layer))], keep=lambda _: True)
    # One release of bpfman takes the first member, the next one the first *.o.
    if len(tree) != 1:
        raise ObjectFormatError(f"{source.name}: a bytecode image with {len(tree)} files instead of one")
    ((name, entry),) = tree.items()
    platform = f"{config['os']}/{config['architecture']}"
    return FoundObject(platform=platform, name=name, data=entry.data)
