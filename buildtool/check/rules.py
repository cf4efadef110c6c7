# SPDX-License-Identifier: Apache-2.0
"""
The rules of `buildtool check`, by number. docs/reference/check-rules.md explains each.

A number means the same for ever: projects name it to silence it.
"""

from __future__ import annotations

from dataclasses import dataclass

from buildtool.check.model import Finding, Level, SourceLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule: its *number* (BT001), *level*, *title*, and *hint*: what to do."""

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
        """Make the finding that object *name* breaks this rule."""
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
    ("BT002", _E, "too large", "split it: verifiers refuse objects above 16 MiB"),
    ("BT003", _E, "too many instructions", "no kernel takes more than a million: split it by tail calls"),
    ("BT004", _W, "much map memory", "lower max_entries, or allocate on demand (BPF_F_NO_PREALLOC)"),
    ("BT005", _E, "unknown section", 'name it as libbpf does: SEC("xdp"), SEC("tp_btf/...")'),
    ("BT006", _W, "no program", "a program is a global function with SEC(...)"),
    ("BT010", _E, "GPL-only helper", 'give it a license that the GPL accepts: "GPL" or "Dual BSD/GPL"'),
    ("BT011", _W, "no license", 'char LICENSE[] SEC("license") = "Dual BSD/GPL"; names it'),
    ("BT012", _N, "unknown helper", "a newer buildtool may know it"),
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
    ("BT100", _E, "refused by the kernel verifier", "--json and --junit have the kernel verifier's log"),
    ("BT101", _E, "cannot be loaded", "this kernel lacks something that the program needs"),
    ("BT102", _E, "kernel did not answer", "give it more time with --timeout, or leave it out"),
    (
        "BT103",
        _W,
        "near the limit",
        "a newer kernel may look at more of them: make loops shorter, or split it",
    ),
)
RULES = {row[0]: Rule(number=row[0], level=row[1], title=row[2], hint=row[3]) for row in _TABLE}
