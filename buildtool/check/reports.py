# SPDX-License-Identifier: Apache-2.0
"""Write the result of a check for CI systems: JUnit XML and SARIF 2.1.0 (OASIS)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from buildtool import __version__
from buildtool.check.model import RULES, CheckReport, Finding, Level, ProgramRun
from buildtool.core.diagnostics import ERROR, WARNING, Diagnostic, SourcePlace

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
# Characters that XML 1.0 cannot contain, not even escaped.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DRY_RUNS = ("BT100", "BT101", "BT103")  # these findings are in the suites of the kernels


def junit_report(report: CheckReport) -> bytes:
    """Return *report* as JUnit XML: a suite for the rules, and one for each kernel."""
    top = Element("testsuites", name="buildtool check")
    _rules_suite(top, report)
    for kernel, arch, release in dict.fromkeys((r.kernel, r.arch, r.release) for r in report.runs):
        runs = [run for run in report.runs if (run.kernel, run.arch) == (kernel, arch)]
        suite = _suite(top, f"{kernel} {arch} ({release})", runs=len(runs))
        suite.set("skipped", str(sum(run.is_spare and not run.loads for run in runs)))
        suite.set("failures", str(sum(not (run.loads or run.is_spare) for run in runs)))
        for run in runs:
            _run_case(suite, run)
    indent(top)
    text: str = tostring(top, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _rules_suite(top: Element, report: CheckReport) -> None:
    """Add a case for each object. The message of a failed case is the object's first error."""
    static = [finding for finding in report.findings if finding.rule not in _DRY_RUNS]
    names = list(dict.fromkeys([facts.name for facts in report.objects] + [f.object for f in static]))
    suite = _suite(top, "rules", runs=len(names))
    failures = 0
    for name in names:
        case = SubElement(suite, "testcase", classname="rules", name=_xml(name), time="0")
        said = [finding for finding in static if finding.object == name]
        errors = [finding for finding in said if finding.level is Level.ERROR]
        if errors:
            failures += 1
            failure = SubElement(case, "failure", message=_xml(errors[0].message), type=errors[0].rule)
            failure.text = _xml("\n".join(map(_describe, errors)))
        others = [finding for finding in said if finding.level is not Level.ERROR]
        if others:
            SubElement(case, "system-out").text = _xml("\n".join(map(_describe, others)))
    suite.set("failures", str(failures))


def _run_case(suite: Element, run: ProgramRun) -> None:
    seconds = f"{run.duration_us / 1e6:.6f}"
    case = SubElement(
        suite, "testcase", classname=_xml(run.object), name=_xml(run.program or run.object), time=seconds
    )
    if run.loads:
        SubElement(case, "system-out").text = f"{run.verdict.instructions} instructions processed"
        return
    if run.is_spare:
        message = _xml(f"optional, and not loaded by the image: {run.verdict.reason}")
        SubElement(case, "skipped", message=message)
        return
    failure = SubElement(case, "failure", message=_xml(run.verdict.reason), type=run.verdict.rule)
    source = run.verdict.source
    where = f"{source.file}:{source.line}: {source.text}\n" if source else ""
    failure.text = _xml(where + run.verdict.log)


def _suite(top: Element, name: str, *, runs: int) -> Element:
    return SubElement(top, "testsuite", name=_xml(name), tests=str(runs), errors="0")


def _describe(finding: Finding) -> str:
    program = f"{finding.program}: " if finding.program else ""
    return f"{finding.level} {finding.rule}: {program}{finding.message} ({finding.hint})"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def diagnose(findings: Iterable[Finding], root: Path) -> Iterator[Diagnostic]:
    """Yield errors and warnings of *findings*. Lines of C are those of the project in directory *root*."""
    for finding in findings:
        if finding.level is Level.NOTE:
            continue
        program = f"{finding.program}: " if finding.program else ""
        places: tuple[SourcePlace, ...] = ()
        if finding.source and finding.source.file:
            file = Path(os.path.normpath(root.resolve() / finding.source.file))
            places = (SourcePlace(file=file, line=max(finding.source.line, 1)),)
        yield Diagnostic(
            level=ERROR if finding.level is Level.ERROR else WARNING,
            message=f"{finding.object}: {program}{finding.message}\nhint: {finding.hint}",
            places=places,
            source=f"{finding.rule} {RULES[finding.rule].title}",
        )


def sarif_report(report: CheckReport) -> bytes:
    """Return *report* as SARIF: all rules, and a result for each finding."""
    numbers = list(RULES)
    rules = [
        {
            "id": rule.number,
            "shortDescription": {"text": rule.title},
            "help": {"text": rule.hint},
            "defaultConfiguration": {"level": rule.level.value},
        }
        for rule in RULES.values()
    ]
    results = [_result(finding, numbers.index(finding.rule)) for finding in report.findings]
    driver = {"name": "buildtool", "version": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True}],
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    document = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=1).encode() + b"\n"


def _result(finding: Finding, index: int) -> dict[str, Any]:
    program = f"{finding.program}: " if finding.program else ""
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.level.value,
        "message": {"text": f"{finding.object}: {program}{finding.message}"},
        "locations": list(_locations(finding)),
    }


def _locations(finding: Finding) -> Iterator[dict[str, Any]]:
    """Yield the location of the line of C, or of the object if the line is unknown."""
    source = finding.source
    if source and source.file:
        region = {"startLine": max(source.line, 1), "snippet": {"text": source.text}}
        physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(source.file)}, "region": region}
    else:
        physical = {"artifactLocation": {"uri": _uri(finding.path or finding.object)}}
    location: dict[str, Any] = {"physicalLocation": physical}
    if finding.program:
        location["logicalLocations"] = [{"name": finding.program, "kind": "function"}]
    yield location


def _uri(path: str) -> str:
    if path.startswith("/"):
        return Path(path).as_uri()
    return quote(path.removeprefix("./"))
