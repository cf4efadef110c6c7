# SPDX-License-Identifier: Apache-2.0
"""`buildtool keygen`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from buildtool.cli.options import OutputPath, checked, json_option
from buildtool.cli.output import print_json, say
from buildtool.cli.signeroptions import read_passphrase
from buildtool.core.errors import UsageError
from buildtool.core.files import check_makeable, check_target
from buildtool.core.validate import check_key_name
from buildtool.signing.keys import generate_key, save_key


@click.command("keygen")
@click.argument("name", callback=checked(check_key_name))
@click.option(
    "--dir",
    "directory",
    type=OutputPath(path_type=Path),
    default="keys",
    show_default=True,
    help="Directory of the key files.",
)
@click.option("--passphrase", "ask", is_flag=True, help="Ask for a passphrase to encrypt the key with.")
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="Encrypt with the first line of this file; default: BUILDTOOL_KEY_PASSPHRASE, if set.",
)
@json_option
def command(*, name: str, directory: Path, ask: bool, passphrase_file: Path | None, as_json: bool) -> None:
    """Make an Ed25519 signing key NAME.pem and its public half NAME.pub; print the key id."""
    check_makeable(directory)
    for suffix in (".pem", ".pub"):
        check_target(directory / f"{name}{suffix}", replace=False)  # before anybody is asked for a passphrase
    passphrase = read_passphrase(passphrase_file)
    if ask:
        if not sys.stdin.isatty():
            raise UsageError("--passphrase: no terminal to ask on", hint="use --passphrase-file FILE")
        text = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
        passphrase = text.encode()
    key = generate_key()
    private, public = save_key(key, name, directory, passphrase)
    if as_json:
        print_json({"keyId": key.key_id, "private": str(private), "public": str(public)})
        return
    click.echo(key.key_id)
    say(f"{private} signs: keep it secret{'' if passphrase else ', it has no passphrase'}")
    say(f"{public} verifies: give it to everyone")
