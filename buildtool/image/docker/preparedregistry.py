# SPDX-License-Identifier: Apache-2.0
"""Prepared images in a registry, for builders that have no access to this machine's engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from buildtool.core.cache import Cache
from buildtool.core.errors import RegistryError
from buildtool.core.validate import check_names_registry, check_tag
from buildtool.image.docker.prepare import COMMENT, PreparedImages, match_recipe
from buildtool.oci.artifacts import read_manifest
from buildtool.oci.read import read_images
from buildtool.oci.registry import Client, check_registry, open_image, parse_reference, push_images
from buildtool.oci.write import ImageSet


@dataclass(frozen=True, slots=True)
class RegistryStore:
    """
    The registry and *repository* (REGISTRY/NAME) in which the images are NAME/builder and NAME/base.

    The tags are *suite*. *force* allows replacing images of another kind.
    """

    repository: str
    suite: str
    force: bool = False
    name: str = "registry"
    is_remote: bool = True

    def names(self) -> tuple[str, str]:
        """Return the references of builder and base. Raises: UsageError."""
        names = f"{self.repository}/builder:{self.suite}", f"{self.repository}/base:{self.suite}"
        for name in names:
            check_names_registry(name)
            check_tag(name)
        return names

    def find(self, architectures: Sequence[str], suite: str) -> PreparedImages | None:
        """
        Return the images, or None if the registry lacks one of this recipe.

        Raises: UsageError; RegistryError, also for an image of another kind.
        """
        found = []
        for reference in self.names():
            check_registry(reference)
            parsed = parse_reference(reference)
            client = Client(reference=parsed, actions="pull,push")
            if read_manifest(client, parsed.tag) is None:
                continue
            source = open_image(reference, Cache(directory=None))
            history = next(iter(read_images(source))).config.get("history") or [{}]
            comment = str(history[0].get("comment"))
            if COMMENT.fullmatch(comment) is None and not self.force:
                raise RegistryError(
                    f"{reference}: exists, and is not of images prepare",
                    hint="name another repository; --force replaces the image",
                )
            found.append((reference, f"sha256:{source.top().digest}", comment))
        return match_recipe(found, architectures, suite)

    def put(self, reference: str, images: ImageSet) -> None:
        """Push *images*. Raises: RegistryError, FileAccessError."""
        push_images(images, reference)
