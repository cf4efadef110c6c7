# SPDX-License-Identifier: Apache-2.0
"""
Store documents about an image in its repository, and find them.

A document is found by a tag made from the image's digest, or as a referrer: a manifest whose subject
is the image. Registries without the referrers API get the fallback tag, which clients keep themselves.

Sources: OCI distribution specification v1.1, "Referrers Tag Schema" and "Listing Referrers"; OCI image
specification v1.1, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from buildtool.core.digests import Digest, parse_digest
from buildtool.core.errors import RegistryError
from buildtool.oci.read import DOCUMENT_ERRORS, MAX_JSON_BYTES
from buildtool.oci.registry import MANIFESTS, Client, push_blob, push_manifest
from buildtool.oci.write import MEDIA_INDEX, MEDIA_MANIFEST, Document

MEDIA_EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
MAX_REFERRERS = 256  # that a reader looks at
_MAX_PAGES = 16
_TRIES = 3  # to add an entry to a fallback tag that others write as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A blob of an artifact: *media_type*, *data* and the *annotations* of its descriptor."""

    media_type: str
    data: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """The SHA-256 of the data."""
        return Digest(hashlib.sha256(self.data).hexdigest())

    @property
    def descriptor(self) -> dict[str, Any]:
        """The descriptor in a manifest."""
        about = {"mediaType": self.media_type, "digest": f"sha256:{self.digest}", "size": len(self.data)}
        return about | ({"annotations": dict(self.annotations)} if self.annotations else {})


def encode(value: Mapping[str, Any]) -> bytes:
    """Return the bytes of a document: sorted members, no white space, so that one value has one digest."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def tag_of(digest: Digest, suffix: str = "") -> str:
    """Return the tag by which clients find what belongs to the image of *digest*."""
    return f"sha256-{digest}{suffix}"


def read_manifest(client: Client, name: str) -> tuple[str, dict[str, Any]] | None:
    """
    Return media type and content of manifest *name* (a tag or sha256:...), or None if there is none.

    Raises: RegistryError.
    """
    answer = client.request("GET", f"manifests/{name}", headers={"Accept": MANIFESTS})
    if answer.status == 404:
        return None
    what = f"{client.reference.repository}:{name}"
    if answer.status != 200:
        raise _error(client, f"{what}: the registry answers {answer.status}{answer.said}")
    if name.startswith("sha256:") and hashlib.sha256(answer.body).hexdigest() != name[len("sha256:") :]:
        raise _error(client, f"{what}: the digest of the answer does not match")
    try:
        content = json.loads(answer.body)
        if not isinstance(content, dict):
            raise ValueError
    except DOCUMENT_ERRORS as error:
        raise _error(client, f"{what}: not a manifest") from error
    return answer.headers.get("Content-Type", "").partition(";")[0], content


def read_layers(client: Client, tag: str) -> list[Mapping[str, Any]]:
    """
    Return the layers of manifest *tag*, those with a digest and a size, or none without such a manifest.

    Raises: RegistryError.
    """
    found = read_manifest(client, tag)
    layers = found[1].get("layers") if found else None
    kept: list[Mapping[str, Any]] = []
    for layer in layers if isinstance(layers, list) else ():
        try:
            parse_digest(layer["digest"])
            kept += [layer] if isinstance(layer["size"], int) else []
        except (KeyError, TypeError, ValueError):
            continue
    return kept


def fetch_blob(client: Client, descriptor: Mapping[str, Any], limit: int) -> bytes | None:
    """
    Return the blob of *descriptor*, compared with its digest, or None if it is missing or exceeds *limit*.

    Raises: RegistryError.
    """
    try:
        digest = parse_digest(descriptor.get("digest"))
    except ValueError:
        return None
    answer = client.request("GET", f"blobs/sha256:{digest}", limit=limit)
    if answer.status != 200 or len(answer.body) > limit:
        return None
    return answer.body if hashlib.sha256(answer.body).hexdigest() == digest else None


def push_artifact(
    client: Client,
    tag: str,
    blobs: Sequence[Blob],
    config: Blob,
    *,
    kept: Sequence[Mapping[str, Any]] = (),
) -> None:
    """
    Write the manifest *tag* with *config* and *blobs*, after the descriptors *kept* of an earlier manifest.

    Raises: RegistryError, FileAccessError.
    """
    layers = [*kept, *(blob.descriptor for blob in blobs)]
    content = {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": config.descriptor,
        "layers": layers,
    }
    for blob in (config, *blobs):
        push_blob(client, blob.digest, blob.data)
    push_manifest(client, Document(media_type=MEDIA_MANIFEST, data=encode(content)), tag)


def push_referrer(
    client: Client, subject: Mapping[str, Any], blob: Blob, annotations: Mapping[str, str]
) -> None:
    """
    Write *blob* as an artifact of its own media type that refers to *subject*, the descriptor of an image.

    Raises: RegistryError, FileAccessError.
    """
    config = Blob(media_type=MEDIA_EMPTY, data=EMPTY)
    content = {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "artifactType": blob.media_type,
        "config": config.descriptor,
        "layers": [blob.descriptor],
        "annotations": dict(annotations),
        "subject": {name: subject[name] for name in ("mediaType", "digest", "size")},
    }
    for each in (config, blob):
        push_blob(client, each.digest, each.data)
    document = Document(media_type=MEDIA_MANIFEST, data=encode(content))
    answer = push_manifest(client, document, f"sha256:{document.digest}")
    # A registry with the referrers API says that it noted the subject.
    if answer.headers.get("OCI-Subject"):
        return
    entry = {
        **document.descriptor,
        "artifactType": blob.media_type,
        "annotations": dict(annotations),
    }
    _add_to_fallback(client, tag_of(Digest(str(subject["digest"]).removeprefix("sha256:"))), entry)


def _add_to_fallback(client: Client, tag: str, entry: Mapping[str, Any]) -> None:
    """Add *entry* to the index *tag*. Other clients may replace the index at the same time, so look again."""
    for _ in range(_TRIES):
        entries = _fallback_entries(client, tag)
        if any(each.get("digest") == entry["digest"] for each in entries):
            return
        index = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": [*entries, entry]}
        push_manifest(client, Document(media_type=MEDIA_INDEX, data=encode(index)), tag)
    if any(each.get("digest") == entry["digest"] for each in _fallback_entries(client, tag)):
        return
    raise RegistryError(
        f"registry {client.reference.host}: {client.reference.repository}:{tag}: others keep replacing it",
        hint="publish again, one after the other",
    )


def _fallback_entries(client: Client, tag: str) -> list[dict[str, Any]]:
    found = read_manifest(client, tag)
    if found is None:
        return []
    entries = found[1].get("manifests")
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise _error(client, f"{client.reference.repository}:{tag}: not an index of referrers")
    return entries


def find_referrers(client: Client, digest: Digest, artifact_type: str) -> Iterator[list[dict[str, Any]]]:
    """
    Yield the layers of each artifact of *artifact_type* that refers to the image of *digest*.

    The registry's lists are untrusted, so each artifact's own subject is compared.

    Raises: RegistryError.
    """
    for entry in _entries(client, digest)[:MAX_REFERRERS]:
        # The list names the type of an artifact, or of its configuration.
        if entry.get("artifactType") not in (artifact_type, None, ""):
            continue
        try:
            found = read_manifest(client, f"sha256:{parse_digest(entry.get('digest'))}")
        except ValueError:
            continue
        if found is None:
            continue
        content = found[1]
        subject, layers = content.get("subject"), content.get("layers")
        if (
            content.get("artifactType") == artifact_type
            and isinstance(subject, dict)
            and subject.get("digest") == f"sha256:{digest}"
            and isinstance(layers, list)
        ):
            yield [layer for layer in layers if isinstance(layer, dict)]


def _entries(client: Client, digest: Digest) -> list[dict[str, Any]]:
    """Return the entries of the referrers API, or those of the fallback tag where it is missing."""
    path = f"referrers/sha256:{digest}"
    found: list[dict[str, Any]] = []
    for _ in range(_MAX_PAGES):
        answer = client.request("GET", path, limit=MAX_JSON_BYTES, headers={"Accept": MEDIA_INDEX})
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        if answer.status != 200 or kind != MEDIA_INDEX:
            return found or _fallback_entries(client, tag_of(digest))
        try:
            found += [each for each in json.loads(answer.body)["manifests"] if isinstance(each, dict)]
        except DOCUMENT_ERRORS as error:
            raise _error(client, f"{path}: not an index of referrers") from error
        target, _, rest = answer.headers.get("Link", "").partition(">")
        if len(found) >= MAX_REFERRERS or not target.startswith("<") or 'rel="next"' not in rest:
            break
        try:
            path = urljoin(answer.url, target[1:])
        except ValueError as error:
            raise _error(client, f"{path}: a Link header with an invalid address") from error
    return found


def _error(client: Client, message: str) -> RegistryError:
    return RegistryError(f"registry {client.reference.host}: {message}", hint="try again later")
