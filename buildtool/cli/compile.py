# SPDX-License-Identifier: Apache-2.0
"""`buildtool compile`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from buildtool.cli.annotations import annotate
from buildtool.cli.codequality import code_quality_option, quality_report
from buildtool.cli.options import (
    OutputPath,
    arch_option,
    checked,
    complete_files,
    config_option,
    json_option,
    read_config,
)
from buildtool.cli.output import print_json, progress, say
from buildtool.compile.plan import read_plan
from buildtool.compile.sources import CompileOptions, compile_sources
from buildtool.compile.toolchain import find_toolchain
from buildtool.config.file import named_variable
from buildtool.config.project import choose_platforms, choose_units
from buildtool.core.diagnostics import Diagnostic, parse_diagnostics
from buildtool.core.errors import UsageError
from buildtool.core.flags import check_flag
from buildtool.core.process import Runner
from buildtool.runtime.headers import provide_headers
from buildtool.runtime.probe import find_object_linker


@click.command("compile")
@click.argument("sources", metavar="[SOURCE]...", nargs=-1, type=click.Path())
@arch_option(help="Architecture, may be repeated. Default: build.arch, else this machine's.")
@click.option(
    "--output", type=OutputPath(path_type=Path), help="Directory of the objects; default build/ARCH."
)
@click.option(
    "--include", shell_complete=complete_files, multiple=True, help="Directory of headers, may be repeated."
)
@click.option(
    "--flag", multiple=True, callback=checked(check_flag), help="Extra compiler flag, may be repeated."
)
@click.option(
    "--plan", type=click.Path(path_type=Path), hidden=True, help="What a Dockerfile's objects are made of."
)
@click.option(
    "--linker", type=click.Path(path_type=Path), hidden=True, help="The bpf-probe of a builder, which links."
)
@click.option("--system-headers", is_flag=True, help="Search this machine's headers, not the carried ones.")
@click.option("--jobs", "-j", type=click.IntRange(1, 1024), help="How many compilers run at once.")
@code_quality_option
@config_option
@json_option
def command(*, code_quality: Path | None, **given: Any) -> None:
    """
    Compile eBPF sources to objects: bpf/x.bpf.c becomes build/ARCH/x.bpf.o.

    A SOURCE of the configuration has the settings and the name that it gives.

    Without SOURCE: those of the configuration. Objects are stripped of debug
    information and hold BTF; the same sources give the same bytes anywhere.
    """
    with quality_report(code_quality) as found:
        found.extend(_compile(**given))


def _compile(
    *, sources: tuple[str, ...], arch: tuple[str, ...], output: Path | None, **options: Any
) -> tuple[Diagnostic, ...]:
    """Compile, and return the compiler's warnings."""
    config = read_config(options["config_path"])
    platforms = choose_platforms(arch, config)
    if output and len(platforms) > 1:
        raise UsageError(
            "--output requires exactly one --arch",
            hint="leave --output out: each architecture has its build/ARCH",
        )
    plan, outside = read_plan(options["plan"]) if options["plan"] else (None, {})
    system = options["system_headers"] or config.compile.system_headers
    run = CompileOptions(
        root=Path() if sources or plan else config.root,
        headers=None if system else provide_headers(os.environ, report=say, runner=Runner()),
        jobs=options["jobs"] or 0,
        color=sys.stderr.isatty() and "NO_COLOR" not in os.environ,
        outside=outside,
        is_configured=not (options["include"] or options["flag"] or options["system_headers"]),
        linker=options["linker"],
    )
    outputs = [
        (
            target,
            output or config.root / "build" / target.arch,
            plan or choose_units(config, target, sources, options["include"], options["flag"]),
        )
        for target in platforms
    ]
    if run.linker is None and any(unit.is_linked for _, _, units in outputs for unit in units):
        run = replace(run, linker=find_object_linker(os.environ, report=say, runner=Runner()))
    with progress("compile", sum(len(units) for _, _, units in outputs)) as step:
        with named_variable(config, "compile.clang"):
            toolchain = find_toolchain(config.compile.clang)
        result = compile_sources(toolchain, outputs, run, on_step=step)
    if result.warnings:
        click.echo(result.warnings, err=True)
    warnings = parse_diagnostics(result.warnings, run.root)
    annotate(warnings)
    if options["as_json"]:
        print_json([asdict(entry) for entry in result.objects])
        return warnings
    for entry in result.objects:
        click.echo(os.path.relpath(entry.path))
    return warnings
