# SPDX-License-Identifier: Apache-2.0
"""What every signer is, and the one way to take a signature from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from buildtool.core.errors import SigningKeyError
from buildtool.signing.keys import KeyId, PublicKey

SIGNATURE_BYTES = 64
DEFAULT_TIMEOUT_SECONDS = 60.0


class Signer(Protocol):
    """Something that holds an Ed25519 key, says which, and signs with it."""

    @property
    def key_id(self) -> KeyId:
        """The key id."""

    @property
    def public(self) -> PublicKey:
        """The public key; what it claims is proved by each signature."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature over *message*. Raises: a BuildtoolError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerContext:
    """
    What opening a signer may need.

    *environ* has variables and the agent's socket; *passphrase* is asked for
    the one of a file or token by its name, None when nobody knows; *public* is
    the public key's file of signers that cannot tell it; *timeout_seconds* is
    for one answer of an agent or a program. A key file older than *max_age_days*
    does not sign.
    """

    environ: Mapping[str, str] = field(repr=False)
    passphrase: Callable[[str], bytes | None] = field(default=lambda _: None, repr=False)
    public: Path | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    max_age_days: int | None = None


def take_signature(signer: Signer, message: bytes) -> bytes:
    """
    Let *signer* sign *message* and return the signature, which its public key verifies.

    Checked for every signer: a token may hold another key than it says, an
    agent may be an impostor, and a key file's signature made by faulty
    hardware would give the key away.

    Raises: SigningKeyError; what the signer raises.
    """
    signature = signer.sign(message)
    if len(signature) != SIGNATURE_BYTES:
        raise SigningKeyError(
            f"signer {signer.public.name}: a signature of {len(signature)} bytes, not {SIGNATURE_BYTES}",
            hint="the signer must write the raw Ed25519 signature: no base64, no DER",
        )
    if not signer.public.verifies(signature, message):
        raise SigningKeyError(
            f"signer {signer.public.name}: its signature is not by key {signer.key_id}",
            hint="compare --public with the signer's key: it must sign the bytes, not a digest of them",
        )
    return signature
