# SPDX-License-Identifier: Apache-2.0
"""
Signers of PEM text: `PATH`, a PKCS#8 file that only its owner can read, and `env:NAME`.

CI systems hand out secrets as environment variables.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from buildtool.core.errors import SigningKeyError
from buildtool.signing.keys import (
    SigningKey,
    is_encrypted,
    load_signing_key_pem,
    read_key_file,
    refuse_foreign,
)
from buildtool.signing.signers.signer import SignerContext

_DAY_SECONDS = 24 * 60 * 60


def open_file(path: Path, context: SignerContext) -> SigningKey:
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


def open_variable(name: str, context: SignerContext) -> SigningKey:
    """
    Return the key whose PEM text variable *name* holds; no message shows the text.

    Raises: SigningKeyError.
    """
    return load_pem(read_variable(name, context.environ), f"env:{name}", context)


def read_variable(name: str, environ: Mapping[str, str]) -> bytes:
    """
    Return the text of variable *name*.

    Raises: SigningKeyError.
    """
    text = environ.get(name, "")
    if not text.strip():
        raise SigningKeyError(
            f"signing key env:{name}: the variable is not set, or empty",
            hint=f'{name}="$(cat release.pem)" for example: the text of the key file',
        )
    data = text.encode("utf-8", "surrogateescape")
    refuse_foreign(data, f"env:{name}")
    return data
