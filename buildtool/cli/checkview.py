# SPDX-License-Identifier: Apache-2.0
"""How `buildtool check` shows what it found."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from buildtool.check.model import CheckReport, Finding, Level, ObjectFacts, ProgramRun, SourceLine
from buildtool.cli.output import clean_line, print_table

_KIB = 1024


def report_json(report: CheckReport) -> dict[str, Any]:
    """Return *report* as JSON."""
    return {
        "passed": report.passed,
        "objects": [asdict(facts) for facts in report.objects],
        "findings": [asdict(finding) for finding in report.findings],
        "runs": [asdict(run) for run in report.runs],
    }


def print_report(report: CheckReport) -> None:
    """Print facts, findings and, if kernels were asked, what each said of each program."""
    for facts in report.objects:
        click.echo("\n".join(clean_line(line) for line in _facts(facts)))
    if report.runs:
        click.echo()
        header, rows = matrix(report.runs)
        if not sys.stdout.isatty():
            rows = [header, *rows]  # fields separated by tabs have no other head
        print_table(rows, header)
    if report.findings:
        click.echo()
    print_findings(report)


def print_findings(report: CheckReport, *, err: bool = False) -> None:
    """Print each finding, with *err* on stderr; what to do about a rule is said once."""
    explained: set[str] = set()
    for finding in report.findings:
        click.echo("\n".join(clean_line(line) for line in _finding(finding, explained)), err=err)


def matrix(runs: Sequence[ProgramRun]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: a program each, and a column for each kernel and architecture."""
    columns = list(dict.fromkeys((run.kernel, run.arch) for run in runs))
    cells = {(run.object, run.program, run.kernel, run.arch): _cell(run) for run in runs}
    programs = list(dict.fromkeys((run.object, run.program) for run in runs))
    rows = [
        [
            clean_line(name),
            clean_line(program),
            *(cells.get((name, program, *column), "-") for column in columns),
        ]
        for name, program in programs
    ]
    return ["object", "program", *(" ".join(column) for column in columns)], rows


def markdown(report: CheckReport) -> str:
    """Return the table as Markdown, the longer side down, with the release of each kernel."""
    releases = {(run.kernel, run.arch): run.release for run in report.runs}
    _, rows = matrix(report.runs)
    names = [f"`{program}`" for _, program, *_ in rows]
    kernels = [f"{arch} {_short(release)}" for (_, arch), release in releases.items()]
    cells = [list(row[2:]) for row in rows]
    if len(kernels) > len(names):
        names, kernels = kernels, names
        cells = [list(column) for column in zip(*cells, strict=True)]
    lines = [f"| | {' | '.join(kernels)} |", "|---|" + "---:|" * len(kernels)]
    lines += [f"| {name} | {' | '.join(row)} |" for name, row in zip(names, cells, strict=True)]
    return "\n".join(lines)


def summary(report: CheckReport) -> str:
    """Return one line: what was checked and how it ended."""
    parts = [_count(len(report.objects), "object")]
    kernels = {(run.kernel, run.arch) for run in report.runs}
    if kernels:
        parts.append(f"{_count(len(report.runs), 'dry run')} on {_count(len(kernels), 'kernel')}")
    parts += [
        _count(number, level.value)
        for level in Level
        if (number := sum(finding.level is level for finding in report.findings))
    ]
    return ", ".join(parts) + (": passed" if report.passed else ": failed")


def _facts(facts: ObjectFacts) -> Iterator[str]:
    memory = f"{_kib(facts.map_bytes)} and {_kib(facts.map_bytes_per_cpu)} per CPU"
    needs = " ".join(facts.capabilities)
    yield f"{facts.name}: {facts.size} bytes, maps {memory}, license {facts.license or 'none'}, needs {needs}"
    for program in facts.programs:
        size = f"{program.instructions} instructions, {program.stack_bytes} bytes of stack"
        yield f"  {program.name}: {program.type}, SEC({program.section}), {size}"
    for what, names in (("helpers", facts.helpers), ("kfuncs", facts.kfuncs)):
        if names:
            yield f"  {what}: {' '.join(names)}"


def _finding(finding: Finding, explained: set[str]) -> Iterator[str]:
    """Yield the lines of *finding*, the hint unless it is *explained*."""
    where = f"{finding.object}: {finding.program}" if finding.program else finding.object
    yield f"{finding.level} {finding.rule} {where}: {finding.message}"
    if finding.source and (described := describe_source(finding.source)):
        yield f"    {described}"
    if finding.rule not in explained:
        yield f"    hint: {finding.hint}"
    explained.add(finding.rule)


def describe_source(source: SourceLine) -> str:
    """Return file, line and text of *source*, as far as they are known."""
    # clang writes the text only when it finds the source where the object says it is.
    where = f"{source.file}:{source.line}" if source.file else ""
    return ": ".join(filter(None, (where, source.text)))


def _cell(run: ProgramRun) -> str:
    return str(run.verdict.instructions) if run.loads else run.verdict.outcome.value


def _short(release: str) -> str:
    return release.partition("-")[0].partition("+")[0]


def _kib(size: int) -> str:
    return f"{size / _KIB:.1f} KiB"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
