# SPDX-License-Identifier: Apache-2.0
"""
Verify an image: the signatures of the image itself, then every object in it.

An image is read from a registry, a layout or an archive, without an engine. Its digest covers all that it
refers to, so a valid signature of an index covers each platform's manifest and layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.errors import BuildtoolError, ObjectFormatError, Reason, RefusedError
from buildtool.core.files import read_bounded
from buildtool.core.platforms import PLATFORMS
from buildtool.core.validate import LAYOUT_SCHEME, check_stored, split_layout
from buildtool.image.inspect import inspect_stored, is_file_name
from buildtool.image.metadata import OBJECTS_DIRECTORY
from buildtool.objects.elf import MAX_OBJECT_BYTES
from buildtool.oci.artifacts import fetch_blob, read_layers, tag_of
from buildtool.oci.read import BlobSource, open_layout
from buildtool.oci.registry import Client, open_image, parse_reference
from buildtool.publish.bundle import (
    IMAGE_SIGNATURE,
    MAX_BUNDLE_BYTES,
    Bundle,
    read_bundle,
    read_subject,
)
from buildtool.publish.formats import read_format
from buildtool.publish.named import PREDICATE_TYPE, is_of_build, read_named
from buildtool.publish.sign import read_bundles
from buildtool.publish.simplesigning import (
    MAX_PAYLOAD_BYTES,
    TAG_SUFFIX,
    read_digest,
    read_signature,
)
from buildtool.signing.keys import KeyId
from buildtool.trust.store import TrustStore
from buildtool.trust.verify import VerifiedObject, count_signers, verify_object

MAX_SIGNATURES = 64  # that are looked at, in each of the two forms
# Options by which an image's loader takes other objects, or trusts other keys, than those that are verified.
_ELSEWHERE = ("--objects", "--trust")
# Who signs an image vouches for it: only a hint about an image that lacks signatures names the command.
_PUBLISH = "buildtool publish IMAGE --key SIGNER adds a signature"
_UNSIGNED = f"{_PUBLISH} to an image that you built; --objects-only does not ask for one"
_UNSIGNED_FILE = (
    "--bundle FILE names the signature of a file; buildtool publish IMAGE --bundle FILE writes one;"
    " --objects-only does not ask for one"
)
_UNKNOWN = "--trust names the public keys of the signers; sign only images that you built"
_COPIED = "somebody copied signatures: find out who writes to the repository"
_OTHER_BUNDLE = "name the bundle that was written for this image; another image may lie at its place"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageObject:
    """
    An object in an image, by *platform* and *name*: the facts if it was *accepted*, else the *error*.

    *sha256* is that of the file, or empty if it was not read.
    """

    platform: str
    name: str
    sha256: str = ""
    accepted: VerifiedObject | None
    error: BuildtoolError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVerdict:
    """
    The result for image *name* of *digest*: the *key_ids* that signed it, or the *error*.

    Without an error and key ids, the image's own signature was not asked for. The *objects* of an image whose
    signature is refused are not read. *has_provenance*: a trusted key says how the image and each of the
    objects was made.
    """

    name: str
    digest: Digest
    key_ids: tuple[KeyId, ...]
    error: BuildtoolError | None
    objects: tuple[ImageObject, ...]
    has_provenance: bool = False


def verify_image(
    target: str, trust: TrustStore, cache: Cache, *, bundle: Path | None, signed: bool, now: int
) -> ImageVerdict:
    """
    Return the verdict on *target*: a reference, a layout or an archive.

    The signatures of a reference are in its registry. That of a file is *bundle*, also for a reference if it
    is given. Without *signed*, only the objects are verified.

    Raises: UsageError, RegistryError, ObjectFormatError, FileAccessError.
    """
    with open_target(target, cache) as (source, client):
        digest = source.top().digest
        key_ids: tuple[KeyId, ...] = ()
        if signed:
            try:
                key_ids = _check_image(client, bundle, digest, trust, max(now, trust.earliest))
            except RefusedError as error:
                return ImageVerdict(name=source.name, digest=digest, key_ids=(), error=error, objects=())
        objects = tuple(_verify_format(source, trust, now)) or tuple(_verify_objects(source, trust, now))
        try:
            proved = signed and client is not None and _check_provenance(client, digest, trust, objects, now)
        except RefusedError as error:
            return ImageVerdict(name=source.name, digest=digest, key_ids=(), error=error, objects=objects)
    if not objects:
        raise ObjectFormatError(
            f"{target}: no objects in {OBJECTS_DIRECTORY}: not built by buildtool",
            hint="cosign verify checks the signatures of other images",
        )
    return ImageVerdict(
        name=source.name, digest=digest, key_ids=key_ids, error=None, objects=objects, has_provenance=proved
    )


@contextmanager
def open_target(target: str, cache: Cache) -> Iterator[tuple[BlobSource, Client | None]]:
    """Yield the image and, if it is in a registry, a client of its repository."""
    if not target.startswith(LAYOUT_SCHEME) and not is_file_name(target):
        check_stored(target)
        client = Client(reference=parse_reference(target), actions="pull")
        yield open_image(target, cache), client
        return
    path, digest = split_layout(target) if target.startswith(LAYOUT_SCHEME) else (Path(target), "")
    with open_layout(path, Digest(digest) if digest else None) as source:
        yield source, None


def check_signature(client: Client, digest: Digest, trust: TrustStore, now: int) -> tuple[KeyId, ...]:
    """Return the trusted keys that signed the image of *digest*. Raises: RefusedError, RegistryError."""
    return _check_image(client, None, digest, trust, max(now, trust.earliest))


def _check_image(
    client: Client | None, bundle: Path | None, digest: Digest, trust: TrustStore, now: int
) -> tuple[KeyId, ...]:
    """Return the keys that signed *digest*. Raises: RefusedError, RegistryError, FileAccessError."""
    signers: dict[bytes, None] = {}
    others: set[str] = set()
    count = 0
    # One after the other: a repository may hold many, and large ones.
    for item in _find_signed(client, bundle, digest):
        count += 1
        for key_id in _signers_of(item, trust):
            if item.named == f"sha256:{digest}":
                signers[key_id] = None
            else:
                others.add(item.named or "none")
    if not count:
        hint = _UNSIGNED if client else _UNSIGNED_FILE
        raise RefusedError(Reason.UNSIGNED, "the image has no signature", hint=hint)
    if signers:
        return count_signers(signers, trust, now, add_hint=_PUBLISH)
    if others:
        raise RefusedError(
            Reason.DIGEST_MISMATCH,
            f"a trusted key signed another image, {min(others)[:80]!r}",
            hint=_OTHER_BUNDLE if bundle else _COPIED,
        )
    raise RefusedError(Reason.UNKNOWN_KEY, "no trusted key signed the image", hint=_UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """A signed *message*, its *signatures*, and the digest that it *named*, with sha256:, if any."""

    message: bytes
    signatures: tuple[bytes, ...]
    named: str | None


def _find_signed(client: Client | None, bundle: Path | None, digest: Digest) -> Iterator[_Signed]:
    if bundle is not None:
        yield from _of_bundles(iter([_read_file(bundle)]))
    elif client is not None:
        yield from islice(_payloads(client, digest), MAX_SIGNATURES)
        yield from islice(_of_bundles(read_bundles(client, digest)), MAX_SIGNATURES)


def _signers_of(item: _Signed, trust: TrustStore) -> Iterator[bytes]:
    for key_id, key in trust.keys.items():
        if any(key.public.verifies(each, item.message) for each in item.signatures):
            yield key_id


def _check_provenance(
    client: Client, digest: Digest, trust: TrustStore, objects: Sequence[ImageObject], now: int
) -> bool:
    """
    Return whether trusted keys say how the image of *digest* was made. Provenance of other keys is left out.

    Raises: RefusedError, if that of buildtool names other objects; RegistryError.
    """
    found = False
    for statement in trusted_provenance(client, digest, trust, now):
        found = True
        named = read_named(statement, PREDICATE_TYPE)
        missing = [item for item in objects if item.sha256 not in named]
        if missing and is_of_build(statement):
            raise RefusedError(
                Reason.DIGEST_MISMATCH,
                f"its provenance does not name {missing[0].platform} {missing[0].name}",
                hint="build and push the image again",
            )
    return found


def trusted_provenance(client: Client, digest: Digest, trust: TrustStore, now: int) -> Iterator[bytes]:
    """Yield statements of provenance of the image of *digest* by trusted keys. Raises: RegistryError."""
    for bundle in islice(read_bundles(client, digest), MAX_SIGNATURES):
        if digest in read_named(bundle.statement, PREDICATE_TYPE) and _is_trusted(bundle, trust, now):
            yield bundle.statement


def _is_trusted(bundle: Bundle, trust: TrustStore, now: int) -> bool:
    message = bundle.message
    valid = (key for key in trust.keys.values() if key.refusal(now) is None)
    return any(key.public.verifies(each, message) for key in valid for each in bundle.signatures)


def _payloads(client: Client, digest: Digest) -> Iterator[_Signed]:
    for layer in read_layers(client, tag_of(digest, TAG_SUFFIX))[:MAX_SIGNATURES]:
        signature = read_signature(layer)
        payload = fetch_blob(client, layer, MAX_PAYLOAD_BYTES) if signature else None
        if signature and payload:
            yield _Signed(message=payload, signatures=(signature,), named=read_digest(payload))


def _of_bundles(bundles: Iterator[Bundle]) -> Iterator[_Signed]:
    for bundle in bundles:
        yield _Signed(
            message=bundle.message,
            signatures=bundle.signatures,
            named=read_subject(bundle.statement, IMAGE_SIGNATURE),
        )


def _read_file(path: Path) -> Bundle:
    try:
        return read_bundle(read_bounded(path, MAX_BUNDLE_BYTES))
    except ValueError as error:
        raise ObjectFormatError(
            f"{path}: not a bundle: {error}", hint="buildtool publish ARCHIVE --bundle FILE writes one"
        ) from error


def _elsewhere(command: Sequence[str]) -> str:
    """Return the word of *command*, an image's entrypoint, by which its loader takes others, or nothing."""
    own = command[: command.index("--image-workload")] if "--image-workload" in command else command
    return next((word for word in own if word.startswith(_ELSEWHERE)), "")


def _verify_objects(source: BlobSource, trust: TrustStore, now: int) -> Iterator[ImageObject]:
    for image in inspect_stored(source):
        if other := _elsewhere(image.command):
            error = ObjectFormatError(f"its loader is started with {other}: other objects or keys than these")
            yield ImageObject(platform=image.platform, name="entrypoint", accepted=None, error=error)
        for name in image.unread:
            error = ObjectFormatError(f"{name}: not a file, or larger than {MAX_OBJECT_BYTES} bytes")
            yield ImageObject(platform=image.platform, name=name, accepted=None, error=error)
        for name, data in image.objects:
            yield _verify_one(image.platform, name, data, trust, now)


def _verify_format(source: BlobSource, trust: TrustStore, now: int) -> Iterator[ImageObject]:
    """Yield the results for an image of bpfman or Inspektor Gadget, whose platforms name no variants."""
    for found in read_format(source):
        arch = found.platform.removeprefix("linux/")
        platform = PLATFORMS[arch].oci if arch in PLATFORMS else found.platform
        yield _verify_one(platform, found.name, found.data, trust, now)


def _verify_one(platform: str, name: str, data: bytes, trust: TrustStore, now: int) -> ImageObject:
    digest = hashlib.sha256(data).hexdigest()
    try:
        accepted = verify_object(data, trust, platform=platform, now=now)
    except BuildtoolError as refused:
        return ImageObject(platform=platform, name=name, sha256=digest, accepted=None, error=refused)
    return ImageObject(platform=platform, name=name, sha256=digest, accepted=accepted, error=None)
