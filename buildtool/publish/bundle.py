# SPDX-License-Identifier: Apache-2.0
"""
Sigstore bundles v0.3 with a key instead of a certificate: a DSSE envelope about an image.

Sources: sigstore protobuf-specs, sigstore_bundle.proto; DSSE, protocol.md; in-toto Statement v1.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from buildtool.core.digests import Digest
from buildtool.core.strictjson import parse_json_object
from buildtool.oci.artifacts import encode
from buildtool.signing.dsse import PAYLOAD_TYPE, signing_input
from buildtool.signing.record import SIGNATURE_BYTES
from buildtool.signing.signers.signer import Signer, take_signature

MEDIA_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IMAGE_SIGNATURE = "https://sigstore.dev/cosign/sign/v1"  # the predicate of a signature without contents
MAX_SIGNATURES = 16  # of a bundle that are looked at
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_BUNDLE_BYTES = 16 * 1024 * 1024  # a bill of materials of thousands of packages


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a bundle holds: the bytes of its *statement*, unread, and the *signatures* over them."""

    statement: bytes
    signatures: tuple[bytes, ...]

    @property
    def message(self) -> bytes:
        """The bytes that were signed."""
        return signing_input(self.statement)


def image_subject(name: str, digest: Digest) -> dict[str, Any]:
    """Return the subject of a statement about the image *name* of *digest*."""
    return {"name": name, "digest": {"sha256": digest}}


def make_statement(
    subjects: Sequence[Mapping[str, Any]], predicate_type: str, predicate: Mapping[str, Any]
) -> bytes:
    """Return the in-toto statement that *predicate* holds for *subjects*."""
    return encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": [dict(subject) for subject in subjects],
            "predicateType": predicate_type,
            "predicate": dict(predicate),
        }
    )


def make_envelope(statement: bytes, signer: Signer) -> dict[str, Any]:
    """
    Return the DSSE envelope of *statement*, signed by *signer*.

    Raises: SigningKeyError; errors of *signer*.
    """
    signature = take_signature(signer, signing_input(statement))
    return {
        "payload": b64encode(statement).decode("ascii"),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": "", "sig": b64encode(signature).decode("ascii")}],
    }


def make_bundle(envelope: Mapping[str, Any], signer: Signer) -> bytes:
    """Return the bundle of *envelope* by *signer*. It names no transparency log, and needs no network."""
    hint = b64encode(bytes.fromhex(signer.key_id)).decode("ascii")
    material = {"publicKey": {"hint": hint}, "tlogEntries": []}
    fields = {"mediaType": MEDIA_BUNDLE, "verificationMaterial": material, "dsseEnvelope": dict(envelope)}
    return encode(fields)


def read_bundle(data: bytes) -> Bundle:
    """
    Return the contents of the bundle *data*. Nothing is verified.

    Raises: ValueError, whose text names the problem.
    """
    value = parse_json_object(data)
    if value.get("mediaType") != MEDIA_BUNDLE:
        raise ValueError(f"not a bundle of type {MEDIA_BUNDLE}")
    envelope = value.get("dsseEnvelope")
    if not isinstance(envelope, dict) or envelope.get("payloadType") != PAYLOAD_TYPE:
        raise ValueError("no envelope with an in-toto statement")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list):
        raise ValueError("no signatures")
    found = (_decode(each.get("sig")) for each in signatures[:MAX_SIGNATURES] if isinstance(each, dict))
    return Bundle(
        statement=_decode(envelope.get("payload")),
        signatures=tuple(signature for signature in found if len(signature) == SIGNATURE_BYTES),
    )


def read_subject(statement: bytes, predicate_type: str) -> str | None:
    """Return the digest, with sha256:, of the one subject of *statement*, if it has *predicate_type*."""
    try:
        value = parse_json_object(statement)
        (subject,) = value["subject"]
        digest = subject["digest"]["sha256"]
    except (KeyError, TypeError, ValueError):
        return None
    is_wanted = value.get("_type") == STATEMENT_TYPE and value.get("predicateType") == predicate_type
    return f"sha256:{digest}" if is_wanted and isinstance(digest, str) else None


def _decode(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("a member that is no base64 text")
    try:
        return a2b_base64(text.encode("ascii"), strict_mode=True)
    except (Error, UnicodeEncodeError) as error:
        raise ValueError("a member that is no base64 text") from error
