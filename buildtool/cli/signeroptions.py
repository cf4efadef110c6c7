# SPDX-License-Identifier: Apache-2.0
"""Options for the signing key and its passphrase."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from buildtool.cli.options import checked
from buildtool.config.file import Config, named_variable
from buildtool.core.errors import ConfigError, FileAccessError, SigningKeyError, system_reason
from buildtool.core.files import read_bounded
from buildtool.core.process import KEY_VARIABLE, PASSPHRASE_VARIABLE
from buildtool.core.secrecy import keep_out_of_core_dumps
from buildtool.core.validate import parse_signer
from buildtool.signing.keys import missing_key
from buildtool.signing.signers.resolve import find_signer
from buildtool.signing.signers.signer import DEFAULT_TIMEOUT_SECONDS, Signer, SignerContext

MAX_PASSPHRASE_BYTES = 1024
KEY_HELP = (
    "Signing key: a file, env:NAME, pkcs11:URI, ssh-agent:NAME or exec:PROGRAM. "
    "Default: BUILDTOOL_SIGNING_KEY, sign.key."
)
Command = TypeVar("Command", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)

_OPTIONS = (
    click.option("--key", type=click.Path(), callback=checked(parse_signer), metavar="SIGNER", help=KEY_HELP),
    click.option("--public", type=_PATH, help="Public key, for a signer that cannot export it."),
    click.option("--passphrase-file", type=_PATH, help="File with the key's passphrase or the token's PIN."),
    click.option(
        "--passphrase-fd",
        type=click.IntRange(0, 1023),
        help="File descriptor to read passphrase or PIN from.",
    ),
    click.option(
        "--max-key-age",
        type=click.IntRange(min=0),
        envvar="BUILDTOOL_MAX_KEY_AGE",
        metavar="DAYS",
        help="Fail if the key file is older.",
    ),
    click.option("--expect-key-id", help="Fail unless the key has this key id."),
    click.option(
        "--signer-timeout",
        type=click.FloatRange(0.1, 3600),
        default=DEFAULT_TIMEOUT_SECONDS,
        show_default=True,
        envvar="BUILDTOOL_SIGNER_TIMEOUT",
        metavar="SECONDS",
        help="Longest wait for one signature.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passphrase:
    """The source of a passphrase: *file*, descriptor *fd*, BUILDTOOL_KEY_PASSPHRASE, or the terminal."""

    file: Path | None = None
    fd: int | None = None

    def __call__(self, origin: str) -> bytes | None:
        """Return the passphrase of key *origin*, or None if no source has one."""
        found = read_passphrase(self.file, self.fd)
        return found or (ask_passphrase(origin) or "").encode() or None


def signer_options(command: Command) -> Command:
    """Add the options of signers to *command*."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def open_given_signer(given: dict[str, Any], config: Config, *, publish: bool = False) -> Signer:
    """
    Return the signer of the *given* options, or of BUILDTOOL_SIGNING_KEY, or the one of *config*.

    To *publish*, publish.key of *config* comes before BUILDTOOL_SIGNING_KEY.

    Raises: SigningKeyError, UsageError, ConfigError, FileAccessError, ToolMissingError, ToolFailedError.
    """
    in_environment = f"env:{KEY_VARIABLE}" if KEY_VARIABLE in os.environ else None
    own = config.publish.key if publish else None
    reference = given["key"] or own or in_environment or config.sign.key
    if reference is None:
        raise missing_key(config)
    context = SignerContext(
        environ=os.environ,
        passphrase=Passphrase(file=given["passphrase_file"], fd=given["passphrase_fd"]),
        public=given["public"],
        timeout_seconds=given["signer_timeout"],
        max_age_days=given["max_key_age"],
    )
    key = "publish.key" if own else "" if in_environment else "sign.key"
    with named_variable(config, "" if given["key"] else key):
        signer = find_signer(reference, context)
    expected = given["expect_key_id"]
    # A Dockerfile requires one key, whose public half is in its trust store.
    if expected and signer.key_id != expected.lower():
        raise SigningKeyError(
            f"the signing key is {signer.key_id}, expected {expected}",
            hint="name the expected key by --key; for a new key, render the Dockerfile again",
        )
    return signer


def ask_passphrase(origin: str) -> str | None:
    """Return the passphrase of key *origin* from a prompt, or None if stdin is no terminal."""
    if not sys.stdin.isatty():
        return None
    answer: str = click.prompt(f"Passphrase of {origin}", hide_input=True, err=True)
    return answer


def read_passphrase(file: Path | None, fd: int | None = None) -> bytes | None:
    """
    Return the first line of *file*, or of descriptor *fd*, or BUILDTOOL_KEY_PASSPHRASE, or None.

    Raises: FileAccessError, ConfigError, SigningKeyError.
    """
    keep_out_of_core_dumps()
    if file is not None:
        return _first_line(read_bounded(file, MAX_PASSPHRASE_BYTES), str(file))
    if fd is not None:
        return _first_line(_read_descriptor(fd), f"descriptor {fd}")
    text = os.environ.get(PASSPHRASE_VARIABLE)
    return text.encode("utf-8", "surrogateescape") if text else None


def _read_descriptor(fd: int) -> bytes:
    data = b""
    try:
        while len(data) <= MAX_PASSPHRASE_BYTES and b"\n" not in data:
            chunk = os.read(fd, MAX_PASSPHRASE_BYTES)
            if not chunk:
                break
            data += chunk
    except OSError as error:
        raise FileAccessError(
            f"--passphrase-fd {fd}: cannot read: {system_reason(error)}",
            hint=f"open the descriptor in the shell: {fd}< FILE",
        ) from error
    return data


def _first_line(data: bytes, origin: str) -> bytes:
    passphrase = data.partition(b"\n")[0].rstrip(b"\r")
    if not 0 < len(passphrase) <= MAX_PASSPHRASE_BYTES:
        raise ConfigError(
            f"{origin}: the first line is not a passphrase",
            hint=f"write it into the first line, with 1 to {MAX_PASSPHRASE_BYTES} bytes",
        )
    return passphrase
