# SPDX-License-Identifier: Apache-2.0
"""Add signatures to signed objects, or remove them. The statement does not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from buildtool.core.errors import AlreadySignedError, ObjectFormatError, SigningKeyError
from buildtool.core.files import choose_targets, made_directories, write_all_atomic
from buildtool.objects.describe import describe_object
from buildtool.objects.elf import (
    ElfObject,
    find_signature_section,
    has_signature_section,
    parse_object,
    read_object_file,
    subject_digest,
)
from buildtool.objects.tables import Section
from buildtool.signing.dsse import signing_input
from buildtool.signing.keys import KeyId, parse_key_digits
from buildtool.signing.record import MAX_SIGNATURES, SignatureEntry, SignatureRecord, room_for
from buildtool.signing.record import from_bytes as parse_record
from buildtool.signing.record import to_bytes as encode_record
from buildtool.signing.signers.signer import Signer, take_signature
from buildtool.signing.statement import Statement
from buildtool.signing.statement import from_bytes as parse_statement

_ANEW = "compile it again, or get it again; buildtool sign without --add makes a new statement"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedFile:
    """
    A file with changed signatures: its *path*, its *statement*, and the *key_ids* of its signatures.

    *changed* is the key whose signature was added or removed.
    """

    path: Path
    statement: Statement
    key_ids: tuple[KeyId, ...]
    changed: KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class _SignedObject:
    obj: ElfObject
    section: Section
    record: SignatureRecord
    statement: Statement

    def with_signatures(self, entries: Sequence[SignatureEntry]) -> tuple[bytes, SignatureRecord]:
        record = replace(self.record, signatures=tuple(sorted(entries, key=lambda entry: entry.key_id)))
        data = self.obj.data
        changed = data[: self.section.offset] + encode_record(record) + data[self.section.end :]
        return changed, record


_Change = Callable[[_SignedObject], Sequence[SignatureEntry]]


def add_signatures(paths: Sequence[Path], signer: Signer, *, output: Path | None = None) -> list[ChangedFile]:
    """
    Add *signer*'s signature to each of *paths*, or to none.

    The statement is compared with the object first, so that no signer confirms wrong claims. Files
    are changed in place, or written to directory *output*.

    Raises: UsageError, FileAccessError, ObjectFormatError, AlreadySignedError, SigningKeyError;
    errors of *signer*.
    """

    def add(signed: _SignedObject) -> list[SignatureEntry]:
        entries = list(signed.record.signatures)
        key_id = bytes.fromhex(signer.key_id)
        if any(entry.key_id == key_id for entry in entries):
            raise AlreadySignedError(
                f"already signed by key {signer.key_id}", hint="name another key by --key"
            )
        room = min(MAX_SIGNATURES, room_for(signed.record))
        if len(entries) >= room:
            raise ObjectFormatError(
                f"no room in its section .sig for more than {room} signatures",
                hint="--remove KEYID takes one out; sign it anew with --force, without --add",
            )
        _check_claims(signed)
        signature = take_signature(signer, signing_input(signed.record.statement))
        return [*entries, SignatureEntry(key_id=key_id, signature=signature)]

    return _change_files(paths, add, output)


def remove_signatures(paths: Sequence[Path], key_id: str, *, output: Path | None = None) -> list[ChangedFile]:
    """
    Remove the signature of *key_id*, or of the only key id that begins with it, from each of *paths*.

    Either all files change or none. They change in place, or are written to directory *output*.

    Raises: UsageError, FileAccessError, ObjectFormatError, SigningKeyError.
    """
    wanted = parse_key_digits(key_id, shown_by="buildtool inspect OBJECT")

    def remove(signed: _SignedObject) -> list[SignatureEntry]:
        entries = signed.record.signatures
        found = [entry for entry in entries if entry.key_id.hex().startswith(wanted)]
        if len(found) != 1:
            raise SigningKeyError(
                f"{len(found)} signatures by keys whose ids begin with {wanted}"
                if found
                else f"no signature by key {wanted}",
                hint="buildtool inspect OBJECT shows the signers; add digits until one of them is left"
                if found
                else "buildtool inspect OBJECT shows the signers",
            )
        if len(entries) == 1:
            raise SigningKeyError(
                "cannot remove the only signature",
                hint="add another signature first with sign --add, or replace it with sign --force",
            )
        return [entry for entry in entries if entry is not found[0]]

    return _change_files(paths, remove, output)


def _change_files(paths: Sequence[Path], change: _Change, output: Path | None) -> list[ChangedFile]:
    written: dict[Path, bytes] = {}
    changed = []
    for path, target in zip(paths, choose_targets(paths, output), strict=True):
        try:
            signed = _read_signed(path)
            written[target], record = signed.with_signatures(change(signed))
        except (ObjectFormatError, AlreadySignedError, SigningKeyError) as error:
            raise type(error)(f"{path}: {error.message}", hint=error.hint) from error
        key_ids = tuple(KeyId(entry.key_id.hex()) for entry in record.signatures)
        where = target if output else path
        before = {KeyId(entry.key_id.hex()) for entry in signed.record.signatures}
        (one,) = before.symmetric_difference(key_ids)
        changed.append(ChangedFile(path=where, statement=signed.statement, key_ids=key_ids, changed=one))
    with made_directories([output] if output else []):
        write_all_atomic(written, replace=output is None)
    return changed


def _read_signed(path: Path) -> _SignedObject:
    obj = parse_object(read_object_file(path))
    if not has_signature_section(obj):
        raise ObjectFormatError("not signed yet", hint="sign it first, without --add")
    section = find_signature_section(obj)
    record = parse_record(obj.contents(section))
    statement = parse_statement(record.statement)
    if statement.digest != subject_digest(obj, section):
        raise ObjectFormatError("the file has changed since it was signed", hint=_ANEW)
    return _SignedObject(obj=obj, section=section, record=record, statement=statement)


def _check_claims(signed: _SignedObject) -> None:
    """Check that the statement's claims about the object are true. Raises: ObjectFormatError."""
    programs = tuple(replace(program, attach=()) for program in signed.statement.programs)
    claimed = asdict(replace(signed.statement.contents, programs=programs))
    for what, found in asdict(describe_object(signed.obj, signed.statement.declared)).items():
        if claimed[what] != found:
            raise ObjectFormatError(f"the statement does not match the object: {what}", hint=_ANEW)
