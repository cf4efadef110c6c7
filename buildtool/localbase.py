# SPDX-License-Identifier: Apache-2.0
"""The base of a locally made image: its layers, its configuration, and where in its tree tini belongs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buildtool.baselayer import BASE_CONFIG
from buildtool.cache import Cache
from buildtool.errors import EngineError, ObjectFormatError
from buildtool.imageconfig import TINI_PATH
from buildtool.layers import TarEntry
from buildtool.loaders import Part
from buildtool.model import Digest
from buildtool.ocilayout import MEDIA_LAYER, Layer
from buildtool.ociread import BlobSource, Descriptor, check_layer_type, find_image, read_blob, read_images
from buildtool.ociwrite import layer_bytes
from buildtool.platforms import Platform
from buildtool.tartree import Tree, read_tree, resolve_path

_FACTS = "bases"
_FACTS_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """
    What an image stands on: *reference* for its label, *config* and *layers* of the platform.

    *tini* is where /sbin/tini is once links are followed, *parents* are the
    directories on the way there, as the base has them.
    """

    reference: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    tini: str
    parents: tuple[TarEntry, ...]


def load_base(source: BlobSource, reference: str, platform: Platform, cache: Cache) -> Base:
    """
    Return the base for *platform* out of *source*.

    Raises: EngineError, ObjectFormatError, and what *source* raises.
    """
    image = find_image(read_images(source), platform, source.name)
    if (image.config.get("config") or {}).get("OnBuild"):
        raise EngineError(f"base image {source.name} has ONBUILD instructions, which only Docker follows")
    pairs = zip(image.layers, image.diff_ids, strict=True)
    layers = tuple(_take_layer(source, layer, diff_id) for layer, diff_id in pairs)
    return _make_base(source.name, reference, image.config, layers, cache)


def carried_base(part: Part, reference: str, cache: Cache) -> Base:
    """
    Return the base that this installation carries as *part*.

    Raises: ObjectFormatError.
    """
    layer = Layer(
        media_type=f"{MEDIA_LAYER}+gzip",
        digest=part.sha256,
        diff_id=Digest(str(part.record["diff_id"]).removeprefix("sha256:")),
        size=len(part.data),
        data=part.data,
    )
    config = {"config": BASE_CONFIG, "history": [{"comment": "base of buildtool"}]}
    return _make_base(str(part.path), reference, config, (layer,), cache)


def _make_base(
    name: str, reference: str, config: Mapping[str, Any], layers: tuple[Layer, ...], cache: Cache
) -> Base:
    about = " ".join(
        (str(_FACTS_VERSION), TINI_PATH, *(f"{layer.digest} {layer.diff_id}" for layer in layers))
    )
    key = hashlib.sha256(about.encode()).hexdigest()
    kept = cache.read(_FACTS, key)
    if kept is None:
        try:
            kept = _look_into(layers)
        except ObjectFormatError as error:
            raise ObjectFormatError(f"base image {name}: {error.message}", hint=error.hint) from error
        cache.write(_FACTS, key, kept)
    facts = json.loads(kept)
    return Base(
        reference=reference,
        config=config,
        layers=layers,
        tini=facts["tini"],
        parents=tuple(_directory(**parent) for parent in facts["parents"]),
    )


def _take_layer(source: BlobSource, layer: Descriptor, diff_id: str) -> Layer:
    check_layer_type(source.name, layer)
    zipped = layer.media_type.endswith("gzip")
    return Layer(
        media_type=f"{MEDIA_LAYER}+gzip" if zipped else MEDIA_LAYER,
        digest=layer.digest,
        diff_id=Digest(diff_id.removeprefix("sha256:")),
        size=layer.size,
        data=read_blob(source, layer),
    )


def _look_into(layers: tuple[Layer, ...]) -> bytes:
    """Read the layers once, to know that they are what the configuration says and where /sbin leads."""
    for layer in layers:
        try:
            stored = io.BytesIO(layer_bytes(layer))
            with gzip.open(stored) if layer.media_type.endswith("gzip") else stored as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, EOFError, zlib.error) as error:
            raise ObjectFormatError(f"a layer cannot be read: {error}") from error
        if found != layer.diff_id:
            raise ObjectFormatError("a layer is not what the configuration says")
    tree = read_tree(io.BytesIO(layer_bytes(layer)) for layer in layers)
    tini = _place_of_tini(tree)
    parents = [tree[path] for path in _parents(tini) if path in tree]
    facts = [
        {"path": entry.path, "mode": entry.mode, "uid": entry.uid, "gid": entry.gid, "mtime": entry.mtime}
        for entry in parents
    ]
    return json.dumps({"tini": tini, "parents": facts}).encode()


def _place_of_tini(tree: Tree) -> str:
    directory, _, name = TINI_PATH.rpartition("/")
    place = "/".join(filter(None, (resolve_path(tree, directory), name)))
    for path in _parents(place):
        if path in tree and not tree[path].is_directory:
            raise ObjectFormatError(f"/{path} is not a directory, so there is no place for tini")
    if place in tree and not tree[place].is_file:
        raise ObjectFormatError(f"/{place} is there and is not a file")
    return place


def _parents(path: str) -> list[str]:
    """Return the directories above *path*, the highest first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _directory(**facts: Any) -> TarEntry:
    return TarEntry(kind=tarfile.DIRTYPE, **facts)
