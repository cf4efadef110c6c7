# SPDX-License-Identifier: Apache-2.0
"""What `buildtool check` finds: facts of objects, findings by rule, and what kernels said of each program."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters: only errors fail a check."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Outcome(StrEnum):
    """
    What a kernel did with a program.

    *refused* is the kernel verifier's word; *failed* means that the program did
    not get that far (a map, a relocation, a type that is not there).
    """

    LOADS = "loads"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLine:
    """A line of C: its *text*, and *file* and *line* where they are known (else empty and 0)."""

    text: str
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    A rule (docs/reference/check-rules.md) that *object*, or a *program* of it, breaks.

    *path* is the object's file; empty where a kernel is meant.
    """

    rule: str
    level: Level
    object: str
    message: str
    hint: str
    program: str = ""
    path: str = ""
    source: SourceLine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFacts:
    """A program: *instructions* of its own, and *stack_bytes* of its deepest chain of calls."""

    name: str
    section: str
    type: str
    instructions: int
    stack_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """
    What can be said of the object *name* without a kernel.

    *platform* is the signed statement's, empty when there is none. Maps take
    about *map_bytes*, and *map_bytes_per_cpu* for each CPU.
    """

    name: str
    path: str
    platform: str
    size: int
    programs: tuple[ProgramFacts, ...]
    helpers: tuple[str, ...]
    kfuncs: tuple[str, ...]
    map_bytes: int
    map_bytes_per_cpu: int
    license: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a kernel said of a program: see `Outcome`; *instructions* are those that it looked at."""

    outcome: Outcome
    instructions: int = 0
    peak_states: int = 0
    reason: str = ""
    source: SourceLine | None = None
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRun:
    """The *verdict* on a program by the kernel that was asked for as *kernel* and is *release*."""

    object: str
    path: str
    program: str
    section: str
    kernel: str
    release: str
    arch: str
    duration_us: int
    verdict: Verdict

    @property
    def loads(self) -> bool:
        """Whether the kernel took it."""
        return self.verdict.outcome is Outcome.LOADS


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All of a check."""

    objects: tuple[ObjectFacts, ...]
    findings: tuple[Finding, ...]
    runs: tuple[ProgramRun, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there is neither an error nor a program that a kernel did not take."""
        return all(f.level is not Level.ERROR for f in self.findings) and all(r.loads for r in self.runs)
