# SPDX-License-Identifier: Apache-2.0
"""Sign objects: add a `.sig` section to unsigned objects (spec/sig-section.md, sections 4, 6 and 9)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from buildtool.compile.record import (
    CompiledObject,
    SourceInfo,
    ToolchainInfo,
    is_recorded,
    read_compile_record,
)
from buildtool.config.file import Config
from buildtool.config.settable import SettableRules
from buildtool.core.digests import Digest
from buildtool.core.errors import (
    AlreadySignedError,
    ObjectFormatError,
    UsageError,
)
from buildtool.core.files import (
    FORCE_REPLACES,
    choose_targets,
    made_directories,
    staged_files,
)
from buildtool.core.parallel import Item, Result, map_parallel
from buildtool.core.platforms import Platform, find_platform
from buildtool.core.strictjson import format_time
from buildtool.core.validate import check_object_name
from buildtool.objects.describe import describe_object
from buildtool.objects.elf import (
    ElfObject,
    append_signature_section,
    find_signature_section,
    has_signature_section,
    parse_object,
    read_object_file,
    remove_signature_section,
    subject_digest,
)
from buildtool.objects.types import Declaration
from buildtool.signing.bounds import make_settable
from buildtool.signing.dsse import signing_input
from buildtool.signing.keys import SigningKey
from buildtool.signing.record import SignatureEntry, SignatureRecord, section_size_for
from buildtool.signing.record import from_bytes as parse_record
from buildtool.signing.record import to_bytes as encode_record
from buildtool.signing.signers.signer import Signer, take_signature
from buildtool.signing.stale import StaleFinder
from buildtool.signing.statement import CLOCK_TOLERANCE_SECONDS, Statement, has_passed
from buildtool.signing.statement import from_bytes as parse_statement
from buildtool.signing.statement import to_bytes as encode_statement

_NO_DIGEST = Digest("0" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseInfo:
    """
    The release in a statement: *project*, *version* (increasing), *release* (text for readers).

    *created* and *not_after* are seconds since the epoch. *settable* has the rules of objects by name.
    """

    project: str
    version: int
    release: str
    created: int
    not_after: int | None = None
    settable: SettableRules = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Config, *, created: int) -> Self:
        """Return the release in *config*, with the time *created* of its statements."""
        project, not_after = config.project, config.sign.not_after
        return cls(
            project=project.name,
            version=project.version,
            release=project.release,
            created=created,
            not_after=not_after,
            settable=config.load.settable,
        )


def check_times(not_after: int | None, *, created: int, now: int) -> None:
    """
    Refuse to sign what every verifier refuses at once: surely a mistake, which shows on the machines only.

    Raises: UsageError.
    """
    if not_after is None:
        return
    if has_passed(not_after, now):
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
    """
    The origin of an object: its *platform* and, if known, *toolchain* and *source*.

    *declared* are the types of sections that libbpf does not know.
    """

    platform: Platform
    toolchain: ToolchainInfo | None = None
    source: SourceInfo | None = None
    declared: tuple[Declaration, ...] = ()

    @classmethod
    def from_claims(cls, claims: CompiledObject | Statement) -> Self:
        """Return the origin in an entry of a compile record or in a statement. Raises: UsageError."""
        return cls(
            platform=find_platform(claims.platform),
            toolchain=claims.toolchain,
            source=claims.source,
            declared=claims.declared,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedFile:
    """A signed file: its *path* and its *statement*."""

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
    stale: StaleFinder | None = None,
    declared: Sequence[Declaration] = (),
) -> list[SignedFile]:
    """
    Sign all *paths* with *key*, in place or into directory *output*. Either all are written or none.

    *platform* is required for objects without an entry in the compile record beside them. With
    *force*, an existing signature is replaced. *stale* refuses objects that are older than their sources.
    *declared* comes before the declarations of the compile record and of a replaced statement.

    Raises: UsageError, FileAccessError, ObjectFormatError, AlreadySignedError, StaleObjectError; errors of
    *key*.
    """
    records = {directory: read_compile_record(directory) for directory in {path.parent for path in paths}}
    known = [records[path.parent].get(path.name) for path in paths]
    targets = choose_targets(
        paths,
        output,
        [path.name if entry is None else entry.name for path, entry in zip(paths, known, strict=True)],
    )

    with (
        made_directories([output] if output else []),
        staged_files(targets, replace=output is None or force, hint=FORCE_REPLACES) as stage,
    ):

        def sign(item: tuple[Path, Path]) -> Statement:
            path, target = item
            compiled = records[path.parent].get(path.name)
            data = read_object_file(path)
            if stale:
                stale.check(path, data)
            data, statement = _sign_file(
                path, data, key, release, compiled, platform, tuple(declared), force=force
            )
            stage.write(target, data)
            return statement

        done = _sign_all(sign, list(zip(paths, targets, strict=True)), key)
    places = targets if output else paths
    return [SignedFile(path=path, statement=item) for path, item in zip(places, done, strict=True)]


def sign_compiled(
    objects: Sequence[tuple[CompiledObject, bytes]], key: Signer, release: ReleaseInfo
) -> list[tuple[bytes, Statement]]:
    """
    Return signed file and statement of each of *objects*, unsigned files with their compile records.

    Raises: UsageError, ObjectFormatError; errors of *key*.
    """

    def sign(item: tuple[CompiledObject, bytes]) -> tuple[bytes, Statement]:
        compiled, data = item
        try:
            name = check_object_name(compiled.name)
            return sign_object(parse_object(data), name, key, release, Origin.from_claims(compiled))
        except (ObjectFormatError, UsageError) as error:
            raise type(error)(f"{compiled.source.path}: {error.message}", hint=error.hint) from error

    return _sign_all(sign, objects, key)


def _sign_all(sign: Callable[[Item], Result], items: Sequence[Item], key: Signer) -> list[Result]:
    """Return the results of *sign* for *items*, by several processes if *key* is in memory."""
    # An agent or a token has one connection, which workers would share.
    return map_parallel(sign, items) if isinstance(key, SigningKey) else list(map(sign, items))


def _sign_file(
    path: Path,
    data: bytes,
    key: Signer,
    release: ReleaseInfo,
    compiled: CompiledObject | None,
    platform: Platform | None,
    declared: tuple[Declaration, ...],
    *,
    force: bool,
) -> tuple[bytes, Statement]:
    """Return the signed bytes of file *path* with *data*, and their statement. Each error names the file."""
    try:
        obj = parse_object(data)
        origin = _known_origin(obj, compiled, key)
        name = check_object_name(path.name if compiled is None else compiled.name)
        if has_signature_section(obj):
            if not force:
                raise AlreadySignedError("already signed", hint="--force replaces the signature")
            obj = remove_signature_section(obj)
        if origin is None and platform is None and compiled is not None:
            raise UsageError(
                "not the object that buildtool compile made",
                hint="compile it again; with --arch, the statement does not say how it was made",
            )
        chosen = _choose_origin(origin, platform)
        chosen = replace(chosen, declared=(*declared, *chosen.declared))
        return sign_object(obj, name, key, release, chosen)
    except (ObjectFormatError, AlreadySignedError, UsageError) as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from error


def sign_object(
    obj: ElfObject, name: str, key: Signer, release: ReleaseInfo, origin: Origin
) -> tuple[bytes, Statement]:
    """
    Return the signed file of unsigned *obj*, and its statement.

    Raises: UsageError, ObjectFormatError; errors of *key*.
    """
    if obj.is_little_endian != origin.platform.little_endian:
        order = "little" if obj.is_little_endian else "big"
        raise UsageError(
            f"a {order}-endian object, but {origin.platform.oci} has the other byte order",
            hint="name the architecture that it was compiled for by --arch",
        )
    statement = _make_statement(obj, name, release, origin)
    # All digests have one length, so a statement with a dummy digest determines the size of the section.
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
    contents = describe_object(obj, origin.declared)
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
        settable=make_settable(obj, contents.maps, release.settable.get(name, ())),
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
    """Return the origin from the compile record of these bytes or a statement signed by *key*, or None."""
    if compiled is not None and is_recorded(compiled, obj.data):
        return Origin.from_claims(compiled)
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
    return Origin.from_claims(statement)


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
