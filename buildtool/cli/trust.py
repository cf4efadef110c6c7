# SPDX-License-Identifier: Apache-2.0
"""`buildtool trust` and its view."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from buildtool.cli.options import OutputPath, checked, json_option
from buildtool.cli.output import clean_line, print_json, print_table, say
from buildtool.core.errors import EXIT_DONE, EXIT_FAILED
from buildtool.core.strictjson import format_time
from buildtool.core.text import escape
from buildtool.core.validate import check_time
from buildtool.signing.keys import load_public_key
from buildtool.trust.edit import add_key, policy_file, remove_key, revoke_key
from buildtool.trust.lint import check_trust, key_state
from buildtool.trust.store import POLICY_NAME, RULES_COMBINE, RULES_IGNORE, TrustedKey, TrustStore, load_trust

_PATH = click.Path(path_type=Path)
policy_option = click.option(
    "--policy",
    type=OutputPath(path_type=Path),
    default=Path(POLICY_NAME),
    show_default=True,
    help="Policy file, or its directory.",
)
_HEADER = ("key id", "name", "state", "not before", "not after")


@click.group("trust")
def command() -> None:
    """Edit and check a trust policy: trusted keys, and what they may sign."""


@command.command("add")
@click.argument("key", type=_PATH, metavar="KEY.pub")
@policy_option
@click.option("--name", default="", help="Name of the key for readers; default: the file's name.")
@click.option(
    "--not-before",
    callback=checked(check_time),
    help="Time from which the key is valid.",
)
@click.option("--not-after", callback=checked(check_time), help="Time until which the key is valid.")
def add(*, key: Path, policy: Path, name: str, not_before: int | None, not_after: int | None) -> None:
    """Add a public key; create the policy if it does not exist."""
    public = load_public_key(key)
    file = policy_file(policy)
    is_new = not (file.exists() or file.is_symlink())
    click.echo(f"{add_key(policy, public, name=name, not_before=not_before, not_after=not_after)}  added")
    if is_new:
        say(f"{file} is a new policy: it trusts this key alone")


@command.command("remove")
@click.argument("key_id", metavar="KEYID")
@policy_option
def remove(*, key_id: str, policy: Path) -> None:
    """Remove a key; verifiers then refuse its signatures as unknown-key."""
    click.echo(f"{remove_key(policy, key_id)}  removed")


@command.command("revoke")
@click.argument("key_id", metavar="KEYID")
@policy_option
def revoke(*, key_id: str, policy: Path) -> None:
    """Revoke a key; objects that it alone signed are refused as revoked."""
    click.echo(f"{revoke_key(policy, key_id)}  revoked")


@command.command("list")
@policy_option
@json_option
def show(*, policy: Path, as_json: bool) -> None:
    """List the keys of a policy or of a directory of .pub files."""
    trust, now = load_trust([policy]), int(time.time())
    keys = [_key_to_json(key, now) for key in trust.keys.values()]
    if as_json:
        print_json({"policy": trust.digest, "threshold": trust.threshold, "keys": keys})
        return
    members = ("keyId", "name", "state", "notBefore", "notAfter")
    # A tab in a name would divide its field.
    print_table([[escape(key.get(name, "-")) for name in members] for key in keys], _HEADER)


@command.command("check")
@policy_option
@json_option
def check(*, policy: Path, as_json: bool) -> int:
    """Check a policy for contradictions; exit code 1 if it can accept nothing."""
    trust = load_trust([policy])
    findings = check_trust(trust, int(time.time()))
    if as_json:
        items = [{"message": item.message, "hint": item.hint, "fatal": item.fatal} for item in findings]
        rules = RULES_IGNORE if trust.ignores_image else RULES_COMBINE
        print_json({"policy": trust.digest, "imageRules": rules, "findings": items})
    else:
        for finding in findings:
            click.echo(f"{'error' if finding.fatal else 'warning'}: {clean_line(finding.message)}")
            click.echo(f"  hint: {clean_line(finding.hint)}")
        click.echo(_summary(trust))
    return EXIT_FAILED if any(finding.fatal for finding in findings) else EXIT_DONE


def _summary(trust: TrustStore) -> str:
    keys = "its key" if len(trust.keys) == 1 else f"{trust.threshold} of its {len(trust.keys)} keys"
    rules = "replaces" if trust.ignores_image else "is combined with"
    word = "ignore" if trust.ignores_image else "combine"
    return (
        f"policy {trust.digest}: an object requires a signature by {keys}\n"
        f"mounted over an image: these keys replace the image's keys; the policy {rules} the image's rules"
        f" (imageRules: {word})"
    )


def _key_to_json(key: TrustedKey, now: int) -> dict[str, Any]:
    value = {"keyId": key.public.key_id, "name": key.public.name, "state": key_state(key, now)}
    for name, seconds in (("notBefore", key.not_before), ("notAfter", key.not_after)):
        if seconds is not None:
            value[name] = format_time(seconds)
    return value
