# SPDX-License-Identifier: Apache-2.0
"""Find sections of programs that libbpf does not know, and the section that other loaders take them for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from buildtool.adopt.csource import without_comments
from buildtool.adopt.model import Found
from buildtool.adopt.tree import Tree
from buildtool.objects.types import UNKNOWN_PROGRAM, section_type

# SEC("classifier/x") before a function or a macro with a function: int f(…), int BPF_PROG(f, …).
_PROGRAM = re.compile(
    r'\b(?:SEC|__section|BPF_SEC)\s*\(\s*"\??([^"\n]+)"\s*\)\s*(?:[\w*]+\s+)*?[\w*]+\s*\(', re.DOTALL
)
# cilium/ebpf and libbpf before 1.0 compare the beginnings of names. The kinds are those of
# cilium/ebpf's elf_sections.go and of libbpf 0.8's section_defs, by sections without a target of libbpf 1.x.
_BEGINNINGS = {
    "classifier": "tc",
    "tc": "tc",
    "action": "action",
    "socket": "socket",
    "xdp": "xdp",
    "perf_event": "perf_event",
    "sockops": "sockops",
    "sk_msg": "sk_msg",
    "lwt_in": "lwt_in",
    "lwt_out": "lwt_out",
    "lwt_xmit": "lwt_xmit",
    "cgroup_skb/ingress": "cgroup_skb/ingress",
    "cgroup_skb/egress": "cgroup_skb/egress",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """[[compile.program]]: programs of *section*, a name or a beginning and *, are *loaded_as* another."""

    section: str
    loaded_as: str


def declare_sections(tree: Tree, names: Iterable[str], found: Found) -> list[Declared]:
    """Return a table for each kind of unknown section in the sources *names*, and note the others."""
    tables: dict[str, Declared] = {}
    for name in names:
        for section in _find_unknown(tree, name):
            beginning = _find_beginning(section)
            if beginning is None:
                found.note(
                    name,
                    f"section {section}: libbpf knows no such kind of program: see [[compile.program]]",
                )
                continue
            # One table for all names behind a slash.
            whole = f"{beginning}/*" if section.startswith(f"{beginning}/") else section
            tables.setdefault(whole, Declared(section=whole, loaded_as=_BEGINNINGS[beginning]))
    return [tables[key] for key in sorted(tables)]


def _find_unknown(tree: Tree, name: str) -> list[str]:
    sections = _PROGRAM.findall(without_comments(tree.read(name)))
    unknown = (each for each in sections if section_type(each) == UNKNOWN_PROGRAM)
    return sorted({each for each in unknown if not each.startswith(".") and "*" not in each})


def _find_beginning(section: str) -> str | None:
    """Return the longest beginning that a loader would compare with, before a slash, digit or low line."""
    fitting = [
        each
        for each in _BEGINNINGS
        if re.match(rf"{re.escape(each)}[/_0-9]", section) and section.isprintable()
    ]
    return max(fitting, key=len, default=None) if section.isprintable() else None
