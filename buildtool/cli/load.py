# SPDX-License-Identifier: Apache-2.0
"""`buildtool load`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from buildtool.cli.options import checked, config_option, read_config
from buildtool.config.file import ImageConfig
from buildtool.core.process import Runner
from buildtool.core.validate import check_attach, check_load, check_setting
from buildtool.load import (
    PINS_COMMANDS,
    LoadRequest,
    check_fresh,
    choose_objects,
    choose_trust,
    load_on_host,
    manage_pins,
)


class _LoadCommand(click.Command):
    """A command that passes all words after -- to the workload, with or without OBJECT."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """
        Split *args* at the first --, which click would drop, reading the workload's first word as OBJECT.

        All words after a command of ebpf-pins are its arguments. Only --config may stand before the command.
        """
        before = 2 if args[:1] == ["--config"] else 1 if args and args[0].startswith("--config=") else 0
        if args[before : before + 1] and args[before] in PINS_COMMANDS:
            rest = super().parse_args(ctx, args[:before])
            ctx.params["pins"] = tuple(args[before:])
            return rest
        ctx.params["pins"] = ()
        at = args.index("--") if "--" in args else len(args)
        workload = tuple(args[at + 1 :])
        rest = super().parse_args(ctx, args[:at])
        if surplus := ctx.params.get("workload"):
            raise click.UsageError(f"unexpected argument {surplus[0]!r}: a workload goes after --", ctx)
        ctx.params["workload"] = workload
        return rest


def _image_settings(image: ImageConfig) -> Iterator[str]:
    """Yield the options for the settings of *image*."""
    for name, settings in (("--set", image.set), ("--map-entries", image.map_entries)):
        for setting in settings:
            yield from (name, setting)


@click.command("load", cls=_LoadCommand)
@click.argument("objects", metavar="[OBJECT|DIR]", required=False, type=click.Path(path_type=Path))
@click.argument("workload", metavar="[-- WORKLOAD...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--trust", type=click.Path(path_type=Path), help="A .pub file, a directory of them or a policy."
)
@click.option(
    "--attach", multiple=True, callback=checked(check_attach), help="PROGRAM=TARGET, may be repeated."
)
@click.option(
    "--load",
    multiple=True,
    callback=checked(check_load),
    metavar="PROGRAM",
    help="Load this optional program; may be repeated.",
)
@click.option(
    "--no-load",
    multiple=True,
    callback=checked(check_load),
    metavar="PROGRAM",
    help="Do not load this program; may be repeated.",
)
@click.option(
    "--set",
    multiple=True,
    callback=checked(check_setting),
    metavar="OBJECT:NAME=VALUE",
    help="Set a constant within its signed bounds; may be repeated.",
)
@click.option(
    "--map-entries",
    multiple=True,
    callback=checked(check_setting),
    metavar="OBJECT:MAP=N",
    help="Set the entries of a map within their signed bounds; may be repeated.",
)
@click.option(
    "--settings", type=click.Path(path_type=Path), help="File of set, map-entries, attach and load lines."
)
@click.option("--verify-only", is_flag=True, help="Verify only; load nothing.")
@config_option
def command(
    *,
    pins: tuple[str, ...],
    objects: Path | None,
    workload: tuple[str, ...],
    trust: Path | None,
    verify_only: bool,
    settings: Path | None,
    config_path: Path | None,
    **given: tuple[str, ...],
) -> None:
    """
    Verify, load and attach signed objects on this host with the real loader.

    Without OBJECT or DIR: build/ARCH of this machine, with image.set and image.map-entries of
    buildtool.toml. Without --attach: image.attach. The loader starts WORKLOAD, everything after --,
    once the programs are attached. The loader replaces this process, writes its decisions to stderr,
    and sets the exit code.
    [loader] in buildtool.toml sets its other options.

    "load list", "load status", "load detach" and "load rollback" run ebpf-pins, which shows and
    changes what is pinned. Without --pin-root and --share: loader.pin-root and loader.share of
    buildtool.toml. "buildtool load list --help" prints the options. Root can list, check and detach
    the pins of a container, which belong to the container's user.
    """
    if pins:
        human = sys.stderr.isatty()
        manage_pins(read_config(config_path), pins, human=human, environ=os.environ, runner=Runner())
    config = read_config(config_path)
    chosen = choose_objects(objects, config)
    check_fresh(chosen, config)
    request = LoadRequest(
        objects=chosen,
        trust=choose_trust(trust, config),
        attach=given["attach"] or (() if verify_only else config.image.attach),
        load=tuple(name for name in given["load"] or config.image.load if name not in given["no_load"]),
        no_load=given["no_load"],
        image=() if objects or verify_only else tuple(_image_settings(config.image)),
        set=given["set"],
        map_entries=given["map_entries"],
        settings=settings,
        verify_only=verify_only,
        human=sys.stderr.isatty(),
        workload=workload,
        options=config.loader,
    )
    load_on_host(config, request, environ=os.environ, runner=Runner())
