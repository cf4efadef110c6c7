# SPDX-License-Identifier: Apache-2.0
"""`buildtool sign`: embed signatures in objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from buildtool.cli.keyfile import find_key
from buildtool.cli.options import checked, config_option, json_option, read_config
from buildtool.cli.output import print_json
from buildtool.cli.release import release_info, release_options
from buildtool.platforms import Platform, find_platform
from buildtool.sign import SignedFile, check_key_id, sign_files

_PATH = click.Path(path_type=Path)


@click.command("sign")
@click.argument("objects", nargs=-1, required=True, type=_PATH, metavar="OBJECT...")
@click.option("--key", "key_path", type=_PATH, help="Signing key; default: BUILDTOOL_SIGNING_KEY, sign.key.")
@click.option("--passphrase-file", type=_PATH, help="File with its passphrase.")
@click.option("--expect-key-id", help="Fail unless the key has this key id.")
@click.option("--output", type=_PATH, help="Directory for the signed objects; default: in place.")
@click.option("--arch", callback=checked(find_platform), help="Architecture; default: the compile record's.")
@click.option("--force", is_flag=True, help="Replace signatures and output files that are there.")
@release_options
@config_option
@json_option
def command(
    *,
    objects: tuple[Path, ...],
    key_path: Path | None,
    arch: Platform | None,
    output: Path | None,
    **given: Any,
) -> None:
    """Embed a signature in each OBJECT; all of them or none."""
    config = read_config(given["config_path"])
    key = find_key(key_path, config.sign.key, given["passphrase_file"])
    if given["expect_key_id"]:
        check_key_id(key, given["expect_key_id"])
    release = release_info(config, given)
    signed = sign_files(objects, key, release, platform=arch, output=output, force=given["force"])
    if given["as_json"]:
        print_json([_to_json(file) | {"keyId": key.key_id} for file in signed])
        return
    for file in signed:
        click.echo(f"{file.path}: signed  {file.statement.platform}  key {key.key_id[:16]}")


def _to_json(file: SignedFile) -> dict[str, str]:
    return {"file": str(file.path), "sha256": file.statement.digest, "platform": file.statement.platform}
