# SPDX-License-Identifier: Apache-2.0
"""The protocol of signers, and the function that requests and checks a signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from buildtool.core.errors import SigningKeyError
from buildtool.signing.keys import KeyId, PublicKey
from buildtool.signing.record import SIGNATURE_BYTES

DEFAULT_TIMEOUT_SECONDS = 60.0


class Signer(Protocol):
    """The owner of an Ed25519 key, which signs messages with it."""

    @property
    def key_id(self) -> KeyId:
        """The key id."""

    @property
    def public(self) -> PublicKey:
        """The public key. `take_signature` checks each signature by it."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature over *message*. Raises: a BuildtoolError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerContext:
    """
    The input for opening a signer.

    *environ* holds variables, such as the agent's socket. *passphrase* returns the passphrase of a
    named file or token, or None. *public* is the file of the public key, for signers that cannot
    provide it. *timeout_seconds* bounds one answer of an agent or a program. A key file older than
    *max_age_days* is refused.
    """

    environ: Mapping[str, str] = field(repr=False)
    passphrase: Callable[[str], bytes | None] = field(default=lambda _: None, repr=False)
    public: Path | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    max_age_days: int | None = None


def take_signature(signer: Signer, message: bytes) -> bytes:
    """
    Return *signer*'s signature over *message*, verified by its public key.

    Each signature is verified for three reasons. A token may hold another key than it claims. An
    agent may be an impostor. A wrong signature from faulty hardware can reveal the private key.

    Raises: SigningKeyError; errors of *signer*.
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
