# SPDX-License-Identifier: Apache-2.0
"""Make the command of `bpf-probe`, which loads programs for a dry run, and read its output."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from buildtool.check.model import LoadVerdict
from buildtool.check.verifierlog import read_verdict
from buildtool.core.errors import ToolFailedError
from buildtool.objects.capabilities import CAPABILITY_NUMBERS, capabilities_of
from buildtool.runtime.carried import PROBE_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedProgram:
    """The *verdict* on *program* in file *path*, or on the whole object if *program* is empty."""

    path: str
    program: str
    section: str
    duration_us: int
    verdict: LoadVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOutput:
    """The output of a probe: the kernel's *release*, and its *programs*."""

    release: str
    programs: tuple[ProbedProgram, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedProgram:
    """A program of an object that libbpf opened. *type* is libbpf's name, unspec for an unknown section."""

    program: str
    section: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedObject:
    """The result of opening an object with *libbpf*, a version. *error* is empty if libbpf opened it."""

    libbpf: str
    programs: tuple[OpenedProgram, ...]
    error: str = ""
    warnings: str = ""


def read_probe(output: str) -> ProbeOutput:
    """
    Return the parsed *output* of a probe.

    Raises: ToolFailedError, if the output is incomplete or of another program.
    """
    release, programs, ended = "", [], False
    for line in output.splitlines():
        event = _parse(line)
        if event.get("event") == "kernel":
            release = str(event["release"])
        elif event.get("event") in ("program", "object"):
            programs.append(_read_program(event))
        ended = ended or event.get("event") == "end"
    if not ended:
        detail = "\n".join(output.splitlines()[-3:])[-2000:] or None
        raise ToolFailedError(
            f"{PROBE_NAME}: ended early", hint="dmesg shows whether memory ran out", detail=detail
        )
    return ProbeOutput(release=release, programs=tuple(programs))


def read_opened(output: str) -> OpenedObject:
    """
    Return the parsed *output* of a probe that opened one object.

    Raises: ToolFailedError, if the output is cut off or not a probe's.
    """
    events = [_parse(line) for line in output.splitlines()]
    if not events or events[-1].get("event") != "end":
        raise ToolFailedError(f"{PROBE_NAME}: ended early")
    failed = next((event for event in events if event.get("event") == "object"), {})
    return OpenedObject(
        libbpf=str(events[0].get("libbpf", "")),
        programs=tuple(
            OpenedProgram(**{key: str(event[key]) for key in ("program", "section", "type")})
            for event in events
            if event.get("event") == "opened"
        ),
        error=str(failed.get("error", "")),
        warnings=str(failed.get("warnings", "")),
    )


def _parse(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}  # the console of a virtual machine may contain other lines
    return event if isinstance(event, dict) else {}


def _read_program(event: Mapping[str, Any]) -> ProbedProgram:
    error, log, warnings = (str(event.get(key, "")) for key in ("error", "log", "warnings"))
    verdict = read_verdict(int(event["errno"]), error, log, warnings)
    return ProbedProgram(
        path=str(event["object"]),
        program=str(event.get("program", "")),
        section=str(event.get("section", "")),
        duration_us=int(event.get("durationUs", 0)),
        verdict=replace(verdict, missing=capabilities_of(int(event.get("missing", "0"), 16))),
    )


def probe_argv(
    probe: str,
    objects: Iterable[tuple[str, Iterable[tuple[str, str]], Mapping[str, int]]],
    capabilities: Iterable[str],
) -> list[str]:
    """
    Return the command that asks about *objects*, as if an image had *capabilities*.

    Each of *objects* is a path, pairs of a section and the section by which its programs are loaded, and the
    entries of maps that are not those of the object.
    """
    mask = sum(1 << CAPABILITY_NUMBERS[name] for name in set(capabilities))
    argv = [probe, "--capabilities", f"{mask:x}"]
    for path, declared, entries in objects:
        argv += [word for pair in declared for word in ("--declare", *pair)]
        argv += [word for name, count in entries.items() for word in ("--map-entries", name, str(count))]
        argv.append(path)
    return argv
