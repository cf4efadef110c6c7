# SPDX-License-Identifier: Apache-2.0
"""Load the base of a locally made image: layers, configuration, and the places of programs in its tree."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.errors import EngineError, ObjectFormatError
from buildtool.core.platforms import Platform
from buildtool.image.metadata import LOADER_PATH, TINI_PATH
from buildtool.oci.read import BlobSource, Descriptor, check_layer_type, find_image, read_blob, read_images
from buildtool.oci.tarreader import TAR_ERRORS, describe_tar_error, digest_unpacked
from buildtool.oci.tarwriter import TarEntry
from buildtool.oci.tree import Tree, read_tree, resolve_path
from buildtool.oci.write import MEDIA_LAYER, Layer, layer_bytes
from buildtool.runtime.baselayer import BASE_CONFIG
from buildtool.runtime.carried import Part

_FACTS = "bases"
# The version of cached facts about a base.
_FACTS_VERSION = 4
_PROGRAMS = (TINI_PATH, LOADER_PATH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """
    A base for one platform: *reference* for the label, *config* and *layers*.

    *places* maps the paths of tini and the loader to paths with resolved links. *directories* are
    the base's entries on these paths.
    """

    reference: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    places: Mapping[str, str]
    directories: Mapping[str, TarEntry]


def load_base(source: BlobSource, reference: str, platform: Platform, cache: Cache) -> Base:
    """
    Return the base for *platform* in *source*.

    Raises: EngineError, ObjectFormatError; errors of *source*.
    """
    image = find_image(read_images(source), platform, source.name)
    if (image.config.get("config") or {}).get("OnBuild"):
        raise EngineError(
            f"base image {source.name} has ONBUILD instructions, which only Docker follows",
            hint="build with --engine docker, or name another images.base",
        )
    pairs = zip(image.layers, image.diff_ids, strict=True)
    layers = tuple(_take_layer(source, layer, diff_id) for layer, diff_id in pairs)
    return _make_base(reference, image.config, layers, _cached_facts(source.name, layers, cache))


def carried_base(part: Part, reference: str, cache: Cache) -> Base:
    """
    Return the base of this installation, *part*.

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
    return _make_base(reference, config, (layer,), _cached_facts(str(part.path), (layer,), cache))


def _read_facts(layers: tuple[Layer, ...]) -> dict[str, Any]:
    """
    Return the places of programs in the tree of *layers*, and the directories there, as JSON values.

    Raises: ObjectFormatError, also if a layer does not have its diff_id.
    """
    for layer in layers:
        try:
            found = digest_unpacked(io.BytesIO(layer_bytes(layer)))
        except TAR_ERRORS as error:
            raise ObjectFormatError(f"a layer cannot be read: {describe_tar_error(error)}") from error
        if found != layer.diff_id:
            raise ObjectFormatError("a layer does not match its diff_id")
    tree = read_tree(io.BytesIO(layer_bytes(layer)) for layer in layers)
    places = {path: _find_place(tree, path) for path in _PROGRAMS}
    parents = {path for place in places.values() for path in _parents(place) if path in tree}
    directories = [
        {"path": path, "mode": found.mode, "uid": found.uid, "gid": found.gid, "mtime": found.mtime}
        for path, found in sorted(tree.items())
        if path in parents
    ]
    return {"places": places, "directories": directories}


def _cached_facts(name: str, layers: tuple[Layer, ...], cache: Cache) -> Mapping[str, Any]:
    about = " ".join(
        (str(_FACTS_VERSION), *_PROGRAMS, *(f"{layer.digest} {layer.diff_id}" for layer in layers))
    )
    key = hashlib.sha256(about.encode()).hexdigest()
    kept = cache.read(_FACTS, key)
    if kept is None:
        try:
            kept = json.dumps(_read_facts(layers)).encode()
        except ObjectFormatError as error:
            hint = error.hint or "get the image again, or name another one as images.base"
            raise ObjectFormatError(f"base image {name}: {error.message}", hint=hint) from error
        cache.write(_FACTS, key, kept)
    facts: dict[str, Any] = json.loads(kept)
    return facts


def _make_base(
    reference: str, config: Mapping[str, Any], layers: tuple[Layer, ...], facts: Mapping[str, Any]
) -> Base:
    return Base(
        reference=reference,
        config=config,
        layers=layers,
        places=facts["places"],
        directories={known["path"]: _directory(**known) for known in facts["directories"]},
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


def _find_place(tree: Tree, program: str) -> str:
    """Return the path to which COPY would write *program*. Raises: ObjectFormatError."""
    directory, _, name = program.rpartition("/")
    place = "/".join(filter(None, (resolve_path(tree, directory), name)))
    for path in _parents(place):
        if path in tree and not tree[path].is_directory:
            raise ObjectFormatError(f"/{path} is not a directory, so there is no place for {program}")
    if place in tree and not tree[place].is_file:
        raise ObjectFormatError(f"/{place}: not a regular file")
    return place


def _parents(path: str) -> list[str]:
    """Return the directories above *path*, the highest first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _directory(**facts: Any) -> TarEntry:
    return TarEntry(kind=tarfile.DIRTYPE, **facts)
