# SPDX-License-Identifier: Apache-2.0
"""Sign an image into a file: for an archive or a layout, and where a registry takes no signature."""

from __future__ import annotations

from pathlib import Path

from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.files import FORCE_REPLACES, staged_files
from buildtool.publish.bundle import (
    IMAGE_SIGNATURE,
    image_subject,
    make_bundle,
    make_envelope,
    make_statement,
)
from buildtool.publish.verify import open_target
from buildtool.signing.signers.signer import Signer


def write_bundle(target: str, path: Path, signer: Signer, *, force: bool = False) -> Digest:
    """
    Write the signature of image *target*, a reference, a layout or an archive, to *path*; return its digest.

    Raises: UsageError, RegistryError, ObjectFormatError, FileAccessError, SigningKeyError.
    """
    with open_target(target, Cache(directory=None)) as (source, _):
        digest = source.top().digest
        name = Path(source.name).name
    statement = make_statement([image_subject(name, digest)], IMAGE_SIGNATURE, {})
    data = make_bundle(make_envelope(statement, signer), signer)
    with staged_files([path], replace=force, hint=FORCE_REPLACES) as stage:
        stage.write(path, data)
    return digest
