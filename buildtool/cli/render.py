# SPDX-License-Identifier: Apache-2.0
"""`buildtool render`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import click

from buildtool import build as pipeline
from buildtool.cli.options import (
    STDOUT,
    OutputPath,
    arch_option,
    checked,
    complete_files,
    config_option,
    read_config,
)
from buildtool.cli.output import say
from buildtool.cli.signeroptions import ask_passphrase
from buildtool.config.file import Config
from buildtool.config.project import choose_platforms, find_sources
from buildtool.config.sourcedate import source_date
from buildtool.core.errors import UsageError
from buildtool.core.files import FORCE_REPLACES, check_target, check_writable, write_atomic
from buildtool.core.platforms import Platform
from buildtool.core.process import Runner
from buildtool.core.validate import parse_signer
from buildtool.fleet import Fleet, FleetRequest, render_fleet


@click.command("render")
@arch_option(
    "--platform", help="Architecture of the image; may be repeated. Default: build.arch, else this machine's."
)
@click.option(
    "--key",
    callback=checked(parse_signer),
    shell_complete=complete_files,
    metavar="SIGNER",
    help="Signing key; its public half (.pub) is enough.",
)
@click.option(
    "--output",
    "-o",
    type=OutputPath(path_type=Path, allow_dash=True),
    metavar="DIR",
    help="Folder for the Dockerfile and its archive; with --inline, the file.",
)
@click.option("--inline", is_flag=True, help="Write one file that holds all sources in its text.")
@click.option("--force", is_flag=True, help="Replace existing files.")
@click.option(
    "--bake",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIRECTORY",
    help="Render all projects below DIRECTORY, with a file for `docker buildx bake`.",
)
@click.option("--prepared", is_flag=True, help="Use the images that `buildtool images prepare` makes.")
@config_option
def command(
    *,
    arch: tuple[str, ...],
    key: Path | str | None,
    output: Path | None,
    inline: bool,
    force: bool,
    bake: Path | None,
    prepared: bool,
    config_path: Path | None,
) -> None:
    """
    Write the Dockerfile that `buildtool build` builds, for plain `docker buildx build`.

    With --output, DIR gets a Dockerfile to read and one archive of sources that
    the Dockerfile names by its digest: `docker buildx build --secret
    id=signing-key,src=KEY DIR` builds the image. In the project's directory
    (--output .) the Dockerfile reads the sources there; elsewhere the archive
    holds a copy of these sources.

    Without --output, print the one-file form of --inline.

    With --bake and --output, DIR gets a folder of each project and one
    docker-bake.hcl, by which `docker buildx bake` builds all of them;
    --output DIR/docker-bake.json writes JSON instead.
    """
    output = None if output == STDOUT else output
    if bake is not None:
        if output is None or inline or config_path is not None:
            raise UsageError(
                "--bake requires --output, and neither --inline nor --config",
                hint=f"buildtool render --bake {bake} --output fleet",
            )
        request = FleetRequest(
            directory=bake, output=output, arch=arch, key=key, prepared=prepared, force=force
        )
        return show_fleet(render_fleet(request, environ=os.environ, ask=ask_passphrase, runner=Runner()))
    config = read_config(config_path)
    if prepared:
        config = replace(config, images=pipeline.prepared_images())
    platforms = choose_platforms(arch, config)
    find_sources(config)  # a directory without a project lacks a key, too
    source = pipeline.find_key(key, config, os.environ, ask_passphrase)
    epoch = source_date(os.environ, config.root) if output else 0
    if output is not None and not inline:
        written = pipeline.render_folder(
            config, platforms, source, output, epoch=epoch, force=force, environ=os.environ, runner=Runner()
        )
        return show_files(written, _build_command(config, platforms, source, epoch, str(output)))
    if output is not None:
        check_target(output, replace=force, hint=FORCE_REPLACES)
        check_writable(output)
    dockerfile = pipeline.make_dockerfile(
        config, platforms, source, inline=True, environ=os.environ, runner=Runner()
    )
    text = dockerfile.text
    if output is None:
        return click.echo(text, nl=False)
    write_atomic(output, text.encode(), replace=force, hint=FORCE_REPLACES)
    argv = _build_command(config, platforms, source, epoch, "--file", str(output), str(config.root))
    return show_files([output], argv)


def show_fleet(fleet: Fleet) -> None:
    """Print the bake file of *fleet* and its targets, and the command that builds them."""
    click.echo(str(fleet.file))
    for target in fleet.targets:
        click.echo(f"{target.name}  {target.tag}  {','.join(target.platforms)}")
    where = shlex.quote(str(fleet.file.parent))
    # Bake reads files outside its working directory only if that is allowed.
    reads = sorted({place for target in fleet.targets for place in target.reads})
    bake = ["docker", "buildx", "bake", *(f"--allow=fs.read={place}" for place in reads)]
    command = shlex.join([*bake, "--file", fleet.file.name])
    say(f"next: cd {where} && PUSH=1 REGISTRY=registry.example {command}")


def show_files(files: Iterable[Path], command: Sequence[str]) -> None:
    """Print *files*, which were written, and the *command* that builds them."""
    for path in files:
        click.echo(str(path))
    say(f"next: {shlex.join(command)}")


def _build_command(
    config: Config, platforms: Sequence[Platform], key: pipeline.KeySource, epoch: int, *operands: str
) -> list[str]:
    """
    Return the command of plain buildx that builds the image of `build` at time *epoch*.

    It names the private key's file if *key* is the public half.
    """
    secrets = [secret.option for secret in key.secrets]
    if not secrets:
        secrets = [f"id=signing-key,src={key.path.with_suffix('.pem') if key.path else 'KEY.pem'}"]
    options = ["--platform", ",".join(platform.oci for platform in platforms), "--provenance=false"]
    options += ["--build-arg", f"SOURCE_DATE_EPOCH={epoch}"]
    options += [word for secret in secrets for word in ("--secret", secret)]
    options += ["--tag", config.build.tag] if config.build.tag else []
    return ["docker", "buildx", "build", *options, *operands]
