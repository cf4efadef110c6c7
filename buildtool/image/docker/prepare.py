# SPDX-License-Identifier: Apache-2.0
"""
Prepare the builder image and the distroless base, for sites that cannot pull images.

Both are made from Debian packages, and loaded into the engine under fixed names. A comment in each
image contains the digest of the recipe. Images of an unchanged recipe are kept, others are replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform as host
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from buildtool.config.file import DEFAULT_BASE, DEFAULT_BUILDER, ImagesConfig
from buildtool.core.errors import FileAccessError, UsageError, system_reason
from buildtool.core.platforms import DEBIAN_13, Platform, find_platform, host_platform
from buildtool.core.process import Runner
from buildtool.core.strictjson import format_time
from buildtool.image.docker.client import find_engine_image, load_archive
from buildtool.oci.write import (
    ImageSet,
    Layer,
    file_layer,
    gzip_file_layer,
    make_image_set,
    write_archive,
)
from buildtool.runtime import debian
from buildtool.runtime.baselayer import (
    ACCOUNTS,
    BASE_CONFIG,
    BASE_DROPPED,
    EPOCH,
    GROUP,
    NSSWITCH,
    SEARCH_PATH,
    base_layer,
    tini_layer,
)
from buildtool.runtime.debian import Archive

BUILDER_IMAGE = "buildtool.local/builder:trixie"
BASE_IMAGE = "buildtool.local/base:trixie"
# The mark of prepared images, in their history: each image built on them would inherit a label.
COMMENT = re.compile(
    r"buildtool images prepare, recipe (?P<recipe>[0-9a-f]{64}) for (?P<platforms>[a-z0-9/ ]+)"
)
DEFAULT_SUITE = "trixie"
DEFAULT_ARCHITECTURES = ("amd64", "arm64")

# Increase this number when the same packages give other images.
RECIPE_VERSION = 3
LARGE_TEMPORARY = "/var/tmp"  # noqa: S108 - /tmp is often in memory; mkdtemp makes the names below it

# Level 6 needs twice the time and saves 3 percent.
_LEVEL = 3

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImages:
    """
    The prepared images in the engine or a registry: references and index digests of *builder* and *base*.

    *platforms* are the base's. *made* is true if this run made the images.
    """

    builder: str
    builder_digest: str
    base: str
    base_digest: str
    platforms: tuple[str, ...]
    recipe: str
    made: bool = False


def recipe_digest(suite: str) -> str:
    """Return the digest of all input of the images of *suite*, except the state of the archive."""
    recipe = {
        "version": RECIPE_VERSION,
        "suite": suite,
        "epoch": EPOCH,
        "builder": [*debian.BUILDER_PACKAGES, *debian.CROSS_PACKAGES, debian.LIBGCC_DEV.get(suite)],
        "base": [*debian.BASE_PACKAGES, *debian.BASE_PACKAGES_PER_ARCH, debian.TINI_PACKAGES[0]],
        "unused": [*debian.UNUSED, BASE_DROPPED.pattern],
        "files": [ACCOUNTS, GROUP, NSSWITCH, debian.PRECOMPILE],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def find_prepared(*, architectures: Sequence[str] = (), suite: str = DEFAULT_SUITE) -> PreparedImages | None:
    """
    Return the prepared images, or None if the engine lacks one for this recipe and all *architectures*.

    Raises: EngineError, if no engine answers.
    """
    found = [(name, find_engine_image(name)) for name in (BUILDER_IMAGE, BASE_IMAGE)]
    return match_recipe(
        [(name, image["Id"], image.get("Comment") or "") for name, image in found if image is not None],
        architectures,
        suite,
    )


def match_recipe(
    found: Sequence[tuple[str, str, str]], architectures: Sequence[str], suite: str
) -> PreparedImages | None:
    """
    Return the images of *found* (reference, digest and comment of builder and base), or None.

    The comments must name the recipe of *suite*, and that of the base all *architectures*.
    """
    marks = [COMMENT.fullmatch(comment) for *_, comment in found]
    recipe, wanted = recipe_digest(suite), {find_platform(name).oci for name in architectures}
    if len(found) < 2 or any(mark is None or mark["recipe"] != recipe for mark in marks):
        return None
    platforms = set(marks[1]["platforms"].split()) if marks[1] else set()
    (builder, builder_digest, _), (base, base_digest, _) = found
    if not wanted <= platforms:
        return None
    return PreparedImages(
        builder=builder,
        builder_digest=builder_digest,
        base=base,
        base_digest=base_digest,
        platforms=tuple(sorted(platforms)),
        recipe=recipe,
    )


class ImageStore(Protocol):
    """A place for prepared images: the engine, or a registry."""

    @property
    def name(self) -> str:
        """The place, in messages."""

    @property
    def is_remote(self) -> bool:
        """True if images travel over a network, and are compressed for that."""

    def names(self) -> tuple[str, str]:
        """Return the references of builder and base. Raises: UsageError."""

    def find(self, architectures: Sequence[str], suite: str) -> PreparedImages | None:
        """Return the images, or None."""

    def put(self, reference: str, images: ImageSet) -> None:
        """Store *images*."""


@dataclass(frozen=True, slots=True)
class EngineStore:
    """The store of the Docker engine."""

    name: str = "engine"
    is_remote: bool = False

    def names(self) -> tuple[str, str]:
        """Return the fixed names."""
        return BUILDER_IMAGE, BASE_IMAGE

    def find(self, architectures: Sequence[str], suite: str) -> PreparedImages | None:
        """Return `find_prepared`. Raises: EngineError."""
        return find_prepared(architectures=architectures, suite=suite)

    def put(self, reference: str, images: ImageSet) -> None:
        """Load *images*. Raises: EngineError, FileAccessError."""
        with _work_directory() as work:
            write_archive(work / "image.tar", images, reference)
            load_archive(work / "image.tar")


def choose_images(images: ImagesConfig, architectures: Sequence[str]) -> ImagesConfig:
    """
    Return *images* if the configuration names one, or the prepared images if the engine has them.

    Raises: EngineError, if no engine answers.
    """
    if (images.builder, images.base) != (DEFAULT_BUILDER, DEFAULT_BASE):
        return images
    found = find_prepared(architectures=architectures)
    return ImagesConfig(builder=found.builder, base=found.base) if found else images


def prepare_images(
    *,
    architectures: Sequence[str] = DEFAULT_ARCHITECTURES,
    suite: str = DEFAULT_SUITE,
    mirror: str | None = None,
    force: bool = False,
    store: ImageStore | None = None,
    report: Report = lambda _: None,
    runner: Runner | None = None,
) -> PreparedImages:
    """
    Make builder and base image for *architectures* in *store*, by default the engine, unless it has them.

    Raises: UsageError, ConfigError, ToolMissingError, ToolFailedError, FileAccessError; errors of *store*.
    """
    runner, store = runner or Runner(), store or EngineStore()
    platforms = _order_platforms(architectures)
    debian.check_options(suite, mirror)
    names = store.names()
    # With force, the result is not used, but a missing engine is reported before the slow part.
    prepared = store.find([p.arch for p in platforms], suite)
    if prepared is not None and not force:
        return prepared
    archive = debian.find_archive(suite, mirror)
    with _work_directory() as work:
        made = _make_images(archive, platforms, work, report, runner, compress=store.is_remote)
        report(f"store the images in the {store.name}")
        for reference, images in zip(names, made, strict=True):
            store.put(reference, images)
        builder, base = (f"sha256:{images.top.digest}" for images in made)
    return PreparedImages(
        builder=names[0],
        builder_digest=builder,
        base=names[1],
        base_digest=base,
        platforms=tuple(sorted(p.oci for p in platforms)),
        recipe=recipe_digest(suite),
        made=True,
    )


def _make_images(
    archive: Archive,
    platforms: Sequence[Platform],
    work: Path,
    report: Report,
    runner: Runner,
    *,
    compress: bool,
) -> tuple[ImageSet, ImageSet]:
    """Return builder and base. The files of large layers are in *work*."""
    debs = work / "debs"
    debs.mkdir()
    report(f"unpack Debian {archive.suite} packages ({', '.join(p.arch for p in platforms)})")
    debian.make_builder_tree(
        archive,
        [p.debian for p in platforms],
        tar=work / "root.tar",
        debs=debs,
        epoch=EPOCH,
        runner=runner,
        report=report,
    )
    report("assemble the images")
    packages = debian.read_packages(debs, runner)
    names = " ".join(sorted(p.oci for p in platforms))
    comment = f"buildtool images prepare, recipe {recipe_digest(archive.suite)} for {names}"
    tini = tini_layer(packages, platforms, runner)
    config = {"Env": [f"PATH={SEARCH_PATH}", "LANG=C.UTF-8"], "Cmd": ["/bin/sh"]}
    root = file_layer(work / "root.tar")
    root = gzip_file_layer(root, work / "root.tar.gz", _LEVEL) if compress else root
    builder = _make_images_of({platforms[0]: (root, tini)}, config, comment)
    layers = {platform: (base_layer(packages, platform, runner),) for platform in platforms}
    return builder, _make_images_of(layers, BASE_CONFIG, comment)


def _make_images_of(
    layers: Mapping[Platform, Sequence[Layer]], config: Mapping[str, Any], comment: str
) -> ImageSet:
    """Return the images with *layers* by platform, and with *comment* in the history."""
    created = format_time(EPOCH)
    step = {"created": created, "comment": comment}
    return make_image_set(
        [
            (platform, {"created": created, "history": [step] * len(own), "config": config}, own)
            for platform, own in layers.items()
        ]
    )


def _order_platforms(architectures: Sequence[str]) -> list[Platform]:
    """Return the platforms, first this machine's, whose programs run in the builder. Raises: UsageError."""
    own = host_platform(host.machine())
    if own is None:
        raise UsageError(f"images cannot be prepared on {host.machine()}")
    wanted = {find_platform(name).arch for name in architectures} - {own.arch}
    if missing := wanted - set(DEBIAN_13):
        raise UsageError(f"Debian 13 has no {missing.pop()}", hint="choose from " + ", ".join(DEBIAN_13))
    return [own, *(find_platform(arch) for arch in sorted(wanted))]


@contextmanager
def _work_directory() -> Iterator[Path]:
    parent = os.environ.get("TMPDIR") or LARGE_TEMPORARY
    try:
        with tempfile.TemporaryDirectory(prefix="buildtool-images-", dir=parent) as name:
            # Without root, mmdebstrap runs as a mapped user, who needs access to the directory.
            Path(name).chmod(0o755)
            yield Path(name)
    except OSError as error:
        raise FileAccessError(
            f"{parent}: cannot make temporary files: {system_reason(error)}",
            hint="let TMPDIR name a directory with 3 GB of room",
        ) from error
