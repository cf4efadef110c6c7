# SPDX-License-Identifier: Apache-2.0
"""`buildtool sign`: embed signatures in objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from buildtool.cli.keyfile import open_given_signer, signer_options
from buildtool.cli.options import OutputPath, checked, config_option, json_option, read_config
from buildtool.cli.output import clean_line, print_json
from buildtool.cli.release import check_no_release, release_info, release_options
from buildtool.core.platforms import Platform, find_platform
from buildtool.signing.cosigners import ChangedFile, add_signatures, remove_signatures
from buildtool.signing.sign import SignedFile, sign_files

_PATH = click.Path(path_type=Path)


@click.command("sign")
@click.argument("objects", nargs=-1, required=True, type=_PATH, metavar="OBJECT...")
@signer_options
@click.option(
    "--output", type=OutputPath(path_type=Path), help="Directory for the signed objects; default: in place."
)
@click.option("--arch", callback=checked(find_platform), help="Architecture; default: the compile record's.")
@click.option("--force", is_flag=True, help="Replace signatures and output files that are there.")
@click.option("--add", is_flag=True, help="Add a signature; the statement and the others stay.")
@click.option("--remove", metavar="KEYID", help="Take the signature of this key out instead.")
@release_options
@config_option
@json_option
def command(*, objects: tuple[Path, ...], arch: Platform | None, output: Path | None, **given: Any) -> None:
    """Embed a signature in each OBJECT; all of them or none."""
    config, removed = read_config(given["config_path"]), given["remove"]
    if given["add"] or removed:
        check_no_release(given, arch)
    key_id = removed or (key := open_given_signer(given, config.sign.key)).key_id
    signed: Sequence[SignedFile | ChangedFile]
    if removed:
        signed = remove_signatures(objects, removed, output=output)
    elif given["add"]:
        signed = add_signatures(objects, key, output=output)
    else:
        release = release_info(config, given)
        signed = sign_files(objects, key, release, platform=arch, output=output, force=given["force"])
    if given["as_json"]:
        print_json([_to_json(file) | {"keyId": key_id} for file in signed])
        return
    done = "removed" if removed else "signed"
    lines = (f"{clean_line(str(file.path))}: {done}  {file.statement.platform}" for file in signed)
    click.echo("\n".join(f"{line}  key {key_id[:16]}" for line in lines))


def _to_json(file: SignedFile | ChangedFile) -> dict[str, str]:
    return {"file": str(file.path), "sha256": file.statement.digest, "platform": file.statement.platform}
