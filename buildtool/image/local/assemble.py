# SPDX-License-Identifier: Apache-2.0
"""
The embedded engine: the image of the Dockerfile without a Docker engine.

Layers, their order and every header are those that BuildKit makes of
templates/Dockerfile.j2, so that the files and the diff_ids are the same. What
changes there has to change here; tests/docker compares the two.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from buildtool.config.file import Config
from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.platforms import Platform
from buildtool.image.local.baseimage import Base
from buildtool.image.metadata import (
    LOADER_PATH,
    OBJECTS_DIRECTORY,
    PINS_PATH,
    TINI_PATH,
    TRUST_DIRECTORY,
    image_entrypoint,
    image_labels,
)
from buildtool.objects.capabilities import FILE_ATTRIBUTE, file_attribute, program_capabilities
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.write import MEDIA_LAYER, ImageSet, Layer, gzip_layer, make_image_set
from buildtool.runtime.baselayer import EPOCH
from buildtool.signing.keys import KeyId

_LAYERS = "layers"
# One more takes a third longer for half a percent.
_LEVEL = 5
_PROGRAM_MODE = 0o755
# The layers over the base, from the bottom.
_STEPS = ("tini", "verify-and-load", "trust store", "objects")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformParts:
    """
    What one platform's image is made of: its *base*, *loader* and *tini*, and signed *objects* by name.

    *tool* is ebpf-pins, for an image with image.tools.
    """

    platform: Platform
    base: Base
    loader: bytes
    tini: bytes
    tool: bytes | None = None
    objects: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageText:
    """What all platforms' images say: *key_id*, files of the *trust* store, time *epoch*, *capabilities*."""

    key_id: KeyId
    trust: Mapping[str, str]
    epoch: int
    capabilities: tuple[str, ...]


def assemble_images(
    config: Config, parts: Sequence[PlatformParts], text: ImageText, *, cache: Cache
) -> ImageSet:
    """
    Return the images of *parts*, which say *text*.

    Raises: ConfigError, UsageError.
    """
    epoch = text.epoch
    trust = _pack(
        _add_files(TRUST_DIRECTORY, {name: value.encode() for name, value in text.trust.items()}, epoch),
        cache,
    )
    images = []
    # zlib lets the other threads run while it compresses.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        packed = [
            [
                pool.submit(_pack, entries, cache)
                for entries in (
                    _tini_entries(part, epoch),
                    _loader_entries(config, part, text),
                    _add_files(OBJECTS_DIRECTORY, part.objects, epoch),
                )
            ]
            for part in parts
        ]
        for part, pending in zip(parts, packed, strict=True):
            tini, loader, objects = (item.result() for item in pending)
            layers = [*part.base.layers, tini, loader, trust, objects]
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
    """Return *program* with what its file gets of the image's *capabilities*."""
    granted = program_capabilities(program.path.rpartition("/")[2], capabilities)
    return replace(program, xattrs={FILE_ATTRIBUTE: file_attribute(granted)}) if granted else program


def _tini_entries(part: PlatformParts, epoch: int) -> list[TarEntry]:
    *way, tini = _add_program(part.base, TINI_PATH, part.tini, epoch)
    # COPY keeps a file's time; in the builder image tini has that of its recipe.
    return [*way, replace(tini, mtime=min(EPOCH, epoch))]


def _add_program(base: Base, path: str, data: bytes, epoch: int) -> list[TarEntry]:
    """Put a program where *path* leads in *base*; directories on the way stay as the base has them."""
    *way, directory, file = _add_file(base.places[path], data, epoch, _PROGRAM_MODE)
    entries = []
    for entry in (*way, directory):
        known = base.directories.get(entry.path, entry)
        # The last directory gets a new file, and with it a new time.
        mtime = epoch if entry is directory else min(known.mtime, epoch)
        entries.append(replace(entry, mode=known.mode, uid=known.uid, gid=known.gid, mtime=mtime))
    return [*entries, file]


def _add_file(path: str, data: bytes, epoch: int, mode: int = 0o644) -> list[TarEntry]:
    directory, _, name = path.strip("/").rpartition("/")
    return _add_files(directory, {name: data}, epoch, mode)


def _add_files(directory: str, files: Mapping[str, bytes], epoch: int, mode: int = 0o644) -> list[TarEntry]:
    """Return *files* of *directory*, after the directories on the way to it."""
    steps = directory.strip("/").split("/")
    entries = [
        TarEntry(path="/".join(steps[: end + 1]), kind=tarfile.DIRTYPE, mode=0o755, mtime=epoch)
        for end in range(len(steps))
    ]
    for name, data in sorted(files.items()):
        entries.append(TarEntry(path="/".join((*steps, name)), mode=mode, mtime=epoch, data=data))
    return entries


def _pack(entries: Sequence[TarEntry], cache: Cache) -> Layer:
    """Return the layer of *entries*; compressing the loader takes longer than all else of a build."""
    tar = pack_tar(entries)
    diff_id = Digest(hashlib.sha256(tar).hexdigest())
    # Another zlib may give other bytes: what is kept must be what this one would give.
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
    """Return the image's configuration without rootfs: the base's, with what the Dockerfile says over it."""
    created = datetime.fromtimestamp(text.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    run: dict[str, Any] = {**(base.config.get("config") or {})}
    run.pop("Cmd", None)  # those are arguments of another entrypoint
    ours = image_labels(config, text.key_id, base.reference, text.capabilities)
    labels = {**(run.get("Labels") or {}), **dict(ours)}
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
    """Return the base's history if it tells of all of its layers; half of it would not be taken."""
    history = base.config.get("history") or []
    told = sum(1 for entry in history if isinstance(entry, dict) and not entry.get("empty_layer"))
    return list(history) if told == len(base.layers) else [{"comment": "base image"} for _ in base.layers]
