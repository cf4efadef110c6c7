# SPDX-License-Identifier: Apache-2.0
"""`buildtool sign`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from buildtool.cli.options import OutputPath, checked, complete_arch, config_option, json_option, read_config
from buildtool.cli.output import clean_line, print_json, say
from buildtool.cli.signeroptions import open_given_signer, signer_options
from buildtool.config.file import MAX_CONFIG_BYTES, Config
from buildtool.config.project import name_objects
from buildtool.config.settable import decode_settable
from buildtool.config.sourcedate import source_date
from buildtool.core.errors import UsageError
from buildtool.core.files import check_makeable, read_bounded
from buildtool.core.platforms import Platform, find_platform
from buildtool.core.strictjson import MAX_INTEGER
from buildtool.core.validate import check_project_name, check_release, check_time
from buildtool.signing.cosigners import ChangedFile, add_signatures, remove_signatures
from buildtool.signing.keys import shorten_key_id
from buildtool.signing.sign import ReleaseInfo, SignedFile, check_times, sign_files
from buildtool.signing.stale import StaleFinder

_PATH = click.Path(path_type=Path)


Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--project", callback=checked(check_project_name), help="Project name."),
    click.option(
        "--object-version", type=click.IntRange(0, MAX_INTEGER), help="Version that verifiers compare."
    ),
    click.option("--release", callback=checked(check_release), help="Version for readers."),
    click.option("--created", callback=checked(check_time), help="Time of the statement; default: HEAD's."),
    click.option("--not-after", callback=checked(check_time), help="Refuse the objects after this time."),
)


def release_options(command: Command) -> Command:
    """Add the options of a statement to *command*."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("sign")
@click.argument("objects", nargs=-1, required=True, type=_PATH, metavar="OBJECT...")
@signer_options
@click.option(
    "--output", type=OutputPath(path_type=Path), help="Directory for the signed objects; default: in place."
)
@click.option(
    "--arch",
    callback=checked(find_platform),
    shell_complete=complete_arch,
    help="Architecture; default: the compile record's.",
)
@click.option("--force", is_flag=True, help="Replace existing signatures and output files.")
@click.option("--add", is_flag=True, help="Add a signature; the statement and the others stay.")
@click.option("--remove", metavar="KEYID", help="Remove the signature of this key.")
@click.option("--settable", type=_PATH, hidden=True, help="What a Dockerfile's objects let be set.")
@release_options
@config_option
@json_option
def command(*, objects: tuple[Path, ...], arch: Platform | None, output: Path | None, **given: Any) -> None:
    """Embed a signature in each OBJECT; all of them or none."""
    config, removed = read_config(given["config_path"]), given["remove"]
    if given["add"] or removed:
        check_no_release(given, arch)
    if output:
        check_makeable(output)
    release = release_info(config, given)
    if given["settable"]:
        release = replace(
            release, settable=decode_settable(read_bounded(given["settable"], MAX_CONFIG_BYTES))
        )
    if not (given["add"] or removed):
        _warn_unused_bounds(config, objects)
        check_times(release.not_after, created=release.created, now=int(time.time()))
    # The signer last: it may ask for a PIN.
    key_id = removed or (key := open_given_signer(given, config)).key_id
    signed: Sequence[SignedFile | ChangedFile]
    if removed:
        signed = remove_signatures(objects, removed, output=output)
    elif given["add"]:
        signed = add_signatures(objects, key, output=output)
    else:
        signed = sign_files(
            objects,
            key,
            release,
            platform=arch,
            output=output,
            force=given["force"],
            stale=StaleFinder(config=config, needs_sources=False),
            declared=config.compile.declared,
        )
    if given["as_json"]:
        print_json([_to_json(file) | {"keyId": _key_of(file, key_id)} for file in signed])
        return
    done = "removed" if removed else "signed"
    for file in signed:
        line = f"{clean_line(str(file.path))}: {done}  {file.statement.platform}"
        click.echo(f"{line}  key {shorten_key_id(_key_of(file, key_id))}")


def _warn_unused_bounds(config: Config, objects: Sequence[Path]) -> None:
    """Name objects of load.settable that are neither signed now nor the project's. `build` refuses these."""
    if not config.load.settable:
        return
    try:
        known = {*name_objects(config), *(path.name for path in objects)}
    except UsageError:
        return  # a project without sources signs what others compiled, perhaps in several runs
    for name in config.load.settable:
        if name not in known:
            made = ", ".join(sorted(known))
            say(clean_line(f"load.settable: {name}: no such object; the project makes {made}"))


def _key_of(file: SignedFile | ChangedFile, signer: str) -> str:
    """Return the key that *file* is about: *signer*, or the key that --remove found by its first digits."""
    return file.changed if isinstance(file, ChangedFile) else signer


def _to_json(file: SignedFile | ChangedFile) -> dict[str, str]:
    return {"file": str(file.path), "sha256": file.statement.digest, "platform": file.statement.platform}


def check_no_release(given: dict[str, Any], arch: object) -> None:
    """
    Check that no *given* option would change the statement, which --add and --remove keep.

    Raises: UsageError.
    """
    names = ["project", "object_version", "release", "created", "not_after", "force"]
    wrong = [name for name in names if given[name] not in (None, False)] + (["arch"] if arch else [])
    if given["add"] and given["remove"]:
        wrong.append("add")
    if wrong:
        word = "remove" if given["remove"] else "add"
        option = wrong[0].replace("_", "-")
        raise UsageError(
            f"--{option} cannot be combined with --{word}, which keeps the statement",
            hint=f"leave --{option} out; sign --force makes a new statement",
        )


def release_info(config: Config, given: dict[str, Any]) -> ReleaseInfo:
    """
    Return the release of *config*, overridden by the *given* options.

    Raises: ConfigError, for a wrong SOURCE_DATE_EPOCH.
    """
    project, created = config.project, given["created"]
    return ReleaseInfo(
        settable=config.load.settable,
        project=given["project"] or project.name,
        version=project.version if given["object_version"] is None else given["object_version"],
        release=given["release"] or project.release,
        created=source_date(os.environ, config.root) if created is None else created,
        not_after=config.sign.not_after if given["not_after"] is None else given["not_after"],
    )
