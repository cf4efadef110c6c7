# SPDX-License-Identifier: Apache-2.0
"""`buildtool verify`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from buildtool.cli.options import checked, json_option
from buildtool.cli.output import clean_line, print_json, say
from buildtool.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, FileAccessError, RefusedError
from buildtool.core.platforms import Platform, find_platform
from buildtool.signing.keys import shorten_key_id
from buildtool.signing.stale import StaleFinder
from buildtool.trust.store import load_trust
from buildtool.trust.verify import Verdict, verify_and_remember

_PATH = click.Path(path_type=Path)


@click.command("verify")
@click.argument("objects", nargs=-1, required=True, type=_PATH, metavar="OBJECT...")
@click.option("--trust", multiple=True, required=True, type=_PATH, help="Public key, directory or policy.")
@click.option(
    "--platform", "--arch", callback=checked(find_platform), help="Refuse objects of any other platform."
)
@click.option("--state", type=_PATH, help="Directory that remembers versions; refuse lower ones.")
@json_option
def command(
    *,
    objects: tuple[Path, ...],
    trust: tuple[Path, ...],
    platform: Platform | None,
    state: Path | None,
    as_json: bool,
) -> int:
    """Verify each OBJECT; exit code 3 when any is refused."""
    store = load_trust(trust)
    oci = platform.oci if platform else None
    verdicts = verify_and_remember(objects, store, state, platform=oci, now=int(time.time()))
    if as_json:
        print_json([_to_json(verdict) | {"policy": store.digest} for verdict in verdicts])
    elif verdicts:
        click.echo("\n".join(clean_line(f"{verdict.path}: {_line(verdict)}") for verdict in verdicts))
    errors = [verdict.error for verdict in verdicts if verdict.error]
    hints = dict.fromkeys(error.hint for error in errors if error.hint and not as_json)
    for hint in hints:
        say(f"hint: {clean_line(hint)}")
    _warn_stale(verdicts)
    if any(isinstance(error, RefusedError) for error in errors):
        return EXIT_REFUSED
    return EXIT_FAILED if errors else EXIT_DONE


def _warn_stale(verdicts: Iterable[Verdict]) -> None:
    """Name accepted objects that are older than their sources. Their signatures are valid all the same."""
    finder = StaleFinder()
    for verdict in verdicts:
        try:
            why = verdict.accepted and finder.explain_source(verdict.path, verdict.accepted.source)
        except FileAccessError:
            continue  # the record of another tool, or a source of another user
        if why:
            say(
                clean_line(
                    f"{verdict.path}: older than its source: {why}; {finder.find_remedy(verdict.path)}"
                )
            )


def _line(verdict: Verdict) -> str:
    if verdict.accepted:
        keys = " ".join(map(shorten_key_id, verdict.accepted.key_ids))
        return f"accepted  key {keys}  version {verdict.accepted.version}"
    if isinstance(verdict.error, RefusedError):
        return f"refused: {verdict.error.reason}: {verdict.error.message}"
    return f"error: {str(verdict.error).removeprefix(f'{verdict.path}: ')}"


def _to_json(verdict: Verdict) -> dict[str, Any]:
    line, error = {"object": str(verdict.path), "event": "verify"}, verdict.error
    if verdict.accepted:
        keys = list(verdict.accepted.key_ids)
        return line | {"decision": "accepted", "digest": verdict.accepted.digest, "keyIds": keys}
    if isinstance(error, RefusedError):
        return line | {"decision": "refused", "reason": error.reason, "message": error.message}
    return line | {"event": "error", "message": str(error)}
