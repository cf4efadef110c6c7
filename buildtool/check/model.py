# SPDX-License-Identifier: Apache-2.0
"""
Types of `buildtool check`: rules by number, facts of objects, findings, and verdicts of kernels.

docs/reference/check-rules.md describes each rule. A number never changes its meaning, because
projects silence rules by number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The level of a finding. Only errors fail a check."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Outcome(StrEnum):
    """
    The result of loading a program.

    *refused* means that the kernel verifier refused the program. *failed* means an error before
    the kernel verifier, such as a missing map type, relocation target or program type.
    """

    LOADS = "loads"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLine:
    """A line of C: its *text*, *file* (empty if unknown) and *line* (0 if unknown)."""

    text: str
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    A *rule* (docs/reference/check-rules.md) that *object*, or its *program*, breaks.

    *path* is the object's file, or empty for a finding about a kernel.
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
    """A program: *instructions* with all called functions, and *stack_bytes* of the deepest call chain."""

    name: str
    section: str
    type: str
    instructions: int
    stack_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """
    Facts about object *name* that need no kernel.

    *platform* comes from the signed statement, and is empty without one. *points* are the attach points,
    as in policies, of struct_ops maps and of maps that are pinned by name. Full maps use about
    *map_bytes*, and *map_bytes_per_cpu* for each CPU.
    """

    name: str
    path: str
    platform: str
    size: int
    programs: tuple[ProgramFacts, ...]
    points: tuple[str, ...]
    helpers: tuple[str, ...]
    kfuncs: tuple[str, ...]
    map_bytes: int
    map_bytes_per_cpu: int
    license: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadVerdict:
    """
    A kernel's verdict on a program. *instructions* is the number that the kernel verifier processed.

    With the *missing* capabilities the program would have loaded.
    """

    outcome: Outcome
    instructions: int = 0
    peak_states: int = 0
    reason: str = ""
    source: SourceLine | None = None
    log: str = ""
    missing: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """The number of the rule that a program with this verdict breaks, or empty text if it loads."""
        if self.missing:
            return "BT104"
        return {Outcome.REFUSED: "BT100", Outcome.FAILED: "BT101"}.get(self.outcome, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRun:
    """
    The *verdict* on a program by the kernel named *kernel* in the request, which is *release*.

    The program had *capabilities* and no other. *is_spare*: it is optional, and the image does not load it.
    """

    object: str
    path: str
    program: str
    section: str
    kernel: str
    release: str
    arch: str
    duration_us: int
    verdict: LoadVerdict
    capabilities: tuple[str, ...] = ()
    is_spare: bool = False

    @property
    def loads(self) -> bool:
        """True if the kernel loaded the program."""
        return self.verdict.outcome is Outcome.LOADS


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The result of a check."""

    objects: tuple[ObjectFacts, ...]
    findings: tuple[Finding, ...]
    runs: tuple[ProgramRun, ...] = ()

    @property
    def passed(self) -> bool:
        """True without errors, if each kernel loaded each program, except spare ones."""
        loaded = all(run.loads or run.is_spare for run in self.runs)
        return loaded and all(f.level is not Level.ERROR for f in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule: its *number* (BT001), *level*, *title*, and *hint* for the user."""

    number: str
    level: Level
    title: str
    hint: str

    def finding(
        self,
        name: str,
        message: str,
        *,
        program: str = "",
        path: str = "",
        source: SourceLine | None = None,
        level: Level | None = None,
    ) -> Finding:
        """Return the finding that object *name* breaks this rule."""
        return Finding(
            rule=self.number,
            level=level or self.level,
            object=name,
            program=program,
            path=path,
            message=message,
            hint=self.hint,
            source=source,
        )


_E, _W, _N = Level.ERROR, Level.WARNING, Level.NOTE
_TABLE = (
    ("BT001", _E, "not an eBPF object", "compile it with buildtool compile"),
    ("BT002", _E, "too large", "split it: verifiers refuse objects above 64 MiB"),
    ("BT003", _E, "too many instructions", "no kernel takes more than a million: split it by tail calls"),
    ("BT004", _W, "much map memory", "lower max_entries, or allocate on demand (BPF_F_NO_PREALLOC)"),
    ("BT005", _E, "unknown section", "name it as libbpf does, or declare it by [[compile.program]]"),
    ("BT006", _W, "no program", "a program is a global function with SEC(...)"),
    ("BT007", _E, "refused by libbpf", "the loader opens objects with libbpf: the message has its words"),
    ("BT008", _N, "not opened by libbpf", "`make loaders` makes bpf-probe in a checkout; wheels carry it"),
    ("BT009", _E, "newer than libbpf", "bpf-probe is older than this buildtool: unset BUILDTOOL_PROBES"),
    ("BT010", _E, "GPL-only helper", 'give it a license that the GPL accepts: "GPL" or "Dual BSD/GPL"'),
    ("BT011", _W, "no license", 'char LICENSE[] SEC("license") = "Dual BSD/GPL"; names it'),
    ("BT012", _N, "unknown helper", "a newer buildtool may know it"),
    ("BT013", _E, "impossible map", "no kernel creates it: correct its definition in section .maps"),
    ("BT014", _E, "replaces a function", "write freplace/FUNCTION; start with --attach NAME=OBJECT:PROGRAM"),
    ("BT015", _E, "unused struct_ops program", "name it in a variable of section .struct_ops.link"),
    (
        "BT016",
        _E,
        "function of another object",
        "link its source: sources in [[compile.object]]",
    ),
    ("BT017", _E, "USDT without its maps", "include <bpf/usdt.bpf.h>, which defines the maps of probes"),
    ("BT020", _E, "stack frame too large", "move large variables into a per-CPU array of one element"),
    ("BT021", _E, "stack of calls too deep", "functions that call each other share 512 bytes"),
    ("BT022", _N, "variable stack offset", "the kernel verifier must be able to bound the index"),
    ("BT023", _E, "unbounded stack", "no kernel takes recursion, or more than eight frames"),
    ("BT030", _W, "no BTF", "compile with -g; strip with llvm-strip -g, which keeps BTF"),
    ("BT031", _E, "CO-RE without BTF", "strip with llvm-strip -g, which keeps both sections or none"),
    ("BT040", _E, "expired", "sign it again with a later --not-after"),
    ("BT041", _W, "expires soon", "sign it again with a later --not-after"),
    ("BT042", _E, "malformed signature", "sign it again: every verifier refuses it"),
    ("BT050", _E, "newer than the kernel", "ask for a newer kernel, or leave it out there with an #ifdef"),
    (
        "BT060",
        _E,
        "older than its source",
        "buildtool compile --arch ARCH makes it again; remove an object whose source is gone",
    ),
    ("BT070", _E, "wrong metric", "spec/metrics.md has the form of a tag and the rules for names"),
    ("BT100", _E, "refused by the kernel verifier", "--json and --junit have the kernel verifier's log"),
    ("BT101", _E, "cannot be loaded", "this kernel lacks something that the program needs"),
    ("BT102", _E, "kernel did not answer", "give it more time with --timeout, or leave it out"),
    (
        "BT103",
        _W,
        "near the limit",
        "a newer kernel may look at more of them: make loops shorter, or split it",
    ),
    (
        "BT104",
        _E,
        "capability is missing",
        "list all that the programs need in image.capabilities of buildtool.toml",
    ),
)
RULES = {row[0]: Rule(number=row[0], level=row[1], title=row[2], hint=row[3]) for row in _TABLE}
