# SPDX-License-Identifier: Apache-2.0
"""Signer `PATH`: a PKCS#8 PEM file that only its owner can read."""

from __future__ import annotations

from pathlib import Path

from buildtool.keys import SigningKey, is_encrypted, load_signing_key_pem, read_key_file
from buildtool.signers.signer import SignerContext


def open_signer(path: Path, context: SignerContext) -> SigningKey:
    """
    Return the key of file *path*.

    Raises: SigningKeyError.
    """
    return load_pem(read_key_file(path), str(path), context)


def load_pem(data: bytes, origin: str, context: SignerContext) -> SigningKey:
    """
    Return the key of PEM text *data* from *origin*; the passphrase is asked for only when there is one.

    Raises: SigningKeyError.
    """
    passphrase = context.passphrase(origin) if is_encrypted(data) else None
    return load_signing_key_pem(data, origin, passphrase)
