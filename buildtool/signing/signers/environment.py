# SPDX-License-Identifier: Apache-2.0
"""Signer `env:NAME`: PEM text in an environment variable, as CI systems hand out secrets."""

from __future__ import annotations

from collections.abc import Mapping

from buildtool.core.errors import SigningKeyError
from buildtool.signing.keys import SigningKey
from buildtool.signing.signers.file import load_pem
from buildtool.signing.signers.signer import SignerContext


def open_signer(name: str, context: SignerContext) -> SigningKey:
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
        raise SigningKeyError(f"signing key env:{name}: the variable is not set, or empty")
    return text.encode("utf-8", "surrogateescape")
