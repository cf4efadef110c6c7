# SPDX-License-Identifier: Apache-2.0
"""Signer `PATH`: a PKCS#8 PEM file that only its owner can read."""

from __future__ import annotations

import time
from pathlib import Path

from buildtool.core.errors import SigningKeyError
from buildtool.signing.keys import SigningKey, is_encrypted, load_signing_key_pem, read_key_file
from buildtool.signing.signers.signer import SignerContext

_DAY_SECONDS = 24 * 60 * 60


def open_signer(path: Path, context: SignerContext) -> SigningKey:
    """
    Return the key of file *path*.

    Raises: SigningKeyError.
    """
    data = read_key_file(path)
    if context.max_age_days is not None:
        _check_age(path, context.max_age_days)
    return load_pem(data, str(path), context)


def _check_age(path: Path, max_age_days: int) -> None:
    """Refuse a key that should have been replaced; a file is as old as its last change."""
    days = int((time.time() - path.stat().st_mtime) // _DAY_SECONDS)
    if days > max_age_days:
        raise SigningKeyError(
            f"signing key {path}: {days} days old, more than {max_age_days}",
            hint="buildtool keygen makes a new one; add it to trust stores before it signs",
        )


def load_pem(data: bytes, origin: str, context: SignerContext) -> SigningKey:
    """
    Return the key of PEM text *data* from *origin*; the passphrase is asked for only when there is one.

    Raises: SigningKeyError.
    """
    passphrase = context.passphrase(origin) if is_encrypted(data) else None
    return load_signing_key_pem(data, origin, passphrase)
