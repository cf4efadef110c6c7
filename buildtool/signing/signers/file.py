# SPDX-License-Identifier: Apache-2.0
"""
Signers of PEM text: `PATH`, a PKCS#8 file that only its owner can read, and `env:NAME`.

CI systems provide secrets in environment variables.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from buildtool.core.errors import SigningKeyError
from buildtool.core.secrecy import keep_out_of_core_dumps
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
    """Refuse a key file whose last change is more than *max_age_days* ago. Raises: SigningKeyError."""
    days = int((time.time() - path.stat().st_mtime) // _DAY_SECONDS)
    if days > max_age_days:
        raise SigningKeyError(
            f"signing key {path}: {days} days old, more than {max_age_days}",
            hint="buildtool keygen makes a new one; add it to trust stores before it signs",
        )


def load_pem(data: bytes, origin: str, context: SignerContext) -> SigningKey:
    """
    Return the key of PEM text *data* from *origin*. Only an encrypted key requests the passphrase.

    Raises: SigningKeyError.
    """
    passphrase = context.passphrase(origin) if is_encrypted(data) else None
    return load_signing_key_pem(data, origin, passphrase)


def open_variable(name: str, context: SignerContext) -> SigningKey:
    """
    Return the key whose PEM text is in variable *name*.

    Raises: SigningKeyError, without the text.
    """
    return load_pem(read_variable(name, context.environ), f"env:{name}", context)


_EMPTY_HINT = (
    "CI systems give no secrets to pull requests from forks: compile there, and build after the merge;"
    " without the variable, sign.key is used"
)


def read_variable(name: str, environ: Mapping[str, str]) -> bytes:
    """
    Return the text of variable *name*.

    Raises: SigningKeyError, if the variable is missing or empty.
    """
    keep_out_of_core_dumps()
    text = environ.get(name, "")
    if not text.strip():
        if name in environ:
            # The variable of a secret that a CI system does not give away. No other key must replace it.
            raise SigningKeyError(f"signing key env:{name}: the variable is empty", hint=_EMPTY_HINT)
        raise SigningKeyError(
            f"signing key env:{name}: the variable is not set",
            hint=f'{name}="$(cat release.pem)" for example: the text of the key file',
        )
    data = text.encode("utf-8", "surrogateescape")
    refuse_foreign(data, f"env:{name}")
    return data
