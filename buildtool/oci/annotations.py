# SPDX-License-Identifier: Apache-2.0
"""
Read annotations as buildx writes them, and put them into the manifests and the index of images.

Sources: OCI image specification v1.1, "Annotations"; buildx, "Add metadata annotations" (--annotation).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from buildtool.core.errors import UsageError
from buildtool.core.platforms import Platform, find_platform
from buildtool.core.validate import check_label_key, check_label_text
from buildtool.oci.write import MEDIA_INDEX, Document, ImageSet, encode_document

MANIFEST, MANIFEST_DESCRIPTOR = "manifest", "manifest-descriptor"
INDEX, INDEX_DESCRIPTOR = "index", "index-descriptor"
_KINDS = (MANIFEST, MANIFEST_DESCRIPTOR, INDEX, INDEX_DESCRIPTOR)
_PLACE = re.compile(r"(?P<kind>[a-z-]+)(\[(?P<platform>[A-Za-z0-9_/-]+)\])?")
_HINT = "for example org.example.team=plant, or index,manifest[linux/arm64]:org.example.team=plant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """
    *key* and *value* at a place: *kind* is one of manifest, manifest-descriptor, index, index-descriptor.

    *platform* selects one manifest; None means each.
    """

    kind: str
    platform: Platform | None
    key: str
    value: str

    @property
    def option(self) -> str:
        """The value of buildx's --annotation."""
        platform = f"[{self.platform.oci}]" if self.platform else ""
        return f"{self.kind}{platform}:{self.key}={self.value}"


def parse_annotation(text: str) -> tuple[Annotation, ...]:
    """
    Return the annotations of *text*: KEY=VALUE for each manifest, or PLACE[,PLACE...]:KEY=VALUE.

    Raises: UsageError.
    """
    name, equals, value = text.partition("=")
    places, colon, key = name.rpartition(":")
    if not equals:
        raise UsageError(f"{text!r}: not KEY=VALUE", hint=_HINT)
    check_label_key(key)
    check_label_text(value)
    found = []
    for place in places.split(",") if colon else [MANIFEST]:
        match = _PLACE.fullmatch(place)
        if match is None or match["kind"] not in _KINDS:
            raise UsageError(f"{place!r}: no place of annotations", hint="choose from " + ", ".join(_KINDS))
        platform = find_platform(match["platform"]) if match["platform"] else None
        if platform is not None and match["kind"] in (INDEX, INDEX_DESCRIPTOR):
            raise UsageError(f"{place!r}: an index is of all platforms", hint=f"write {match['kind']}:{key}")
        found.append(Annotation(kind=match["kind"], platform=platform, key=key, value=value))
    return tuple(found)


def check_annotations(annotations: Iterable[Annotation], platforms: Sequence[Platform]) -> None:
    """
    Check that an image of *platforms* has the places of *annotations*.

    Raises: UsageError.
    """
    for item in annotations:
        if item.platform is not None and item.platform not in platforms:
            raise UsageError(
                f"--annotation {item.key}: the image is not for {item.platform.oci}",
                hint=f"add --platform {item.platform.oci}",
            )
        if item.kind in (INDEX, INDEX_DESCRIPTOR) and len(platforms) == 1:
            raise UsageError(
                f"--annotation {item.key}: an image of one platform has no index",
                hint=f"write manifest:{item.key}, or build for several platforms",
            )


def annotate_images(
    images: ImageSet, platforms: Sequence[Platform], annotations: Sequence[Annotation]
) -> ImageSet:
    """Return *images*, whose manifests are for *platforms* in this order, with *annotations*."""
    if not annotations:
        return images
    manifests = tuple(
        _add(manifest, _select(annotations, MANIFEST, platform))
        for manifest, platform in zip(images.manifests, platforms, strict=True)
    )
    if len(manifests) == 1:
        about = _select(annotations, MANIFEST_DESCRIPTOR, platforms[0])
        return replace(images, top=manifests[0], manifests=manifests, annotations=about)
    index = json.loads(images.top.data)
    for entry, manifest, platform in zip(index["manifests"], manifests, platforms, strict=True):
        entry.update(manifest.descriptor)
        if about := _select(annotations, MANIFEST_DESCRIPTOR, platform):
            entry["annotations"] = about
    top = _add(encode_document(MEDIA_INDEX, index), _select(annotations, INDEX, None))
    about = _select(annotations, INDEX_DESCRIPTOR, None)
    return replace(images, top=top, manifests=manifests, annotations=about)


def _select(annotations: Iterable[Annotation], kind: str, platform: Platform | None) -> dict[str, str]:
    """Return keys and values of *kind* for *platform*: those of this platform alone replace those of all."""
    chosen = [item for item in annotations if item.kind == kind and item.platform in (None, platform)]
    chosen.sort(key=lambda item: item.platform is not None)
    return {item.key: item.value for item in chosen}


def _add(document: Document, annotations: Mapping[str, str]) -> Document:
    if not annotations:
        return document
    return encode_document(
        document.media_type, json.loads(document.data) | {"annotations": dict(annotations)}
    )
