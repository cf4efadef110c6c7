# SPDX-License-Identifier: Apache-2.0
"""`buildtool build` and its view."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from buildtool import build as pipeline
from buildtool.cli.codequality import code_quality_option, quality_report
from buildtool.cli.inspectview import run_rows
from buildtool.cli.options import (
    OutputPath,
    arch_option,
    bad_value,
    checked,
    complete_files,
    config_option,
    json_option,
    read_config,
)
from buildtool.cli.output import print_json, say
from buildtool.cli.signeroptions import KEY_HELP, ask_passphrase
from buildtool.config.file import DEFAULT_BASE, Config
from buildtool.config.project import choose_platforms, find_sources
from buildtool.config.values import ENGINES, SBOM_FORMATS
from buildtool.core.cache import open_cache
from buildtool.core.errors import UsageError
from buildtool.core.files import check_target, check_writable, write_atomic
from buildtool.core.platforms import this_platform
from buildtool.core.process import Runner
from buildtool.core.validate import parse_image_label, parse_signer
from buildtool.deploy.plan import LoadedProgram, host_name, note_platforms, plan_run
from buildtool.image.attachments import describe_settings
from buildtool.image.cioutputs import format_dotenv, format_summary, wants_overview, write_ci_outputs
from buildtool.image.docker.build import parse_output
from buildtool.image.docker.caches import check_cache, explain_caches
from buildtool.image.metadata import image_entrypoint, image_selection, parse_entrypoint
from buildtool.image.result import BuiltImage
from buildtool.image.scan import choose_capabilities, scan_programs
from buildtool.oci.annotations import parse_annotation


def _not_empty(_: click.Context, parameter: click.Parameter, value: str | None) -> str:
    """Refuse an empty --output, which comes from an unset variable."""
    if value == "":
        hint = "for example --output image.tar"
        raise bad_value(UsageError("the name is empty", hint=hint), parameter)
    return value or ""


@click.command("build")
@arch_option(
    "--platform",
    help="Architecture, may be repeated (one index): arm64, or linux/arm64,linux/amd64 as for buildx."
    " Default: build.arch, else this machine's.",
)
@click.option(
    "--tag",
    "-t",
    "tags",
    multiple=True,
    help="Name of the image, may be repeated; default: build.tag, else PROJECT:RELEASE.",
)
@click.option("--push", is_flag=True, help="Push to the registry in the tag instead of the engine's store.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    callback=checked(parse_image_label),
    metavar="KEY=VALUE",
    help="Label of the image, beside those of image.labels; may be repeated.",
)
@click.option(
    "--annotation",
    "annotations",
    multiple=True,
    callback=checked(parse_annotation),
    metavar="[PLACE:]KEY=VALUE",
    help="Annotation of each platform's manifest, or of PLACE as for buildx, such as index; may be repeated.",
)
@click.option(
    "--metadata-file",
    type=OutputPath(path_type=Path),
    help="Write digest and names of the image as JSON, in the form of buildx.",
)
@click.option(
    "--sign-image/--no-sign-image",
    default=None,
    help="Sign a pushed image in its registry, too; default: publish.sign, else yes.",
)
@click.option(
    "--sbom",
    type=click.Choice(SBOM_FORMATS),
    help="Bill of materials of a signed, pushed image; default: publish.sbom, else cyclonedx.",
)
@click.option(
    "--provenance/--no-provenance",
    default=None,
    help="Provenance of a signed, pushed image; default: publish.provenance, else yes.",
)
@click.option(
    "--output",
    "-o",
    callback=_not_empty,
    shell_complete=complete_files,
    help="OCI archive (NAME.tar), directory for the files, or as for buildx: type=oci,dest=image.tar.",
)
@click.option(
    "--force", is_flag=True, help="Replace an output file; write into a directory that is not empty."
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="Engine that makes the image; auto: Docker if an engine answers.",
)
@click.option("--builder", default="", envvar="BUILDTOOL_BUILDER", help="Name of another buildx builder.")
@click.option("--no-cache", is_flag=True, help="Build without the caches.")
@click.option(
    "--cache-from",
    multiple=True,
    callback=checked(check_cache),
    metavar="CACHE",
    help="BuildKit's cache to read, as for buildx: type=registry,ref=..., type=local,src=... or type=gha.",
)
@click.option(
    "--cache-to",
    multiple=True,
    callback=checked(check_cache),
    metavar="CACHE",
    help="BuildKit's cache to write, as for buildx: type=registry,ref=...,mode=max and others.",
)
@click.option("--key", type=click.Path(), callback=checked(parse_signer), metavar="SIGNER", help=KEY_HELP)
@click.option(
    "--sign-on",
    type=click.Choice(["builder", "host"]),
    help="Where to sign; with host, no builder sees the key.",
)
@click.option(
    "--dotenv",
    type=OutputPath(path_type=Path),
    help="Write names and digests of the image to this file as variables, for GitLab.",
)
@click.option(
    "--summary",
    type=OutputPath(path_type=Path),
    help="Write sizes, programs, kernels and signatures of the image to this file, as Markdown.",
)
@code_quality_option
@config_option
@json_option
def command(*, code_quality: Path | None, dotenv: Path | None, summary: Path | None, **given: Any) -> None:
    """Compile, sign and pack the programs of this project into a container image."""
    for path in filter(None, (dotenv, summary)):
        check_target(path, replace=True)
        check_writable(path)
    with quality_report(code_quality):
        image, config = _build(**{name: value for name, value in given.items() if name != "as_json"})
        if dotenv or summary or wants_overview(os.environ):
            from buildtool.image.overview import describe_image

            fields = parse_output(given["output"])
            pushed = given["push"] or fields.get("type") == "registry" or fields.get("push") == "true"
            platforms = describe_image(image, open_cache(os.environ), pushed=pushed)
            write_ci_outputs(image, platforms, os.environ)
            if dotenv:
                write_atomic(dotenv, format_dotenv(image, platforms))
            if summary:
                write_atomic(summary, format_summary(image, platforms).encode())
    show_image(image, config, output=given["output"], as_json=given["as_json"])


def _build(*, arch: tuple[str, ...], config_path: Path | None, **given: Any) -> tuple[BuiltImage, Config]:
    """Build, and return the image and the configuration of its project."""
    # A cancelled pipeline sends SIGTERM, which must also end the engine's build.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # buildx writes its progress from its own process group, which `stty tostop` would stop for ever.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    config = read_config(config_path)
    _check_published(given, config)
    given["sign_on"] = given["sign_on"] or config.build.sign_on
    given["engine"] = given["engine"] or config.build.engine
    given["sign_image"] = config.publish.sign if given["sign_image"] is None else given["sign_image"]
    given["sbom"] = given["sbom"] or config.publish.sbom
    given["provenance"] = config.publish.provenance if given["provenance"] is None else given["provenance"]
    given["labels"] = dict(given["labels"])
    given["annotations"] = tuple(item for found in given["annotations"] for item in found)
    for text in explain_caches((*given["cache_from"], *given["cache_to"]), os.environ):
        say(f"warning: {text}")
    options = pipeline.BuildOptions(platforms=choose_platforms(arch, config), **given)
    image = pipeline.build(config, options, environ=os.environ, ask=ask_passphrase, runner=Runner())
    if image.replaced:
        say(f"{image.reference}: replaced image {image.replaced.removeprefix('sha256:')[:12]} in the engine")
    return image, config


def _check_published(given: Mapping[str, Any], config: Config) -> None:
    """
    Check that an option of *given* that asks for what is beside an image in its registry has an effect.

    The configuration may ask for it, because not every build is pushed. Raises: UsageError.
    """
    asked = {
        "--sign-image": given["sign_image"] is True,
        "--sbom": given["sbom"] not in (None, "none"),
        "--provenance": given["provenance"] is True,
    }
    option = next((name for name, value in asked.items() if value), "")
    if option and not given["push"]:
        raise UsageError(
            f"{option} requires --push, which writes to a registry",
            hint="buildtool sbom FILE and buildtool publish FILE --bundle are for files",
        )
    signs = config.publish.sign if given["sign_image"] is None else given["sign_image"]
    if option and not signs:
        raise UsageError(
            f"{option} requires a signed image", hint="leave --no-sign-image out; publish.sign = true signs"
        )


def show_image(image: BuiltImage, config: Config, *, output: str, as_json: bool) -> None:
    """
    Print *image*, built from the project of *config* with *output*.

    Raises: FileAccessError, UsageError.
    """
    sources = find_sources(config)
    capabilities = choose_capabilities(config, sources)
    plan = plan_run(
        name=host_name(image.reference),
        entrypoint=parse_entrypoint(image_entrypoint(config)),
        programs=(
            LoadedProgram(name=name, section=section)
            for name, section in scan_programs(config, sources)
            if image_selection(config).loads(name, section)
        ),
        capabilities=capabilities,
        user=config.image.user,
    )
    plan.notes += note_platforms(image.platforms, this_platform().oci)
    if config.image.workload and config.images.base == DEFAULT_BASE:
        program = config.image.workload[0]
        plan.notes.append(
            f"the default base image has no {program}: add -v FILE:{program}:ro before the image's name,"
            " or let images.base name an image that has it"
        )
    is_image = bool(image.reference)
    if as_json:
        names = {"key_id": "keyId"}
        value = {names.get(name, name): value for name, value in asdict(image).items()}
        del value["metadata"]
        run = {"before": plan.before, "command": plan.command(image.reference), "notes": plan.notes}
        value |= {"run": run if is_image else None}
        settings = {"attach": config.image.attach, "load": config.image.load}
        settings |= {"set": config.image.set, "mapEntries": config.image.map_entries}
        print_json(value | {"capabilities": capabilities} | settings)
        return
    click.echo("\n".join(_image_rows(image, output)))
    if not is_image:
        return
    rows = {
        "attach": describe_settings(config.image.attach),
        "with": config.image.load,
        "set": config.image.set,
        "entries": config.image.map_entries,
    }
    for name, values in rows.items():
        for text in values:
            click.echo(f"{name:<7} {text}")
    if image.file:
        click.echo(f"load    {_load_command(image.file, parse_output(output))}")
    click.echo("\n".join(run_rows(plan, image.reference)))


def _image_rows(image: BuiltImage, output: str) -> Iterator[str]:
    """Yield the rows about the image itself: its names, digest, key, signature and other formats."""
    yield f"{'image ' if image.reference else 'output'}  {image.file or image.reference or output}"
    yield from (f"image   {tag}" for tag in image.tags[1:])
    if image.digest:
        yield f"digest  {image.digest}"
    yield f"key id  {image.key_id}"
    if image.signed:
        yield "signed  in the registry, for cosign, podman and buildtool verify"
    for other in image.others:
        yield f"{other.format:<6}  {other.file or other.reference}"


def _load_command(place: str, output: Mapping[str, str]) -> str:
    """Return the command that brings the image at *place*, a file or a directory, into an engine."""
    if output.get("tar") == "false":
        return f"tar --create --directory {shlex.quote(place)} . | docker load"
    return f"docker load --input {shlex.quote(place)}"
