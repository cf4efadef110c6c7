# SPDX-License-Identifier: Apache-2.0
"""The result of a build by either engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from buildtool.oci.write import ImageSet, full_name
from buildtool.signing.keys import KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherImage:
    """
    An image of another tool's *format* with the object called *name*, beside a runtime image.

    *reference*, *digest* (sha256:...) and *file* are as those of the runtime image.
    """

    format: str
    name: str
    reference: str
    digest: str
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """
    A built image: *reference* (tag), *digest* (sha256:...), *platforms*, *key_id*.

    *engine* is docker or local. *file* is the archive or directory of the image, or empty. Files
    that are no image have neither reference nor digest. *replaced* is the id of the engine's
    image that lost its name to this one, or empty. *signed*: the registry has signatures of the image.
    *tags* are all names. *metadata* is the content of --metadata-file. *others* are the images of other
    formats.
    """

    reference: str
    digest: str
    platforms: tuple[str, ...]
    key_id: KeyId
    engine: str = "docker"
    file: str = ""
    replaced: str = ""
    signed: bool = False
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    others: tuple[OtherImage, ...] = ()


def make_metadata(images: ImageSet, tags: Sequence[str]) -> dict[str, Any]:
    """Return what buildx's --metadata-file says of an image."""
    return {
        "containerimage.digest": f"sha256:{images.top.digest}",
        "containerimage.descriptor": images.top.descriptor,
        "image.name": ",".join(map(full_name, tags)),
    }
