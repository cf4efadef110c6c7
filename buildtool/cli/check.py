# SPDX-License-Identifier: Apache-2.0
"""`buildtool check`: say whether objects will load."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from buildtool.check.kernelfacts import check_release
from buildtool.check.reports import junit_report, sarif_report
from buildtool.check.run import CheckRequest, check_objects
from buildtool.check.targets import choose_arches, find_targets
from buildtool.cli import checkview
from buildtool.cli.options import OutputPath, arch_option, checked, config_option, json_option, read_config
from buildtool.cli.output import print_json, say
from buildtool.core.errors import EXIT_DONE, EXIT_FAILED, UsageError
from buildtool.core.files import check_target, write_atomic

_PATH = click.Path(path_type=Path)
_OUTPUT = OutputPath(path_type=Path)


@click.command("check")
@click.argument("objects", metavar="[OBJECT|DIR]...", nargs=-1, type=_PATH)
@click.option("--kernel", multiple=True, help="host, 6.1, 6.12, newest or an image's file; commas or again.")
@arch_option(help="Architecture of virtual machines, commas or again. Default: what the objects are for.")
@click.option("--oldest", callback=checked(check_release), help="Oldest Linux it is meant for, say 5.15.")
@click.option("--module", multiple=True, help="Kernel module that virtual machines load, may be repeated.")
@click.option("--timeout", type=click.IntRange(1, 86400), default=300, help="Seconds for each kernel.")
@click.option("--junit", type=_OUTPUT, help="Write JUnit XML there.")
@click.option("--sarif", type=_OUTPUT, help="Write SARIF 2.1.0 there.")
@click.option("--markdown", is_flag=True, help="Print the table of programs and kernels as Markdown.")
@config_option
@json_option
def command(*, objects: tuple[Path, ...], config_path: Path | None, **options: Any) -> int:
    """
    Say whether objects will load: rules without a kernel, and dry runs on kernels.

    Without OBJECT or DIR: build/ARCH. Nothing is attached. Exit code 1 when a rule
    of level error is broken or a kernel does not take a program.
    """
    if options["markdown"] and not options["kernel"]:
        raise UsageError("--markdown is a table of kernels: --kernel names them")
    for path in filter(None, (options["junit"], options["sarif"])):
        check_target(path, replace=True)  # not only after minutes in virtual machines
    config, arch = read_config(config_path), _words("--arch", options["arch"])
    targets = find_targets(objects, arch, config)
    request = CheckRequest(
        targets=targets,
        now=int(time.time()),
        kernels=_words("--kernel", options["kernel"]),
        arches=choose_arches(targets, arch, config),
        oldest=options["oldest"],
        modules=options["module"],
        timeout_seconds=options["timeout"],
    )
    report = check_objects(request, on_progress=say)
    for path, make in ((options["junit"], junit_report), (options["sarif"], sarif_report)):
        if path:
            write_atomic(path, make(report))
    if options["as_json"]:
        print_json(checkview.report_json(report))
    elif options["markdown"]:
        click.echo(checkview.markdown(report))
        checkview.print_findings(report, err=True)  # a kernel that did not answer has no row
    else:
        checkview.print_report(report)
    say(checkview.summary(report))
    return EXIT_DONE if report.passed else EXIT_FAILED


def _words(option: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of *values*; an option without any (an unset variable) would check less, unnoticed."""
    words = tuple(word for value in values for word in value.split(",") if word)
    if values and not words:
        raise UsageError(f"{option}: names none")
    return words
