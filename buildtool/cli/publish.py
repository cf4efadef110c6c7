# SPDX-License-Identifier: Apache-2.0
"""`buildtool publish`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from buildtool.cli.options import OutputPath, complete_files, config_option, json_option, read_config
from buildtool.cli.output import clean_line, print_json, say
from buildtool.cli.signeroptions import open_given_signer, signer_options
from buildtool.config.file import Config
from buildtool.core.cache import open_cache
from buildtool.core.errors import UsageError
from buildtool.core.validate import LAYOUT_SCHEME, check_stored
from buildtool.image.inspect import holds_image, is_file_name
from buildtool.image.result import OtherImage
from buildtool.oci.registry import open_image, parse_reference
from buildtool.publish.attest import attest_image
from buildtool.publish.file import write_bundle
from buildtool.publish.formats import is_runtime, push_formats, read_metadata
from buildtool.publish.sbom import FORMATS
from buildtool.publish.sign import SignedImage, sign_image
from buildtool.signing.keys import shorten_key_id
from buildtool.signing.signers.signer import Signer


@click.command("publish")
@click.argument("image", metavar="IMAGE", shell_complete=complete_files)
@signer_options
@click.option(
    "--bundle",
    type=OutputPath(path_type=Path),
    help="Write the signature into this file instead; for an archive or a layout, which hold none.",
)
@click.option("--force", is_flag=True, help="Replace the file of --bundle.")
@click.option("--sbom", type=click.Choice(FORMATS), help="Attach a bill of materials, too.")
@click.option("--provenance", is_flag=True, help="Attach provenance, as far as the image tells it.")
@config_option
@json_option
def command(
    *,
    image: str,
    bundle: Path | None,
    force: bool,
    sbom: str | None,
    provenance: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """
    Sign IMAGE in its registry, so that cosign, podman and `buildtool verify` accept it.

    The index and the manifest of each platform are signed. What is there already stays; a run that failed is
    finished by the next one. Images of publish.formats are made from a runtime image, pushed and signed, too.
    """
    config = read_config(given["config_path"])
    _check_request(image, bundle, documents=bool(sbom or provenance))
    signer = open_given_signer(given, config, publish=True)
    if bundle is not None:
        digest = write_bundle(image, bundle, signer, force=force)
        if as_json:
            print_json(
                {"image": image, "digest": f"sha256:{digest}", "keyId": signer.key_id, "file": str(bundle)}
            )
            return
        click.echo(f"signed  {clean_line(image)}  sha256:{digest}")
        click.echo(f"key id  {signer.key_id}")
        click.echo(f"file    {clean_line(str(bundle))}")
        return
    signed = sign_image(image, signer)
    attached: tuple[str, ...] = ()
    if sbom or provenance:
        reference = f"{signed.repository}@sha256:{signed.digest}"
        cache = open_cache(os.environ)
        attached = attest_image(reference, signer, cache, sbom=sbom or "", provenance=provenance)
    others = _push_formats(image, signed, signer, config)
    _show_signed(signed, attached, others, as_json=as_json)


def _show_signed(
    signed: SignedImage, attached: Sequence[str], others: Sequence[OtherImage], *, as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "image": f"{signed.repository}@sha256:{signed.digest}",
                "digest": f"sha256:{signed.digest}",
                "signed": [f"sha256:{digest}" for digest in signed.digests],
                "written": signed.written,
                "attached": list(attached),
                "others": [asdict(other) for other in others],
                "keyId": signed.key_id,
            }
        )
        return
    click.echo(f"signed  {signed.repository}@sha256:{signed.digest}")
    click.echo(f"key id  {signed.key_id}")
    platforms = len(signed.digests) - 1
    if platforms:
        click.echo(f"        and the manifests of {platforms} platform{'s' if platforms > 1 else ''}")
    if not signed.written:
        click.echo(f"        no new signature: key {shorten_key_id(signed.key_id)} had signed it")
    for kind in attached:
        click.echo(f"with    {kind}")
    for other in others:
        click.echo(f"{other.format:<6}  {other.reference}@{other.digest}")


def _push_formats(image: str, signed: SignedImage, signer: Signer, config: Config) -> tuple[OtherImage, ...]:
    """Push and sign the images of publish.formats, if *image*, which was signed, is a runtime image."""
    formats = config.publish.other_formats
    if not formats:
        return ()
    tag = parse_reference(image).tag
    cache = open_cache(os.environ)
    if not tag:
        say(f"{clean_line(image)}: no tag, so no images of other formats are made")
        return ()
    reference = f"{signed.repository}:{tag}@sha256:{signed.digest}"
    if not is_runtime(open_image(reference, cache)):
        return ()
    metadata = read_metadata(config.publish.gadget)
    return push_formats(reference, formats, signer, cache, metadata=metadata, report=say)


def _check_request(image: str, bundle: Path | None, *, documents: bool) -> None:
    """Check that *image* is one, and that signature and *documents* have a place. Raises: UsageError."""
    if is_file_name(image) and not holds_image(image):
        raise UsageError(f"{image}: an object, not an image", hint="buildtool sign OBJECT signs an object")
    if not image.startswith(LAYOUT_SCHEME) and not is_file_name(image):
        check_stored(image)
    if bundle is None and is_file_name(image):
        raise UsageError(
            f"{image}: a file, which has no place for a signature",
            hint="--bundle FILE writes the signature beside it; or name an image of a registry",
        )
    if bundle is not None and documents:
        raise UsageError(
            "--bundle holds a signature alone",
            hint="buildtool sbom IMAGE writes a bill of materials into a file",
        )
