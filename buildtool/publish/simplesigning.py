# SPDX-License-Identifier: Apache-2.0
"""
Simple signing: a JSON payload that names an image's digest, and its signature beside it.

A manifest with the tag sha256-DIGEST.sig holds payloads as layers, each with its signature as annotation.

Source: cosign, specs/SIGNATURE_SPEC.md; containers/image, docs/containers-signature.5.md.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Mapping, Sequence
from typing import Any

from buildtool.core.digests import Digest
from buildtool.core.strictjson import parse_json_object
from buildtool.oci.artifacts import Blob, encode
from buildtool.oci.write import MEDIA_CONFIG
from buildtool.signing.record import SIGNATURE_BYTES

TAG_SUFFIX = ".sig"
MEDIA_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
MAX_PAYLOAD_BYTES = 64 * 1024
_TYPE = "cosign container image signature"


def make_payload(repository: str, digest: Digest) -> bytes:
    """Return the payload, the bytes to sign, for the image of *digest* in *repository* (HOST/NAME)."""
    critical = {
        "identity": {"docker-reference": repository},
        "image": {"docker-manifest-digest": f"sha256:{digest}"},
        "type": _TYPE,
    }
    return encode({"critical": critical, "optional": None})


def make_layer(payload: bytes, signature: bytes) -> Blob:
    """Return the layer with *payload*, and *signature* as its annotation."""
    annotations = {SIGNATURE: b64encode(signature).decode("ascii")}
    return Blob(media_type=MEDIA_PAYLOAD, data=payload, annotations=annotations)


def make_config(layers: Sequence[Mapping[str, Any]]) -> Blob:
    """Return the configuration that readers expect beside *layers*, as of an image without a platform."""
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    created = "0001-01-01T00:00:00Z"
    fields = {"architecture": "", "config": {}, "created": created, "os": "", "rootfs": rootfs}
    return Blob(media_type=MEDIA_CONFIG, data=encode(fields))


def read_signature(layer: Mapping[str, Any]) -> bytes | None:
    """Return the signature of *layer*, a descriptor, or None if it holds none of Ed25519's length."""
    annotations = layer.get("annotations")
    text = annotations.get(SIGNATURE) if isinstance(annotations, dict) else None
    if layer.get("mediaType") != MEDIA_PAYLOAD or not isinstance(text, str):
        return None
    try:
        signature = a2b_base64(text.encode("ascii"), strict_mode=True)
    except (Error, UnicodeEncodeError):
        return None
    return signature if len(signature) == SIGNATURE_BYTES else None


def read_digest(payload: bytes) -> str | None:
    """Return the digest, with sha256:, that *payload* names, or None if it is not about an image."""
    try:
        critical = parse_json_object(payload)["critical"]
        digest = critical["image"]["docker-manifest-digest"] if critical["type"] == _TYPE else None
    except (KeyError, TypeError, ValueError):
        return None
    return digest if isinstance(digest, str) else None
