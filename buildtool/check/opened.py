# SPDX-License-Identifier: Apache-2.0
"""
Opens objects with the carried libbpf, without a kernel and without privileges.

`verify-and-load` opens objects with the same libbpf, so a refusal here is a refusal on every machine.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildtool.check.model import RULES, Finding, Level, ObjectFacts
from buildtool.check.probe import OpenedObject, read_opened
from buildtool.core.errors import ToolFailedError
from buildtool.core.files import write_atomic
from buildtool.core.process import Runner
from buildtool.objects.types import UNKNOWN_PROGRAM, program_type

_MAX_WORDS = 300
_MAP_MEMBERS = (
    "type",
    "max_entries",
    "map_flags",
    "numa_node",
    "key_size",
    "key",
    "value_size",
    "value",
    "values",
    "pinning",
    "map_extra",
)
# Advice for the author of the source, by a pattern of libbpf's error.
_ADVICE: Mapping[str, str] = {
    r"legacy map definitions": "define maps in section .maps, with the macros of <bpf/bpf_helpers.h>",
    r"failed to find BTF for extern '(\S+)'": r"\1 is declared and not defined; kernel functions need __ksym",
    r"program '(\S+)' is static": r"remove static from \1, or its section if programs only call it",
    r"bad call relo against '(\S+)' in section": r"remove the section of \1, which is called",
    r"couldn't find symbol table": "strip with llvm-strip -g, which keeps the symbols",
    r"map type isn't specified": "add __uint(type, BPF_MAP_TYPE_...)",
    r"DATASEC '\S+' not found|BTF is required": "compile with -g; strip with llvm-strip -g, which keeps BTF",
}
_UNKNOWN_FIELD = re.compile(r"unknown field '(\w+)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """
    The result of opening an object with *libbpf*, a version.

    *refusal* is libbpf's error, or empty. *unknown* has program and section of each program whose type is
    unknown to this libbpf.
    """

    refusal: str = ""
    unknown: tuple[tuple[str, str], ...] = ()
    libbpf: str = ""


def open_objects(
    probe: Path, objects: Sequence[bytes], runner: Runner, timeout_seconds: float
) -> list[Opened]:
    """
    Return the result of opening each of *objects*.

    Each is opened in its own process, because some damaged objects crash libbpf.

    Raises: ToolMissingError; ToolFailedError if the probe fails for another reason.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        path = Path(work, "object.bpf.o")
        for data in objects:
            write_atomic(path, data, replace=True)
            argv = [str(probe), "--open", str(path)]
            done = runner.run(argv, check=False, timeout_seconds=timeout_seconds)
            if done.returncode < 0:
                found.append(Opened(refusal="libbpf crashes on this object"))
            elif done.returncode:
                raise ToolFailedError(f"{probe.name}: exit code {done.returncode}")
            else:
                found.append(_describe(read_opened(done.stdout.decode()), str(path)))
    return found


def opening_findings(facts: ObjectFacts, opened: Opened, *, path: str = "") -> Iterator[Finding]:
    """Yield what libbpf finds in the object of *facts*, at *path*."""
    if opened.refusal:
        yield RULES["BT007"].finding(facts.name, opened.refusal, path=path)
    # An optional program fails only the start that asks for it.
    optional = {program.name for program in facts.programs if program.section.startswith("?")}
    for program, section in opened.unknown:
        # What is unknown to both is BT005.
        if program_type(section) == UNKNOWN_PROGRAM:
            continue
        message = f"the loader's libbpf {opened.libbpf.removeprefix('v')} does not know section {section!r}"
        level = Level.WARNING if program in optional else None
        yield RULES["BT009"].finding(facts.name, message, program=program, path=path, level=level)


def _describe(opened: OpenedObject, path: str) -> Opened:
    unknown = tuple((p.program, p.section) for p in opened.programs if p.type == "unspec")
    return Opened(refusal=_explain(opened, path), unknown=unknown, libbpf=opened.libbpf)


def _explain(opened: OpenedObject, path: str) -> str:
    """Return libbpf's first warning or its error, with advice if _ADVICE has some. Empty without an error."""
    if not opened.error:
        return ""
    lines = [line.removeprefix("libbpf: ") for line in opened.warnings.splitlines() if line.strip()]
    words = " ".join((lines or [opened.error])[0].replace(f" in {path}", "").split())[:_MAX_WORDS].rstrip(".")
    for pattern, advice in _ADVICE.items():
        if found := re.search(pattern, words):
            return f"{words} ({found.expand(advice)})"
    if (found := _UNKNOWN_FIELD.search(words)) and (
        close := difflib.get_close_matches(found[1], _MAP_MEMBERS, 1)
    ):
        return f"{words} (did you mean {close[0]}?)"
    return words
