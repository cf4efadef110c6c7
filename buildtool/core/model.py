# SPDX-License-Identifier: Apache-2.0
"""Frozen values that the stages hand to each other. No I/O, no behaviour beyond views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NewType

KeyId = NewType("KeyId", str)
"""SHA-256 of the DER SubjectPublicKeyInfo, 64 lower-case hex digits (spec, "Key id")."""

Digest = NewType("Digest", str)
"""A SHA-256 as 64 lower-case hex digits, without a prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureEntry:
    """One signer: *key_id* (32 bytes) and *signature* (64 bytes, Ed25519)."""

    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureRecord:
    """All of `.sig`: *section_size* in bytes, the *statement*'s bytes, sorted *signatures*."""

    section_size: int
    statement: bytes
    signatures: tuple[SignatureEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramInfo:
    """A program of an object: function *name*, ELF *section*, libbpf *type*, default *attach* targets."""

    name: str
    section: str
    type: str
    attach: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MapInfo:
    """A map of an object; sizes in bytes, *type* as in libbpf (hash, percpu_array)."""

    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolchainInfo:
    """What compiled an object: *compiler* (name and version) and its *flags*."""

    compiler: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """Where an object came from: *path* inside the project, *sha256* over the source and what it includes."""

    path: str
    sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """
    The signed statement (spec/sig-section.md, "Statement").

    *version* is the monotonic integer against rollback, *release* the human one;
    *created* and *not_after* are seconds since the epoch, UTC.
    """

    name: str
    digest: Digest
    platform: str
    project: str
    version: int
    release: str
    created: int
    not_after: int | None
    programs: tuple[ProgramInfo, ...]
    maps: tuple[MapInfo, ...]
    helpers: tuple[int, ...]
    kfuncs: tuple[str, ...]
    license: str
    toolchain: ToolchainInfo | None
    source: SourceInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledObject:
    """One object of the compile stage: its *path*, and what the statement will say of it."""

    path: Path
    platform: str
    sha256: Digest
    toolchain: ToolchainInfo
    source: SourceInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """
    What a build gives: *reference* (tag), *digest* (sha256:...), *platforms*, *key_id*.

    *engine* made it, docker or local; *file* is the archive or directory, when it is in one.
    Files that are no image have neither reference nor digest.
    """

    reference: str
    digest: str
    platforms: tuple[str, ...]
    key_id: KeyId
    engine: str = "docker"
    file: str = ""
