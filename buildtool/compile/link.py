# SPDX-License-Identifier: Apache-2.0
"""
Link the objects of several sources into one, by the static linker of the loader's libbpf.

The linker is a mode of `bpf-probe`, which the callers find, because its finder is above this package. The
result depends on the objects and their order only, so each machine and each engine gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildtool.compile.toolchain import clean_environment
from buildtool.core.errors import CompileError, ObjectFormatError, ToolMissingError
from buildtool.core.files import read_bounded
from buildtool.core.process import run_parallel
from buildtool.objects.btf import Btf
from buildtool.objects.elf import MAX_OBJECT_BYTES, ElfObject, parse_object, read_link_tables

CANNOT_LINK = "cannot link"  # after the object's name, in the message for objects that libbpf refused
# BTF lists what the kernel or libbpf defines, and no source of the object, in these groups.
_GIVEN = (b".ksyms", b".kconfig")
_CONFLICT_HINT = (
    "sources of one object have one definition of each name, equal types and maps, and one license"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkJob:
    """An object to link: *name* and *arch* for messages, the *objects* by source, and its path *output*."""

    name: str
    arch: str
    objects: tuple[tuple[str, Path], ...]
    output: Path

    @property
    def shown(self) -> str:
        """The object in messages."""
        return f"{self.name} ({self.arch})"


def link_objects(linker: Path | None, jobs: Sequence[LinkJob], *, parallel: int) -> None:
    """
    Link the objects of each of *jobs* by program *linker*, at most *parallel* at once.

    Raises: CompileError, also for a function or variable that no source defines; ToolMissingError, without
    *linker*; ToolFailedError.
    """
    if not jobs:
        return
    if linker is None:
        raise ToolMissingError(
            f"{jobs[0].name}: no bpf-probe to link its sources with",
            hint="BUILDTOOL_PROBES names its directory",
        )
    commands = [
        [str(linker), "--link", str(job.output), *(str(path) for _, path in job.objects)] for job in jobs
    ]
    done = run_parallel(commands, jobs=parallel, env=clean_environment())
    for job, end in zip(jobs, done, strict=True):
        if end.returncode != 0:
            raise CompileError(
                f"{job.shown}: {CANNOT_LINK} {_explain(job, end.stderr.decode(errors='replace'))}",
                hint=_CONFLICT_HINT,
            )
        _check_defined(job)


def _explain(job: LinkJob, said: str) -> str:
    """Return libbpf's words on one line: the refused source, then the reasons, with sources for objects."""
    for source, path in job.objects:
        said = said.replace(str(path), source)
    lines = [line for line in map(str.strip, said.splitlines()) if line]
    refused = next((line.removeprefix("bpf-probe: ") for line in lines if line.startswith("bpf-probe: ")), "")
    reasons = [line.removeprefix("libbpf: ") for line in lines if line.startswith("libbpf: ")]
    source, _, problem = refused.partition(": ")
    return f"{source or job.name}: {'; '.join(reasons) or problem or 'the linker was ended'}"


def _check_defined(job: LinkJob) -> None:
    """Refuse an object with a name that is declared extern, but that none of its sources defines."""
    obj = parse_object(read_bounded(job.output, MAX_OBJECT_BYTES))
    names = sorted(set(_undefined(obj)))
    if names:
        sources = ", ".join(source for source, _ in job.objects)
        raise CompileError(
            f"{job.shown}: {', '.join(names)}: declared extern, and defined in none of {sources}",
            hint="add the source that defines it to [[compile.object]]; what a kernel defines needs __ksym",
        )


def _undefined(obj: ElfObject) -> Iterator[str]:
    section = next((section for section in obj.sections if section.name == b".BTF"), None)
    if section is None:
        raise ObjectFormatError("linked without BTF")
    btf = Btf(obj.contents(section), obj.order)
    given = frozenset[str]().union(*(btf.group_names(group) for group in _GIVEN))
    for symbol in read_link_tables(obj).symbols:
        if symbol.section == 0 and symbol.name and not symbol.is_local and symbol.name not in given:
            yield symbol.name
