# SPDX-License-Identifier: Apache-2.0
"""`buildtool vmlinux`."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from buildtool.cli.options import OutputPath, arch_option, config_option, read_config
from buildtool.cli.output import say
from buildtool.compile.kerneltypes import KernelTypes, write_types
from buildtool.config.project import choose_platforms
from buildtool.core.cache import open_cache
from buildtool.core.errors import UsageError
from buildtool.core.platforms import Platform
from buildtool.core.process import Runner
from buildtool.runtime.vmlinux import PackageRequest, types_of_btf, types_of_package


@click.command("vmlinux")
@arch_option(help="Architecture, may be repeated. Default: build.arch, else this machine's.")
@click.option(
    "--btf",
    "--kernel",
    "btf",
    type=click.Path(path_type=Path),
    help="A kernel (vmlinux) or its BTF; default: Debian's package linux-bpf-dev.",
)
@click.option(
    "--output", type=OutputPath(path_type=Path), help="Directory of ARCH/vmlinux.h; default: vmlinux."
)
@click.option("--mirror", help="Debian mirror; default: that of this machine.")
@click.option("--update", is_flag=True, help="Replace types that differ from the record.")
@config_option
def command(
    *,
    arch: tuple[str, ...],
    btf: Path | None,
    output: Path | None,
    mirror: str | None,
    update: bool,
    config_path: Path | None,
) -> None:
    """
    Make vmlinux.h, the types of a kernel, for each architecture.

    vmlinux.json beside it records source and digest. With a record, only the
    same header is made again, and compiling refuses another one.
    """
    config = read_config(config_path)
    platforms = choose_platforms(arch, config)
    if btf and len(platforms) > 1:
        raise UsageError("--btf requires exactly one --arch", hint="run the command for each kernel")
    with ExitStack() as stack:
        directory = open_cache(os.environ).directory
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix="buildtool-"))
        cache = Path(work) if directory is None else directory.parent
        request = PackageRequest(cache=cache, mirror=mirror, report=say)
        made = [(platform, _make(platform, btf, request)) for platform in platforms]
        written = write_types(output or config.root / "vmlinux", made, update=update)
    for path in written:
        click.echo(os.path.relpath(path))
    for path, (platform, _) in zip(written, made, strict=True):
        place = os.path.relpath(path.parent, config.root)
        say(f'[compile.{platform.arch}] finds it by include = ["{place}"]')


def _make(platform: Platform, btf: Path | None, request: PackageRequest) -> KernelTypes:
    if btf is not None:
        return types_of_btf(btf, platform, runner=Runner())
    return types_of_package(platform, request, runner=Runner())
