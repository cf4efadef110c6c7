# SPDX-License-Identifier: Apache-2.0
"""
Assemble the image of the Dockerfile without a Docker engine.

Layers, their order and all headers are those that BuildKit makes from templates/Dockerfile.j2, so
that files and diff_ids are the same. Change both together. tests/docker compares them.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from buildtool.config.file import Config
from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.platforms import Platform
from buildtool.image.archive import ARCHIVE_EPOCH
from buildtool.image.kerneltypes import types_entries
from buildtool.image.local.baseimage import Base
from buildtool.image.metadata import (
    LOADER_PATH,
    OBJECTS_DIRECTORY,
    PINS_PATH,
    TINI_PATH,
    TRUST_DIRECTORY,
    TYPES_DIRECTORY,
    image_entrypoint,
    image_labels,
)
from buildtool.objects.capabilities import FILE_ATTRIBUTE, file_attribute, program_capabilities
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.write import MEDIA_LAYER, ImageSet, Layer, gzip_layer, make_image_set
from buildtool.runtime.baselayer import EPOCH
from buildtool.signing.keys import KeyId

_LAYERS = "layers"
# Level 6 needs a third more time and saves half a percent.
_LEVEL = 5
_PROGRAM_MODE = 0o755
# The layers over the base, from the bottom.
_STEPS = ("tini", "verify-and-load", "trust store", "objects")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformParts:
    """
    The parts of one platform's image: *base*, *loader*, *tini*, and signed *objects* by name.

    *tool* is ebpf-pins if image.tools is true, otherwise None.
    """

    platform: Platform
    base: Base
    loader: bytes
    tini: bytes
    tool: bytes | None = None
    objects: Mapping[str, bytes]
    types: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageText:
    """
    The common input of all platforms: *key_id*, files of the *trust* store, *epoch*, *capabilities*.

    *labels* replace those of the configuration.
    """

    key_id: KeyId
    trust: Mapping[str, str]
    epoch: int
    capabilities: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


def assemble_images(
    config: Config, parts: Sequence[PlatformParts], text: ImageText, *, cache: Cache
) -> ImageSet:
    """
    Return the images of *parts* with the common input *text*.

    Raises: ConfigError, UsageError.
    """
    epoch = text.epoch
    trust = _pack(
        _add_files(TRUST_DIRECTORY, {name: value.encode() for name, value in text.trust.items()}, epoch),
        cache,
    )
    images = []
    # zlib releases Python's global lock, so threads compress in parallel.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        packed = [
            [
                pool.submit(_pack, entries, cache)
                for entries in (
                    _tini_entries(config, part, text),
                    _loader_entries(config, part, text),
                    _add_files(OBJECTS_DIRECTORY, part.objects, epoch),
                    *([_types_entries(part, epoch)] if part.types else ()),
                )
            ]
            for part in parts
        ]
        for part, pending in zip(parts, packed, strict=True):
            tini, loader, *rest = (item.result() for item in pending)
            layers = [*part.base.layers, tini, loader, trust, *rest]
            images.append((part.platform, _settings(config, part.base, text), layers))
    return make_image_set(images)


def _loader_entries(config: Config, part: PlatformParts, text: ImageText) -> list[TarEntry]:
    *way, loader = _add_program(part.base, LOADER_PATH, part.loader, text.epoch)
    programs = [loader]
    if part.tool is not None:
        path = loader.path.rpartition("/")[0] + "/" + PINS_PATH.rpartition("/")[2]
        programs.insert(0, replace(loader, path=path, data=part.tool))
    if config.image.grants_capabilities:
        programs = [_grant(program, text.capabilities) for program in programs]
    return [*way, *programs]


def _grant(program: TarEntry, capabilities: Iterable[str]) -> TarEntry:
    """Return *program* with those of the image's *capabilities* that its file gets."""
    granted = program_capabilities(program.path.rpartition("/")[2], capabilities)
    return replace(program, xattrs={FILE_ATTRIBUTE: file_attribute(granted)}) if granted else program


def _types_entries(part: PlatformParts, epoch: int) -> list[TarEntry]:
    # COPY keeps a file's time, and in the archive of the other engine a file has the time ARCHIVE_EPOCH.
    directories = _add_files(TYPES_DIRECTORY, {}, epoch)
    return [*directories, *types_entries(part.types, min(ARCHIVE_EPOCH, epoch))]


def _tini_entries(config: Config, part: PlatformParts, text: ImageText) -> list[TarEntry]:
    *way, tini = _add_program(part.base, TINI_PATH, part.tini, text.epoch)
    if config.image.grants_capabilities:
        return [*way, _grant(tini, text.capabilities)]
    # COPY keeps a file's time, and in the builder image tini has the time EPOCH.
    return [*way, replace(tini, mtime=min(EPOCH, text.epoch))]


def _add_program(base: Base, path: str, data: bytes, epoch: int) -> list[TarEntry]:
    """Return a program at *path*, with links of *base* resolved, after its directories as in *base*."""
    *way, directory, file = _add_file(base.places[path], data, epoch, _PROGRAM_MODE)
    entries = []
    for entry in (*way, directory):
        known = base.directories.get(entry.path, entry)
        # The new file changes the time of its directory.
        mtime = epoch if entry is directory else min(known.mtime, epoch)
        entries.append(replace(entry, mode=known.mode, uid=known.uid, gid=known.gid, mtime=mtime))
    return [*entries, file]


def _add_file(path: str, data: bytes, epoch: int, mode: int = 0o644) -> list[TarEntry]:
    directory, _, name = path.strip("/").rpartition("/")
    return _add_files(directory, {name: data}, epoch, mode)


def _add_files(directory: str, files: Mapping[str, bytes], epoch: int, mode: int = 0o644) -> list[TarEntry]:
    """Return entries for *files* in *directory*, after its parent directories and itself."""
    steps = directory.strip("/").split("/")
    entries = [
        TarEntry(path="/".join(steps[: end + 1]), kind=tarfile.DIRTYPE, mode=0o755, mtime=epoch)
        for end in range(len(steps))
    ]
    for name, data in sorted(files.items()):
        entries.append(TarEntry(path="/".join((*steps, name)), mode=mode, mtime=epoch, data=data))
    return entries


def _pack(entries: Sequence[TarEntry], cache: Cache) -> Layer:
    """Return the layer of *entries*, cached: compressing the loader is the slowest part of a build."""
    tar = pack_tar(entries)
    diff_id = Digest(hashlib.sha256(tar).hexdigest())
    # The key contains the version of zlib, because another version may give other bytes.
    key = hashlib.sha256(f"{_LEVEL} {zlib.ZLIB_RUNTIME_VERSION} {diff_id}".encode()).hexdigest()
    kept = cache.read(_LAYERS, key)
    if kept is None:
        layer = gzip_layer(tar, _LEVEL)
        assert layer.data is not None
        cache.write(_LAYERS, key, layer.data)
        return layer
    digest = Digest(hashlib.sha256(kept).hexdigest())
    return Layer(media_type=f"{MEDIA_LAYER}+gzip", digest=digest, diff_id=diff_id, size=len(kept), data=kept)


def _settings(config: Config, base: Base, text: ImageText) -> dict[str, Any]:
    """Return the image's configuration without rootfs: the base's, changed as by the Dockerfile."""
    created = datetime.fromtimestamp(text.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    run: dict[str, Any] = {**(base.config.get("config") or {})}
    run.pop("Cmd", None)  # the base's arguments belong to another entrypoint
    ours = image_labels(config, text.key_id, base.reference, text.capabilities)
    labels = {**(run.get("Labels") or {}), **dict(ours), **text.labels}
    run |= {"User": config.image.user, "Entrypoint": image_entrypoint(config), "Labels": labels}
    if config.image.healthcheck:
        run["Healthcheck"] = {"Test": ["CMD", *config.image.healthcheck]}
    history = [{"created": created, "created_by": f"buildtool build: {name}"} for name in _STEPS]
    return {
        "created": created,
        "config": run,
        "history": [*_layer_history(base), *history],
    }


def _layer_history(base: Base) -> list[Any]:
    """Return the base's history if it covers all layers. Engines refuse an incomplete history."""
    history = base.config.get("history") or []
    told = sum(1 for entry in history if isinstance(entry, dict) and not entry.get("empty_layer"))
    return list(history) if told == len(base.layers) else [{"comment": "base image"} for _ in base.layers]
