# SPDX-License-Identifier: Apache-2.0
"""The view of `inspect`: reports on objects and images as JSON and as text."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from buildtool.cli.output import clean_line, print_json, say
from buildtool.compile.sources import recorded_sources
from buildtool.config.file import ImageConfig
from buildtool.core.cache import open_cache
from buildtool.core.errors import ObjectFormatError, RefusedError
from buildtool.core.platforms import this_platform
from buildtool.core.strictjson import format_time
from buildtool.core.text import escape
from buildtool.deploy.needs import plan_image
from buildtool.deploy.plan import RunPlan, note_platforms
from buildtool.image import inspect as inspection
from buildtool.image.attachments import describe_settings
from buildtool.image.filecaps import needed_capabilities
from buildtool.image.inspect import ImageReport, ObjectReport, inspect_object
from buildtool.image.metadata import Entrypoint
from buildtool.metrics.declared import Metric, Table
from buildtool.objects.capabilities import find_capabilities, label_capabilities
from buildtool.objects.describe import ObjectContents
from buildtool.objects.elf import parse_object, read_object_file
from buildtool.objects.helpers import helper_name
from buildtool.objects.optional import Selection
from buildtool.signing.dsse import envelope_json
from buildtool.signing.statement import describe_stated
from buildtool.trust.store import TrustStore
from buildtool.trust.verify import verify_object

_NOT_CHECKED = "not checked (--trust checks them)"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Formats reports. With *trust*, it also verifies objects, at time *now*, for any platform."""

    trust: TrustStore | None
    now: int

    def object_json(self, report: ObjectReport, data: bytes) -> dict[str, Any]:
        """Return the report on one object as JSON."""
        signers = [entry.key_id.hex() for entry in report.record.signatures] if report.record else []
        return {
            "name": report.name,
            "size": report.size,
            "byteOrder": report.byte_order,
            "sha256": report.digest,
            "digestMatches": report.digest_matches,
            "signers": signers,
            "statement": json.loads(report.record.statement) if report.record and report.statement else None,
            "envelope": json.loads(envelope_json(report.record)) if report.record else None,
            "contents": _contents_json(report.contents) if report.contents else None,
            "problem": report.problem,
            "metrics": [_metric_json(table, metric) for table in report.metrics for metric in table.metrics],
            "metricsProblem": report.metrics_problem,
            "verification": self._verify(data),
        }

    def object_lines(self, report: ObjectReport, data: bytes) -> list[str]:
        """Return the report on one object as lines of text."""
        return list(_align(self._object_rows(report, data)))

    def image_json(self, image: ImageReport) -> dict[str, Any]:
        """Return the report on an image as JSON."""
        return {
            "image": image.reference,
            "id": image.digest,
            "platform": image.platform,
            "labels": image.labels,
            "attach": image.entrypoint.attach,
            "load": image.entrypoint.load,
            "set": image.entrypoint.set,
            "mapEntries": image.entrypoint.map_entries,
            "workload": image.entrypoint.workload,
            "objects": [self._image_object(name, data) for name, data in image.objects],
        }

    def images_lines(self, images: Sequence[ImageReport]) -> list[str]:
        """Return the reports of the images of one index for people."""
        return [line for image in images for line in ("", *self.image_lines(image))][1:]

    def image_lines(self, image: ImageReport) -> list[str]:
        """Return the report on an image as lines of text."""
        rows = [("image", image.reference), ("id", image.digest), ("platform", image.platform)]
        rows += [("label", clean_line(f"{key}={value}")) for key, value in sorted(image.labels.items())]
        rows += [("attach", clean_line(line)) for line in describe_settings(image.entrypoint.attach)]
        rows += [("load", clean_line(name)) for name in image.entrypoint.load]
        rows += [("set", clean_line(text)) for text in image.entrypoint.set]
        rows += [("entries", clean_line(text)) for text in image.entrypoint.map_entries]
        if image.entrypoint.workload:
            rows.append(("workload", clean_line(shlex.join(image.entrypoint.workload))))
        lines = list(_align(rows))
        if image.in_engine:
            with suppress(ObjectFormatError):  # shown below
                lines += image_run_rows(image)
        for name, data in image.objects:
            try:
                lines += ["", *self.object_lines(inspect_object(name, data), data)]
            except ObjectFormatError as error:
                lines += ["", f"object      {clean_line(name)}: {error.message}"]
        return lines

    def _image_object(self, name: str, data: bytes) -> dict[str, Any]:
        try:
            return self.object_json(inspect_object(name, data), data)
        except ObjectFormatError as error:
            return {"name": name, "size": len(data), "problem": error.message}

    def _verify(self, data: bytes) -> dict[str, Any] | None:
        if self.trust is None:
            return None
        try:
            verified = verify_object(data, self.trust, platform=None, now=self.now)
        except RefusedError as error:
            return {"decision": "refused", "reason": error.reason, "message": error.message}
        return {"decision": "accepted", "keyIds": list(verified.key_ids)}

    def _object_rows(self, report: ObjectReport, data: bytes) -> Iterator[tuple[str, str]]:
        yield "object", clean_line(report.name)
        yield "size", f"{report.size} bytes, {report.byte_order}-endian"
        yield "sha256", report.digest
        if report.problem:
            yield "malformed", report.problem
        if report.contents:
            for program in report.contents.programs:
                loaded = f"  loaded as {program.declared}" if program.declared else ""
                yield "program", clean_line(f"{program.name}  {program.type}  SEC({program.section}){loaded}")
            for item in report.contents.maps:
                sizes = f"key {item.key_size}  value {item.value_size}  entries {item.max_entries}"
                where = f"  SEC({item.section})" if item.section else ""
                point = f"  attach point {item.point}" if item.point else ""
                yield "map", clean_line(f"{item.name}  {item.type}  {sizes}{where}{point}")
            yield "helpers", " ".join(map(helper_name, report.contents.helpers)) or "none"
            yield "kfuncs", clean_line(" ".join(report.contents.kfuncs)) or "none"
            yield "license", clean_line(report.contents.license) or "none"
        yield from _metric_rows(report)
        yield from self._statement_rows(report)
        if report.record is None:
            yield "signatures", "none" if report.problem is None else "none that can be read"
        for entry in report.record.signatures if report.record else ():
            yield "signer", entry.key_id.hex()
        verification = self._verify(data)
        if verification is None:
            if report.record:
                yield "signatures", _NOT_CHECKED
        elif "reason" in verification:
            yield "refused", f"{verification['reason']}: {verification['message']}"
        else:
            yield "accepted", "by key " + " ".join(verification["keyIds"])

    def _statement_rows(self, report: ObjectReport) -> Iterator[tuple[str, str]]:
        statement = report.statement
        if statement is None:
            return
        yield "claims", "of the signed statement:"
        yield "  digest", "this file's" if report.digest_matches else f"{statement.digest}, NOT this file's"
        yield "  name", statement.name
        yield "  project", statement.project
        yield "  version", f"{statement.version}  release {clean_line(statement.release)}"
        yield "  platform", clean_line(statement.platform)
        yield "  created", format_time(statement.created)
        if statement.not_after is not None:
            yield "  not after", format_time(statement.not_after)
        if statement.settable:
            for variable in statement.settable.variables:
                yield "  settable", clean_line(f"{variable.name}  {variable.describe()}")
            for item in statement.settable.maps:
                yield "  settable", clean_line(f"{item.name}  {item.describe()}")
        if statement.toolchain:
            yield "  compiler", clean_line(statement.toolchain.compiler)
        if statement.source:
            flags = statement.toolchain.flags if statement.toolchain else ()
            sources = recorded_sources(statement.platform, flags, statement.source.path)
            yield "  source", clean_line(f"{', '.join(sources)}  sha256 {statement.source.sha256}")


def _contents_json(contents: ObjectContents) -> dict[str, Any]:
    """Return *contents* as JSON, with helpers by number, as in statements, and by name."""
    return {**asdict(contents), "helperNames": [helper_name(number) for number in contents.helpers]}


def _metric_rows(report: ObjectReport) -> Iterator[tuple[str, str]]:
    for table in report.metrics:
        place = f"variable {table.name}" if table.section else f"map {table.name}"
        for metric in table.metrics:
            labels = f"{{{','.join(metric.label_names)}}}" if metric.labels else ""
            yield "metric", clean_line(f"{metric.name}{labels}  {metric.kind}  {place}")
    if report.metrics_problem and not report.problem:
        yield "metrics", clean_line(f"none that can be read: {report.metrics_problem}")


def _metric_json(table: Table, metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "kind": metric.kind,
        "help": metric.help,
        "unit": metric.unit,
        "labels": list(metric.label_names),
        "map": None if table.section else table.name,
        "variable": table.name if table.section else None,
    }


def _align(rows: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> Iterator[str]:
    for name, value in rows:
        yield f"{name:<11} {value}"


def show_capabilities(target: str, *, as_json: bool) -> None:
    """
    Print the capabilities that *target*, an object or an image, requires, and options of `docker run`.

    Raises: any BuildtoolError.
    """
    if inspection.holds_image(target):
        # Architectures of one project agree, or build says where they do not.
        image = inspection.inspect_images(target, open_cache(os.environ))[0]
    else:
        data = read_object_file(Path(target))
        image = ImageReport(
            reference="",
            digest="",
            platform="",
            labels={},
            # Targets are of an image, so an object has none to miss.
            entrypoint=Entrypoint(hands_over=True),
            user=ImageConfig().user,
            objects=((target, data),),
        )
    objects = {name: _contents(name, data) for name, data in image.objects}
    selection = image.entrypoint.selection
    programs = [
        row for name, contents in objects.items() for row in _rows(Path(name).name, contents, selection)
    ]
    # The label also has configured capabilities that no program requires. It is not signed.
    needed = needed_capabilities(objects.items(), selection)
    given = label_capabilities(image.labels) or needed
    beyond = sorted(set(given) - set(needed))
    plan = plan_image(image)
    if as_json:
        found = {"capabilities": given, "beyondPrograms": beyond, "runOptions": plan.options}
        found |= {"arguments": plan.arguments, "before": plan.before, "notes": plan.notes}
        return print_json(found | {"programs": programs})
    for line in (*plan.notes, *(f"on the host, once: {line}" for line in plan.before)):
        say(line)
    if plan.arguments:
        say(f"after the image's name: {shlex.join(plan.arguments)}")
    if beyond:
        say(f"{' '.join(beyond)}: by the image's label, and needed by none of these programs' types")
    for row in programs:
        # The names are untrusted, because the file was not verified.
        names = (escape(row[key]) for key in ("program", "section"))
        click.echo("  ".join([*names, " ".join(row["capabilities"])]))
    return click.echo(shlex.join(plan.options))


def image_run_rows(image: ImageReport) -> list[str]:
    """Return the lines about starting *image* of the engine. Raises: ObjectFormatError."""
    plan = plan_image(image)
    plan.notes += note_platforms([image.platform], this_platform().oci)
    return list(run_rows(plan, image.reference, width=12))


def run_rows(plan: RunPlan, reference: str, *, width: int = 8) -> Iterator[str]:
    """Yield the lines about starting image *reference*; the command is the last one."""
    for name, lines in (("note", plan.notes), ("first", plan.before), ("run", [plan.command(reference)])):
        yield from (f"{name:<{width}}{clean_line(line)}" for line in lines)


def _contents(name: str, data: bytes) -> ObjectContents:
    try:
        return describe_stated(parse_object(data))
    except ObjectFormatError as error:
        raise ObjectFormatError(f"{name}: {error.message}", hint=error.hint) from error


def _rows(name: str, contents: ObjectContents, selection: Selection) -> list[dict[str, Any]]:
    return [
        {
            "object": name,
            "program": program.name,
            "section": program.section,
            "capabilities": find_capabilities([program.loaded_as]),
        }
        for program in contents.programs
        if selection.loads(program.name, program.section, name)
    ]
