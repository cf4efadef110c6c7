# SPDX-License-Identifier: Apache-2.0
"""`buildtool trust`: the keys of a policy, and what it allows."""

from __future__ import annotations

from pathlib import Path

import click

from buildtool.cli import trustview
from buildtool.cli.options import checked
from buildtool.core.validate import parse_time
from buildtool.signing.keys import load_public_key
from buildtool.trust.edit import add_key, remove_key, revoke_key

_PATH = click.Path(path_type=Path)


@click.group("trust")
def command() -> None:
    """Keep a trust policy: which keys count, and what they may sign."""


@command.command("add")
@click.argument("key", type=_PATH, metavar="KEY.pub")
@trustview.policy_option
@click.option("--name", default="", help="Name for people; default: the file's.")
@click.option("--not-before", callback=checked(parse_time), help="The key counts from this time on.")
@click.option("--not-after", callback=checked(parse_time), help="The key counts up to this time.")
def add(*, key: Path, policy: Path, name: str, not_before: int | None, not_after: int | None) -> None:
    """Add a public key; a policy that is not there is made."""
    public = load_public_key(key)
    click.echo(f"{add_key(policy, public, name=name, not_before=not_before, not_after=not_after)}  added")


@command.command("remove")
@click.argument("key_id", metavar="KEYID")
@trustview.policy_option
def remove(*, key_id: str, policy: Path) -> None:
    """Take a key out: its signatures are then those of nobody (unknown-key)."""
    click.echo(f"{remove_key(policy, key_id)}  removed")


@command.command("revoke")
@click.argument("key_id", metavar="KEYID")
@trustview.policy_option
def revoke(*, key_id: str, policy: Path) -> None:
    """Mark a key as revoked: what it alone signed is refused with that reason."""
    click.echo(f"{revoke_key(policy, key_id)}  revoked")


command.add_command(trustview.show)
command.add_command(trustview.check)
