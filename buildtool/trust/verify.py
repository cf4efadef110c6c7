# SPDX-License-Identifier: Apache-2.0
"""
Verify objects by the thirteen numbered steps of spec/sig-section.md, section 7.

loader/verify/verify.c is the other implementation. Both are tested by tests/vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildtool.compile.record import SourceInfo
from buildtool.core.digests import Digest
from buildtool.core.errors import BuildtoolError, ObjectFormatError, Reason, RefusedError
from buildtool.core.files import read_bounded
from buildtool.core.parallel import map_parallel
from buildtool.core.platforms import PLATFORMS
from buildtool.core.strictjson import format_time
from buildtool.objects.calls import read_code
from buildtool.objects.elf import (
    MAX_OBJECT_BYTES,
    ElfObject,
    find_signature_section,
    has_signature_section,
    parse_object,
    subject_digest,
)
from buildtool.objects.helpers import helper_name
from buildtool.objects.points import STRUCT_OPS, read_points, struct_ops_sections, without_flavour
from buildtool.objects.types import UNKNOWN_PROGRAM, section_type
from buildtool.signing.dsse import signing_input
from buildtool.signing.keys import KeyId
from buildtool.signing.record import SignatureRecord
from buildtool.signing.record import from_bytes as parse_record
from buildtool.signing.statement import CLOCK_TOLERANCE_SECONDS, Statement, has_passed
from buildtool.signing.statement import from_bytes as parse_statement
from buildtool.trust.store import TrustStore
from buildtool.trust.versions import open_state

MAX_SHOWN = 8  # names in a message
_AGAIN = "get the object again from where it was signed; buildtool inspect OBJECT shows what it carries"
Remembered = Callable[[str, str], int]

_BIG_ENDIAN = frozenset(platform.oci for platform in PLATFORMS.values() if not platform.little_endian)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedObject:
    """An accepted object: its *statement*, its subject *digest*, and the *key_ids* that counted."""

    statement: Statement
    digest: Digest
    key_ids: tuple[KeyId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The facts of an accepted file, without the rest of its statement, which workers would have to send."""

    project: str
    name: str
    version: int
    digest: Digest
    key_ids: tuple[KeyId, ...]
    source: SourceInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result for a file: the facts if it was *accepted*, or else the *error*."""

    path: Path
    accepted: Accepted | None
    error: BuildtoolError | None


def verify_files(
    paths: Iterable[Path],
    trust: TrustStore,
    *,
    platform: str | None,
    now: int,
    remembered: Remembered = lambda _project, _name: 0,
) -> list[Verdict]:
    """
    Return a verdict on each file of *paths*. A refused or unreadable file results in a verdict, too.

    *platform* is the required OCI platform, or None for any. *now* is in seconds since the epoch.
    *remembered* is that of `verify_object`.
    """

    def verify(path: Path) -> Accepted | BuildtoolError:
        try:
            data = read_bounded(path, trust.max_object_bytes)
            verified = verify_object(data, trust, platform=platform, now=now, remembered=remembered)
        except BuildtoolError as error:
            return error
        statement = verified.statement
        return Accepted(
            project=statement.project,
            name=statement.name,
            version=statement.version,
            digest=verified.digest,
            key_ids=verified.key_ids,
            source=statement.source,
        )

    given = list(paths)
    return [
        Verdict(path=path, accepted=found, error=None)
        if isinstance(found, Accepted)
        else Verdict(path=path, accepted=None, error=found)
        for path, found in zip(given, map_parallel(verify, given), strict=True)
    ]


def verify_and_remember(
    paths: Iterable[Path], trust: TrustStore, state: Path | None, *, platform: str | None, now: int
) -> list[Verdict]:
    """
    Verify as `verify_files` does, and refuse lower versions than those in state directory *state*.

    If all files are accepted, their versions are written to the state directory.

    Raises: FileAccessError, if the state cannot be read or written. No file counts as accepted then.
    """
    if state is None:
        return list(verify_files(paths, trust, platform=platform, now=now))
    with open_state(state) as versions:
        verdicts = list(verify_files(paths, trust, platform=platform, now=now, remembered=versions.version))
        accepted = [verdict.accepted for verdict in verdicts if verdict.accepted]
        if len(accepted) == len(verdicts):
            for item in accepted:
                versions.raise_version(item.project, item.name, item.version)
            versions.save()
    return verdicts


def verify_object(
    data: bytes,
    trust: TrustStore,
    *,
    platform: str | None,
    now: int,
    remembered: Remembered = lambda _project, _name: 0,
) -> VerifiedObject:
    """
    Return the accepted object in *data*, all bytes of one file.

    *remembered* returns the version in the state directory for a project and an object name.

    Raises: RefusedError, with the reason of the first step that fails.
    """
    now = max(now, trust.earliest)
    # (1) size
    if len(data) > min(trust.max_object_bytes, MAX_OBJECT_BYTES):
        raise RefusedError(
            Reason.TOO_LARGE,
            f"larger than {trust.max_object_bytes} bytes",
            hint="maxObjectBytes of the policy sets the bound",
        )
    try:
        # (2) profile
        obj = parse_object(data)
        # (3) signed at all
        if not has_signature_section(obj):
            raise RefusedError(Reason.UNSIGNED, "no section .sig", hint="buildtool sign OBJECT signs it")
        # (4) the section
        section = find_signature_section(obj)
        # (5) the record
        record = parse_record(obj.contents(section))
        # (6) signatures of trusted keys
        _check_signatures(record, trust)
        # (7) enough of them
        key_ids = _check_threshold(record, trust, now)
        # (8) the statement, parsed only now
        statement = parse_statement(record.statement)
    except ObjectFormatError as error:
        raise RefusedError(Reason.MALFORMED, error.message, hint=error.hint or _AGAIN) from error
    # (9) digest
    digest = subject_digest(obj, section)
    if digest != statement.digest:
        raise RefusedError(Reason.DIGEST_MISMATCH, "the file is not the one that was signed", hint=_AGAIN)
    # (10) platform
    _check_platform(statement, obj, platform)
    # (11) validity
    _check_validity(statement, trust, key_ids, now)
    # (12) policy
    _check_policy(statement, trust)
    if trust.reads_code:
        _check_code(statement, obj, trust)
    # (13) rollback
    _check_version(statement, trust, remembered(statement.project, statement.name))
    return VerifiedObject(statement=statement, digest=digest, key_ids=key_ids)


def _check_signatures(record: SignatureRecord, trust: TrustStore) -> None:
    """Do step 6: a bad signature under a trusted key refuses the object, even beside a valid signature."""
    message = signing_input(record.statement)
    for entry in record.signatures:
        key = trust.keys.get(entry.key_id)
        if key is not None and not key.public.verifies(entry.signature, message):
            raise RefusedError(
                Reason.BAD_SIGNATURE,
                f"the signature of trusted key {key.public.key_id} does not verify",
                hint=_AGAIN,
            )


def _check_threshold(record: SignatureRecord, trust: TrustStore, now: int) -> tuple[KeyId, ...]:
    """Do step 7."""
    signers = [entry.key_id for entry in record.signatures]
    return count_signers(
        signers, trust, now, add_hint="buildtool sign --add adds the signature of another key"
    )


def count_signers(
    signers: Iterable[bytes], trust: TrustStore, now: int, *, add_hint: str
) -> tuple[KeyId, ...]:
    """
    Return the key ids of *signers*, given as 32 bytes each, that *trust* has and that are valid at *now*.

    *add_hint* says how a further key signs.

    Raises: RefusedError, if they are fewer than the threshold. Without any, the first of three reasons
    is reported.
    """
    counted = []
    excuses: dict[Reason, str] = {}
    given = list(signers)
    for signer in given:
        key = trust.keys.get(signer)
        if key is None:
            continue
        key_id = key.public.key_id
        if key.revoked:
            excuses[Reason.REVOKED] = f"signed with key {key_id}, which is revoked"
        elif has_passed(key.not_after, now):
            end = format_time(key.not_after)
            excuses[Reason.EXPIRED] = f"signed with key {key_id}, which expired at {end}"
        elif key.not_before is not None and now < key.not_before:
            begin = format_time(key.not_before)
            excuses[Reason.NOT_YET_VALID] = f"signed with key {key_id}, which is not valid before {begin}"
        else:
            counted.append(key_id)
    if len(counted) >= trust.threshold:
        return tuple(counted)
    if counted:
        text = f"{len(counted)} of {trust.threshold} trusted keys signed: {', '.join(counted)}"
        raise RefusedError(Reason.BELOW_THRESHOLD, text, hint=add_hint)
    for reason in (Reason.REVOKED, Reason.EXPIRED, Reason.NOT_YET_VALID):
        if reason in excuses:
            raise RefusedError(reason, excuses[reason], hint="buildtool trust list shows the keys' states")
    raise RefusedError(
        Reason.UNKNOWN_KEY,
        f"no trusted key signed, only {', '.join(signer.hex() for signer in given)}",
        hint="trust the public key of a signer; buildtool inspect OBJECT shows the signers",
    )


def _check_platform(statement: Statement, obj: ElfObject, platform: str | None) -> None:
    """Do step 10."""
    if platform is not None and statement.platform != platform:
        raise RefusedError(
            Reason.WRONG_PLATFORM,
            f"signed for {statement.platform!r}, not {platform}",
            hint="verify the object of this platform, or name another --platform",
        )
    if obj.is_little_endian == (statement.platform in _BIG_ENDIAN):
        raise RefusedError(Reason.WRONG_PLATFORM, f"the byte order is not that of {statement.platform!r}")


def _check_validity(statement: Statement, trust: TrustStore, key_ids: tuple[KeyId, ...], now: int) -> None:
    """Do step 11: an unset clock cannot prove that a limit has not passed, so it refuses limited objects."""
    if has_passed(statement.not_after, now):
        end = format_time(statement.not_after)
        raise RefusedError(
            Reason.EXPIRED,
            f"notAfter of its statement, {end}, has passed",
            hint="buildtool sign --force --not-after TIME makes a new statement",
        )
    if not trust.needs_clock or now >= statement.created - CLOCK_TOLERANCE_SECONDS:
        return
    keys = (trust.keys[bytes.fromhex(key_id)] for key_id in key_ids)
    if statement.not_after is not None or any(key.not_after is not None for key in keys):
        raise RefusedError(
            Reason.NOT_YET_VALID,
            f"the clock is not set, {format_time(now)} is before the object's creation at"
            f" {format_time(statement.created)}, and the validity is limited",
            hint="set this machine's clock; clock and earliest of a policy are for machines without one",
        )


def _check_policy(statement: Statement, trust: TrustStore) -> None:
    """Do rules 1 to 3 of step 12."""
    if trust.project is not None and statement.project != trust.project:
        raise _denied(f"signed for project {statement.project}, not {trust.project}", "project")
    if trust.platforms is not None and statement.platform not in trust.platforms:
        raise _denied(
            f"platform {statement.platform!r} is not allowed, only {_list(trust.platforms)}", "platforms"
        )
    for program in statement.programs:
        if trust.program_types is not None and program.type not in trust.program_types:
            raise _denied(
                f"program {program.name!r} of type {program.type!r} is not allowed,"
                f" only {_list(trust.program_types)}",
                "programTypes",
            )
    for item in statement.maps:
        if item.type == STRUCT_OPS and not _allows_struct_ops(trust):
            raise _denied(
                f"map {item.name!r} of type {STRUCT_OPS} is not allowed,"
                f" only {_list(trust.program_types or ())}",
                "programTypes",
            )


def _check_code(statement: Statement, obj: ElfObject, trust: TrustStore) -> None:
    """Do rules 4 to 8 of step 12."""
    try:
        code = read_code(obj)
    except ObjectFormatError as error:
        raise _denied(f"the code cannot be read: {error.message}", "") from error
    loaded: dict[str, set[str]] = {}
    for program in statement.programs:
        loaded.setdefault(program.section.removeprefix("?"), set()).add(program.loaded_as)
    for section in sorted(code.sections):
        name = section.decode("utf-8", "surrogateescape")
        point = name.removeprefix("?")
        # Only a name that libbpf does not know can be declared. Each program of the section counts.
        declared = loaded.get(point, ()) if section_type(point) == UNKNOWN_PROGRAM else ()
        for each in declared or (point,):
            _check_section(name, each, trust)
    _check_maps(obj, trust)
    if trust.denied_helpers is not None:
        _check_calls(helper_name, code.helpers, set(statement.helpers), trust.denied_helpers, "deniedHelpers")
    if trust.denied_kfuncs is not None:
        listed, denied = (
            {name.encode() for name in names} for names in (statement.kfuncs, trust.denied_kfuncs)
        )
        _check_calls(_show_name, code.kfuncs, listed, denied, "deniedKfuncs")
        plain = frozenset(map(without_flavour, code.kfuncs))
        _check_calls(_show_name, plain, None, denied, "deniedKfuncs")


def _check_section(name: str, point: str, trust: TrustStore) -> None:
    """Check section *name*, which is loaded as *point*, by rules 5 and 6 of step 12."""
    kind = section_type(point)
    if trust.program_types is not None and kind not in trust.program_types:
        raise _denied(
            f"section {name!r} of type {kind} is not allowed, only {_list(trust.program_types)}",
            "programTypes",
        )
    if not allows_point(trust, point):
        raise _denied(
            f"attach point {point!r} is not allowed, only {_list(trust.attach_points or ())}",
            "attachPoints",
        )


def _check_maps(obj: ElfObject, trust: TrustStore) -> None:
    """Check maps by rules 4 to 6 of step 12 (spec/trust-policy.md)."""
    if trust.program_types is None and trust.attach_points is None:
        return
    try:
        points = read_points(obj)
    except ObjectFormatError as error:
        raise _denied(f"the maps cannot be read: {error.message}", "") from error
    sections = struct_ops_sections(obj)
    if sections and not _allows_struct_ops(trust):
        raise _denied(
            f"section {_show_name(min(sections))} of type {STRUCT_OPS} is not allowed,"
            f" only {_list(trust.program_types or ())}",
            "programTypes",
        )
    for point in points:
        name = point.point.decode("utf-8", "surrogateescape")
        if trust.attach_points is not None and not any(_matches(p, name) for p in trust.attach_points):
            raise _denied(
                f"map {_show_name(point.name)}: attach point {name!r} is not allowed,"
                f" only {_list(trust.attach_points)}",
                "attachPoints",
            )


def _allows_struct_ops(trust: TrustStore) -> bool:
    return trust.program_types is None or STRUCT_OPS in trust.program_types


def _check_calls(
    show: Callable[[Any], str],
    called: AbstractSet[Any],
    listed: AbstractSet[Any] | None,
    denied: AbstractSet[Any],
    rule: str,
) -> None:
    if listed is not None and (unlisted := called - listed):
        raise _denied(f"the code calls {show(min(unlisted))}, which its statement does not list", rule)
    if found := called & denied:
        raise _denied(f"the code calls {show(min(found))}, which is denied", rule)


def _show_name(name: bytes) -> str:
    return repr(name.decode("utf-8", "replace"))


def allows_point(trust: TrustStore, name: str) -> bool:
    """Say whether rule 6 of step 12 accepts *name*, a section or, for a loader's target, SECTION/TARGET."""
    return trust.attach_points is None or any(_matches(pattern, name) for pattern in trust.attach_points)


def _matches(pattern: str, name: str) -> bool:
    # A name with /../ could leave the directory of the pattern.
    if "/../" in name:
        return False
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _check_version(statement: Statement, trust: TrustStore, remembered: int) -> None:
    """Do step 13."""
    minimum = trust.minimum_versions.get(statement.name, 0)
    if statement.version < minimum:
        raise RefusedError(
            Reason.ROLLED_BACK,
            f"version {statement.version} of {statement.name} is older than {minimum}",
            hint="raise project.version and sign again; minimumVersion of the policy sets the bound",
        )
    if statement.version < remembered and not trust.allow_rollback:
        text = f"version {statement.version} of {statement.name} is older than {remembered}, accepted before"
        raise RefusedError(
            Reason.ROLLED_BACK, text, hint="allowRollback of the policy lets older releases start again"
        )


def _denied(message: str, rule: str) -> RefusedError:
    """Return the refusal by *rule*, a member of the policy."""
    return RefusedError(
        Reason.DENIED_BY_POLICY, message, hint=f"{rule} of the policy sets this rule" if rule else None
    )


def _list(allowed: Iterable[str]) -> str:
    """Return the names that a rule allows, in a form for messages."""
    names = sorted(repr(name)[1:-1] for name in allowed)
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more or "none at all"
