# SPDX-License-Identifier: Apache-2.0
"""`buildtool check` and its view."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from buildtool.check.kernelfacts import check_kernel_release
from buildtool.check.model import CheckReport, Finding, Level, ObjectFacts, ProgramRun, SourceLine
from buildtool.check.reports import diagnose, junit_report, sarif_report
from buildtool.check.run import CheckRequest, check_objects
from buildtool.check.targets import apply_settings, choose_arches, find_targets
from buildtool.cli.annotations import annotate
from buildtool.cli.codequality import code_quality_option, quality_report
from buildtool.cli.options import OutputPath, arch_option, checked, config_option, json_option, read_config
from buildtool.cli.output import clean_line, print_json, print_table, say
from buildtool.config.file import ImageConfig
from buildtool.core.errors import EXIT_DONE, EXIT_FAILED, UsageError
from buildtool.core.files import check_target, check_writable, write_atomic
from buildtool.core.validate import check_setting
from buildtool.image.cioutputs import SUMMARY_VARIABLE, append_text, format_code
from buildtool.image.metadata import image_selection
from buildtool.objects.capabilities import check_capability

_PATH = click.Path(path_type=Path)
_OUTPUT = OutputPath(path_type=Path)


@click.command("check")
@click.argument("objects", metavar="[OBJECT|DIR]...", nargs=-1, type=_PATH)
@click.option("--kernel", multiple=True, help="host, 6.1, 6.12, newest or a kernel image; may be repeated.")
@arch_option(help="Architecture of virtual machines, may be repeated. Default: the objects'.")
@click.option(
    "--oldest",
    callback=checked(check_kernel_release),
    help="Oldest Linux release to support, for example 5.15.",
)
@click.option(
    "--capability",
    multiple=True,
    callback=checked(check_capability),
    help="Capability of the dry runs, may be repeated. Default: image.capabilities, else the objects' needs.",
)
@click.option(
    "--set",
    multiple=True,
    callback=checked(check_setting),
    metavar="OBJECT:NAME=VALUE",
    help="Constant of the dry runs, may be repeated. Without OBJECT or DIR, after image.set.",
)
@click.option(
    "--map-entries",
    multiple=True,
    callback=checked(check_setting),
    metavar="OBJECT:MAP=N",
    help="Entries of a map in the dry runs, may be repeated. Without OBJECT or DIR, after image.map-entries.",
)
@click.option("--module", multiple=True, help="Kernel module that virtual machines load, may be repeated.")
@click.option("--timeout", type=click.IntRange(1, 86400), default=300, help="Seconds for each kernel.")
@click.option("--junit", type=_OUTPUT, help="Write a JUnit XML report to this file.")
@click.option("--sarif", type=_OUTPUT, help="Write a SARIF 2.1.0 report to this file.")
@code_quality_option
@click.option("--markdown", is_flag=True, help="Print the table of programs and kernels as Markdown.")
@config_option
@json_option
def command(*, code_quality: Path | None, **given: Any) -> int:
    """
    Check whether objects will load, by rules, by libbpf and by dry runs on kernels.

    Without OBJECT or DIR: build/ARCH. Nothing is attached. The exit code is 1 if an object breaks a
    rule of level error or a kernel refuses a program.
    """
    with quality_report(code_quality) as found:
        report, root = _check(**given)
        found.extend(diagnose(report.findings, root))
        annotate(found)
    return EXIT_DONE if report.passed else EXIT_FAILED


def _check(
    *, objects: tuple[Path, ...], config_path: Path | None, **options: Any
) -> tuple[CheckReport, Path]:
    """Check, print and write the report, and return it with the directory of the project."""
    if options["markdown"] and not options["kernel"]:
        raise UsageError("--markdown requires --kernel", hint="add --kernel host, 6.1, 6.12 or newest")
    for path in filter(None, (options["junit"], options["sarif"])):
        check_target(path, replace=True)  # fail now rather than after minutes in virtual machines
        check_writable(path)
    config, arch = read_config(config_path), _words("--arch", options["arch"])
    targets = find_targets(objects, arch, config)
    image = ImageConfig() if objects else config.image
    constants, entries = (*image.set, *options["set"]), (*image.map_entries, *options["map_entries"])
    targets = apply_settings(targets, constants, entries, config)
    request = CheckRequest(
        targets=targets,
        now=int(time.time()),
        kernels=_words("--kernel", options["kernel"]),
        arches=choose_arches(targets, arch, config),
        oldest=options["oldest"],
        modules=options["module"],
        capabilities=options["capability"] or config.image.capabilities,
        selection=image_selection(config),
        timeout_seconds=options["timeout"],
    )
    report = check_objects(request, on_progress=say)
    for path, make in ((options["junit"], junit_report), (options["sarif"], sarif_report)):
        if path:
            write_atomic(path, make(report))
    if options["as_json"]:
        print_json(report_json(report))
    elif options["markdown"]:
        click.echo(markdown(report))
        print_findings(report, err=True)  # the table has no row for a kernel that did not answer
    else:
        print_report(report)
    say(summary(report))
    if report.runs and (page := os.environ.get(SUMMARY_VARIABLE)):
        append_text(Path(page), f"### Kernels\n\n{markdown(report)}\n\n")
    return report, config.root


def _words(option: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of *values*. Raises: UsageError, if an unset variable left an option without words."""
    words = tuple(word for value in values for word in value.split(",") if word)
    if values and not words:
        raise UsageError(f"{option} requires a name", hint=f"leave {option} out for its default")
    return words


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
    """Print facts, the table of programs and kernels after dry runs, and findings."""
    for facts in report.objects:
        click.echo("\n".join(clean_line(line) for line in _facts(facts)))
    if report.runs:
        click.echo()
        header, rows = matrix(report.runs)
        if not sys.stdout.isatty():
            rows = [header, *rows]  # print_table prints no header without a terminal
        print_table(rows, header)
    if report.findings:
        click.echo()
    print_findings(report)


def print_findings(report: CheckReport, *, err: bool = False) -> None:
    """Print each finding, with *err* on stderr. The hint of a rule is printed once."""
    explained: set[str] = set()
    for finding in report.findings:
        click.echo("\n".join(clean_line(line) for line in _finding(finding, explained)), err=err)


def matrix(runs: Sequence[ProgramRun]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table: a row for each program, a column for each kernel and platform."""
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
    """Return the table as Markdown, with the longer side as rows, and the release of each kernel."""
    releases = {(run.kernel, run.arch): run.release for run in report.runs}
    _, rows = matrix(report.runs)
    names = [format_code(program) for _, program, *_ in rows]
    kernels = [f"{arch} {_short(release)}" for (_, arch), release in releases.items()]
    cells = [list(row[2:]) for row in rows]
    if len(kernels) > len(names):
        names, kernels = kernels, names
        cells = [list(column) for column in zip(*cells, strict=True)]
    lines = [f"| | {' | '.join(kernels)} |", "|---|" + "---:|" * len(kernels)]
    lines += [f"| {name} | {' | '.join(row)} |" for name, row in zip(names, cells, strict=True)]
    return "\n".join(lines)


def summary(report: CheckReport) -> str:
    """Return one line with the counts and the result of the check."""
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
    named = ("attach points of maps", facts.points), ("helpers", facts.helpers), ("kfuncs", facts.kfuncs)
    for what, names in named:
        if names:
            yield f"  {what}: {' '.join(names)}"


def _finding(finding: Finding, explained: set[str]) -> Iterator[str]:
    """Yield the lines of *finding*, without the hint if *explained* contains the rule."""
    where = f"{finding.object}: {finding.program}" if finding.program else finding.object
    yield f"{finding.level} {finding.rule} {where}: {finding.message}"
    if finding.source and (described := describe_source(finding.source)):
        yield f"    {described}"
    if finding.rule not in explained:
        yield f"    hint: {finding.hint}"
    explained.add(finding.rule)


def describe_source(source: SourceLine) -> str:
    """Return file, line and text of *source*, as far as they are known."""
    # The text is empty if clang did not find the source file at the path in the object.
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
