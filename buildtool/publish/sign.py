# SPDX-License-Identifier: Apache-2.0
"""
Sign an image in a registry: its index and the manifest of every platform.

Ed25519 signatures of the same bytes are equal, so what is there already is recognised and left, and a run
that failed halfway is finished by another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from buildtool.core.digests import Digest, parse_digest
from buildtool.core.errors import RegistryError
from buildtool.oci.artifacts import (
    Blob,
    fetch_blob,
    find_referrers,
    push_artifact,
    push_referrer,
    read_layers,
    read_manifest,
    tag_of,
)
from buildtool.oci.read import DOCUMENT_ERRORS, MAX_JSON_BYTES
from buildtool.oci.registry import Client, parse_reference
from buildtool.oci.write import MEDIA_CONFIG, MEDIA_INDEX, MEDIA_MANIFEST
from buildtool.publish.bpfman import is_bytecode
from buildtool.publish.bundle import (
    IMAGE_SIGNATURE,
    MAX_BUNDLE_BYTES,
    MEDIA_BUNDLE,
    Bundle,
    image_subject,
    make_bundle,
    make_envelope,
    make_statement,
    read_bundle,
)
from buildtool.publish.simplesigning import (
    MAX_PAYLOAD_BYTES,
    TAG_SUFFIX,
    make_config,
    make_layer,
    make_payload,
    read_signature,
)
from buildtool.signing.keys import KeyId
from buildtool.signing.signers.signer import Signer, take_signature

_INDEXES = (MEDIA_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
_CONFIGS = (MEDIA_CONFIG, "application/vnd.docker.container.image.v1+json")
_MANIFESTS = (MEDIA_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedImage:
    """
    A signed image: its *repository* (HOST/NAME) and *digest*, of the index if there is one.

    *digests* are all that were signed by *key_id*. *written* counts signatures that were not there before.
    """

    repository: str
    digest: Digest
    digests: tuple[Digest, ...]
    key_id: KeyId
    written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A manifest to sign: its *descriptor* and *digest*."""

    descriptor: Mapping[str, Any]
    digest: Digest


def sign_image(reference: str, signer: Signer) -> SignedImage:
    """
    Sign the image that *reference* names now, and return what was signed.

    A bytecode image of bpfman gets no payload in a tag .sig. By default, bpfman accepts an image without
    such a tag, but none with the signature of a key alone, because that has no certificate.

    Raises: UsageError, RegistryError, SigningKeyError; errors of *signer*.
    """
    parsed = parse_reference(reference)
    client = Client(reference=parsed, actions="pull,push")
    targets = list(signed_manifests(client))
    repository = f"{parsed.host}/{parsed.repository}"
    has_payloads = not _is_of_bpfman(client, targets[-1])
    written = 0
    for target in targets:
        subject = image_subject(repository, target.digest)
        statement = make_statement([subject], IMAGE_SIGNATURE, {})
        if has_payloads:
            written += _write_payload(client, repository, target, signer)
        written += write_statement(client, target, statement, IMAGE_SIGNATURE, signer)
    return SignedImage(
        repository=repository,
        digest=targets[0].digest,
        digests=tuple(target.digest for target in targets),
        key_id=signer.key_id,
        written=written,
    )


def signed_manifests(client: Client) -> Iterator[Target]:
    """
    Yield the image that the client's reference names, then the manifest of each of its platforms.

    Raises: RegistryError.
    """
    parsed = client.reference
    name = f"sha256:{parsed.digest}" if parsed.digest else parsed.tag
    # By digest, so that a tag that moves meanwhile changes nothing.
    answer = client.expect(
        "GET", f"manifests/{name}", 200, str(parsed), headers={"Accept": ", ".join((*_INDEXES, *_MANIFESTS))}
    )
    kind = answer.headers.get("Content-Type", "").partition(";")[0]
    blob = Blob(media_type=kind, data=answer.body)
    if parsed.digest and blob.digest != parsed.digest:
        raise RegistryError(f"registry {parsed.host}: {parsed}: the digest of the answer does not match")
    if kind not in (*_INDEXES, *_MANIFESTS):
        raise RegistryError(
            f"registry {parsed.host}: {parsed}: not an image, but {kind[:80]!r}",
            hint="name an image or an index of images",
        )
    yield Target(descriptor=blob.descriptor, digest=blob.digest)
    if kind not in _INDEXES:
        return
    try:
        entries = [entry for entry in json.loads(blob.data)["manifests"] if entry["mediaType"] in _MANIFESTS]
        targets = [_target(entry) for entry in entries]
    except DOCUMENT_ERRORS as error:
        raise RegistryError(f"registry {parsed.host}: {parsed}: not an index of images") from error
    yield from targets


def _is_of_bpfman(client: Client, target: Target) -> bool:
    """Return whether *target*, the manifest of one platform, is a bytecode image. Raises: RegistryError."""
    found = read_manifest(client, f"sha256:{target.digest}")
    about = found[1].get("config") if found else None
    # Inspektor Gadget's configurations are no JSON.
    if not isinstance(about, dict) or about.get("mediaType") not in _CONFIGS:
        return False
    data = fetch_blob(client, about, MAX_JSON_BYTES)
    try:
        labels = json.loads(data or b"{}")["config"]["Labels"]
        return is_bytecode(labels or {})
    except DOCUMENT_ERRORS:
        return False


def _target(entry: Mapping[str, Any]) -> Target:
    """Return the manifest of *entry*. Raises: ValueError, KeyError, TypeError."""
    descriptor = {name: entry[name] for name in ("mediaType", "digest", "size")}
    # The digest becomes a part of addresses.
    return Target(descriptor=descriptor, digest=parse_digest(entry["digest"]))


def _write_payload(client: Client, repository: str, target: Target, signer: Signer) -> bool:
    """Add the signer's payload to the manifest of payloads. Return False if it was there."""
    payload = make_payload(repository, target.digest)
    signature = take_signature(signer, payload)
    layer = make_layer(payload, signature)
    tag = tag_of(target.digest, TAG_SUFFIX)
    kept = read_layers(client, tag)
    for each in kept:
        known = read_signature(each)
        body = fetch_blob(client, each, MAX_PAYLOAD_BYTES) if known else None
        if known and body and signer.public.verifies(known, body) and body == payload:
            return False
    config = make_config([*kept, layer.descriptor])
    push_artifact(client, tag, [layer], config, kept=kept)
    return True


def write_statement(
    client: Client, target: Target, statement: bytes, predicate_type: str, signer: Signer
) -> bool:
    """
    Add the signer's bundle of *statement* as a referrer of *target*. Return False if it was there.

    Raises: RegistryError, SigningKeyError; errors of *signer*.
    """
    for bundle in read_bundles(client, target.digest):
        if bundle.statement == statement and any(
            signer.public.verifies(each, bundle.message) for each in bundle.signatures
        ):
            return False
    data = make_bundle(make_envelope(statement, signer), signer)
    about = {"content": "dsse-envelope", "predicateType": predicate_type}
    annotations = {f"dev.sigstore.bundle.{name}": value for name, value in about.items()}
    push_referrer(client, target.descriptor, Blob(media_type=MEDIA_BUNDLE, data=data), annotations)
    return True


def read_bundles(client: Client, digest: Digest) -> Iterator[Bundle]:
    """
    Yield the bundles that refer to the image of *digest*, unverified. What cannot be read is left out.

    Raises: RegistryError.
    """
    for layers in find_referrers(client, digest, MEDIA_BUNDLE):
        for layer in layers[:1]:  # a bundle has one
            data = fetch_blob(client, layer, MAX_BUNDLE_BYTES)
            if data is None:
                continue
            try:
                yield read_bundle(data)
            except ValueError:
                continue
