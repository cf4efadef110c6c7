# SPDX-License-Identifier: Apache-2.0
"""
Attach bill of materials and provenance to an image in its registry, each signed.

A document is written twice: as a bundle that refers to the image, and in the tag sha256-DIGEST.att, which
cosign 2 reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from buildtool.core.cache import Cache
from buildtool.oci.artifacts import Blob, encode, push_artifact, read_layers, tag_of
from buildtool.oci.registry import Client, open_image, parse_reference
from buildtool.publish.bundle import image_subject, make_envelope, make_statement
from buildtool.publish.inventory import Inventory, list_image
from buildtool.publish.named import PREDICATE_TYPE
from buildtool.publish.provenance import BuildFacts, make_predicate, subjects
from buildtool.publish.sbom import PREDICATES, write_sbom
from buildtool.publish.sign import Target, signed_manifests, write_statement
from buildtool.publish.simplesigning import SIGNATURE, make_config
from buildtool.signing.signers.signer import Signer

TAG_SUFFIX = ".att"
MEDIA_ENVELOPE = "application/vnd.dsse.envelope.v1+json"


def attest_image(
    reference: str,
    signer: Signer,
    cache: Cache,
    *,
    sbom: str,
    provenance: bool,
    facts: BuildFacts | None = None,
) -> tuple[str, ...]:
    """
    Attach the documents that are asked for to the image of *reference*, and return their predicate types.

    *sbom* is a format, or empty. What is there already stays.

    Raises: UsageError, RegistryError, ObjectFormatError, ToolMissingError, SigningKeyError.
    """
    parsed = parse_reference(reference)
    client = Client(reference=parsed, actions="pull,push")
    target = next(signed_manifests(client))
    repository = f"{parsed.host}/{parsed.repository}"
    inventory = list_image(open_image(f"{repository}@sha256:{target.digest}", cache), repository)
    written = []
    for kind, statement in _statements(inventory, sbom=sbom, provenance=provenance, facts=facts):
        write_statement(client, target, statement, kind, signer)
        _write_envelope(client, target, statement, kind, signer)
        written.append(kind)
    return tuple(written)


def _statements(
    inventory: Inventory, *, sbom: str, provenance: bool, facts: BuildFacts | None
) -> Iterator[tuple[str, bytes]]:
    if sbom:
        predicate: Mapping[str, Any] = json.loads(write_sbom(inventory, sbom))
        subject = [image_subject(inventory.name, inventory.digest)]
        yield PREDICATES[sbom], make_statement(subject, PREDICATES[sbom], predicate)
    if provenance:
        made = make_predicate(inventory, facts)
        yield PREDICATE_TYPE, make_statement(subjects(inventory), PREDICATE_TYPE, made)


def _write_envelope(
    client: Client, target: Target, statement: bytes, predicate_type: str, signer: Signer
) -> None:
    """Add the envelope of *statement* to the manifest of attestations, unless it is there."""
    envelope = encode(make_envelope(statement, signer))
    layer = Blob(
        media_type=MEDIA_ENVELOPE,
        data=envelope,
        annotations={SIGNATURE: "", "predicateType": predicate_type},
    )
    tag = tag_of(target.digest, TAG_SUFFIX)
    kept = read_layers(client, tag)
    if any(each.get("digest") == f"sha256:{layer.digest}" for each in kept):
        return
    push_artifact(client, tag, [layer], make_config([*kept, layer.descriptor]), kept=kept)
