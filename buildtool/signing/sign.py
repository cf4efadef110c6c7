# SPDX-License-Identifier: Apache-2.0
"""Signing: unsigned objects to objects with a `.sig` section (spec/sig-section.md, sections 4, 6 and 9)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from buildtool.compile.record import CompiledObject, SourceInfo, ToolchainInfo, read_compile_record
from buildtool.core.digests import Digest
from buildtool.core.errors import (
    AlreadySignedError,
    FileAccessError,
    ObjectFormatError,
    UsageError,
)
from buildtool.core.files import (
    FORCE_REPLACES,
    choose_targets,
    made_directories,
    read_bounded,
    staged_files,
)
from buildtool.core.parallel import map_parallel
from buildtool.core.platforms import Platform, find_platform
from buildtool.core.strictjson import format_time
from buildtool.core.validate import check_object_name
from buildtool.objects.describe import describe_object
from buildtool.objects.elf import (
    MAX_OBJECT_BYTES,
    OBJECT_HINT,
    ElfObject,
    append_signature_section,
    find_signature_section,
    has_signature_section,
    parse_object,
    remove_signature_section,
    subject_digest,
)
from buildtool.signing.dsse import signing_input
from buildtool.signing.keys import SigningKey
from buildtool.signing.record import SignatureEntry, SignatureRecord, section_size_for
from buildtool.signing.record import from_bytes as parse_record
from buildtool.signing.record import to_bytes as encode_record
from buildtool.signing.signers.signer import Signer, take_signature
from buildtool.signing.statement import CLOCK_TOLERANCE_SECONDS, Statement
from buildtool.signing.statement import from_bytes as parse_statement
from buildtool.signing.statement import to_bytes as encode_statement

_NO_DIGEST = Digest("0" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseInfo:
    """What the statement says of the release: *project*, monotonic *version*, *release*, times in seconds."""

    project: str
    version: int
    release: str
    created: int
    not_after: int | None = None


def check_times(not_after: int | None, *, created: int, now: int) -> None:
    """
    Refuse to sign what every verifier refuses at once: surely a mistake, which shows on the machines only.

    Raises: UsageError.
    """
    if not_after is None:
        return
    if not_after < now:
        raise UsageError(
            f"not-after {format_time(not_after)} has passed: verifiers would refuse the objects as expired",
            hint="give a later time by --not-after, sign.not-after or BUILDTOOL_NOT_AFTER",
        )
    if created > now + CLOCK_TOLERANCE_SECONDS:
        raise UsageError(
            f"the creation time {format_time(created)} is in the future: verifiers would refuse the objects"
            " as not-yet-valid",
            hint="give an earlier time by --created or SOURCE_DATE_EPOCH, or set this machine's clock",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an object comes from: the *platform* it is for and, when known, how it was compiled."""

    platform: Platform
    toolchain: ToolchainInfo | None = None
    source: SourceInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedFile:
    """A file that was signed: where it is now, and what its statement says."""

    path: Path
    statement: Statement


def sign_files(
    paths: Sequence[Path],
    key: Signer,
    release: ReleaseInfo,
    *,
    platform: Platform | None = None,
    output: Path | None = None,
    force: bool = False,
) -> list[SignedFile]:
    """
    Sign all *paths* with *key*, in place or into directory *output*; nothing is written unless all can be.

    *platform* is needed for objects that the compile record beside them does
    not know. With *force* a signature that is there is replaced.

    Raises: UsageError, FileAccessError, ObjectFormatError, AlreadySignedError.
    """
    targets = choose_targets(paths, output)
    records = {directory: read_compile_record(directory) for directory in {path.parent for path in paths}}

    with (
        made_directories([output] if output else []),
        staged_files(targets, replace=output is None or force, hint=FORCE_REPLACES) as stage,
    ):

        def sign(item: tuple[Path, Path]) -> Statement:
            path, target = item
            compiled = records[path.parent].get(path.name)
            data, statement = _sign_file(path, key, release, compiled, platform, force=force)
            stage.write(target, data)
            return statement

        jobs = list(zip(paths, targets, strict=True))
        # An agent or a token has one connection, which workers would share.
        done = map_parallel(sign, jobs) if isinstance(key, SigningKey) else list(map(sign, jobs))
    places = targets if output else paths
    return [SignedFile(path=path, statement=item) for path, item in zip(places, done, strict=True)]


def sign_compiled(
    objects: Sequence[tuple[CompiledObject, bytes]], key: Signer, release: ReleaseInfo
) -> list[tuple[bytes, Statement]]:
    """
    Return the signed files of *objects*, unsigned ones with what the compiler stage says of them.

    Raises: UsageError, ObjectFormatError, and what *key* raises.
    """

    def sign(item: tuple[CompiledObject, bytes]) -> tuple[bytes, Statement]:
        compiled, data = item
        origin = Origin(
            platform=find_platform(compiled.platform), toolchain=compiled.toolchain, source=compiled.source
        )
        try:
            name = check_object_name(compiled.path.name)
            return sign_object(parse_object(data), name, key, release, origin)
        except (ObjectFormatError, UsageError) as error:
            raise type(error)(f"{compiled.source.path}: {error.message}", hint=error.hint) from error

    # An agent or a token has one connection, which workers would share.
    return map_parallel(sign, objects) if isinstance(key, SigningKey) else list(map(sign, objects))


def _sign_file(
    path: Path,
    key: Signer,
    release: ReleaseInfo,
    compiled: CompiledObject | None,
    platform: Platform | None,
    *,
    force: bool,
) -> tuple[bytes, Statement]:
    """Read one file and sign its bytes; every error says which file."""
    data = read_bounded(path, MAX_OBJECT_BYTES)
    if len(data) > MAX_OBJECT_BYTES:
        raise FileAccessError(f"{path}: larger than {MAX_OBJECT_BYTES} bytes", hint=OBJECT_HINT)
    try:
        name = check_object_name(path.name)
        obj = parse_object(data)
        origin = _known_origin(obj, compiled, key)
        if has_signature_section(obj):
            if not force:
                raise AlreadySignedError("already signed", hint="--force replaces the signature")
            obj = remove_signature_section(obj)
        return sign_object(obj, name, key, release, _choose_origin(origin, platform))
    except (ObjectFormatError, AlreadySignedError, UsageError) as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from error


def sign_object(
    obj: ElfObject, name: str, key: Signer, release: ReleaseInfo, origin: Origin
) -> tuple[bytes, Statement]:
    """
    Return the signed file of unsigned *obj*, and the statement in it.

    Raises: UsageError, ObjectFormatError.
    """
    if obj.is_little_endian != origin.platform.little_endian:
        order = "little" if obj.is_little_endian else "big"
        raise UsageError(
            f"a {order}-endian object, but {origin.platform.oci} has the other byte order",
            hint="name the architecture that it was compiled for by --arch",
        )
    statement = _make_statement(obj, name, release, origin)
    # A digest has a fixed length, so a statement with any digest tells the size of the section.
    size = section_size_for(len(_encode(statement)))
    blank, offset = append_signature_section(obj, size)
    statement = replace(statement, digest=Digest(hashlib.sha256(blank).hexdigest()))
    encoded = _encode(statement)
    if parse_statement(encoded) != statement:  # never sign what a verifier would refuse or read differently
        raise ObjectFormatError("the statement does not encode to the same bytes")
    entry = SignatureEntry(
        key_id=bytes.fromhex(key.key_id), signature=take_signature(key, signing_input(encoded))
    )
    record = SignatureRecord(section_size=size, statement=encoded, signatures=(entry,))
    return blank[:offset] + encode_record(record) + blank[offset + size :], statement


def _make_statement(obj: ElfObject, name: str, release: ReleaseInfo, origin: Origin) -> Statement:
    contents = describe_object(obj)
    return Statement(
        name=name,
        digest=_NO_DIGEST,
        platform=origin.platform.oci,
        project=release.project,
        version=release.version,
        release=release.release,
        created=release.created,
        not_after=release.not_after,
        programs=contents.programs,
        maps=contents.maps,
        helpers=contents.helpers,
        kfuncs=contents.kfuncs,
        license=contents.license,
        toolchain=origin.toolchain,
        source=origin.source,
    )


def _encode(statement: Statement) -> bytes:
    try:
        return encode_statement(statement)
    except ValueError as error:
        raise UsageError(
            f"a time of the statement is outside the years 1970 to 9999: {error}",
            hint="give another one by --created, --not-after or SOURCE_DATE_EPOCH",
        ) from error


def _known_origin(obj: ElfObject, compiled: CompiledObject | None, key: Signer) -> Origin | None:
    """Say where *obj* comes from: the compile record of these very bytes, or what this key signed before."""
    if compiled is not None and compiled.sha256 == hashlib.sha256(obj.data).hexdigest():
        return Origin(
            platform=find_platform(compiled.platform), toolchain=compiled.toolchain, source=compiled.source
        )
    if not has_signature_section(obj):
        return None
    try:
        section = find_signature_section(obj)
        record = parse_record(obj.contents(section))
        message = signing_input(record.statement)
        ours = any(
            entry.key_id.hex() == key.key_id and key.public.verifies(entry.signature, message)
            for entry in record.signatures
        )
        statement = parse_statement(record.statement)
    except ObjectFormatError:
        return None
    # The claims of an unverified statement must not get a new signature.
    if not ours or statement.digest != subject_digest(obj, section):
        return None
    return Origin(
        platform=find_platform(statement.platform), toolchain=statement.toolchain, source=statement.source
    )


def _choose_origin(known: Origin | None, platform: Platform | None) -> Origin:
    if known is None and platform is None:
        raise UsageError(
            "no architecture for the statement",
            hint="name it by --arch; buildtool compile records it beside its objects",
        )
    if known is None:
        assert platform is not None
        return Origin(platform=platform)
    if platform is not None and platform != known.platform:
        raise UsageError(
            f"compiled for {known.platform.oci}, not {platform.oci}",
            hint="leave --arch out: the compile record knows the architecture",
        )
    return known
