# SPDX-License-Identifier: Apache-2.0
"""Where commands get the signing key and its passphrase from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from buildtool.errors import ConfigError, UsageError
from buildtool.fsio import read_bounded
from buildtool.keys import SigningKey, is_encrypted, load_signing_key_pem, read_key_file

KEY_VARIABLE = "BUILDTOOL_SIGNING_KEY"
PASSPHRASE_VARIABLE = "BUILDTOOL_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
MAX_PASSPHRASE_BYTES = 1024


def find_key(option: Path | None, configured: Path | None, passphrase_file: Path | None = None) -> SigningKey:
    """
    Return the signing key of file *option*, else of BUILDTOOL_SIGNING_KEY, else of file *configured*.

    Raises: SigningKeyError, UsageError, ConfigError, FileAccessError.
    """
    data, origin = find_key_text(option, configured)
    if not is_encrypted(data):
        # A build always names the passphrase's file, but has one only when the key needs it.
        return load_signing_key_pem(data, origin, None)
    passphrase = read_passphrase(passphrase_file)
    if passphrase is None:
        passphrase = (ask_passphrase(origin) or "").encode() or None
    return load_signing_key_pem(data, origin, passphrase)


def ask_passphrase(origin: str) -> str | None:
    """Ask on the terminal for the passphrase of key *origin*; None when there is no terminal."""
    if not sys.stdin.isatty():
        return None
    answer: str = click.prompt(f"Passphrase of {origin}", hide_input=True, err=True)
    return answer


def find_key_text(option: Path | None, configured: Path | None) -> tuple[bytes, str]:
    """
    Return the PEM text of the signing key, and where it is from.

    Raises: SigningKeyError, UsageError.
    """
    if option is None and os.environ.get(KEY_VARIABLE):
        return os.environ[KEY_VARIABLE].encode(), KEY_VARIABLE
    path = option or configured
    if path is None:
        raise UsageError("no signing key", hint=f"give --key PATH, set sign.key or {KEY_VARIABLE}")
    return read_key_file(path), str(path)


def read_passphrase(passphrase_file: Path | None) -> bytes | None:
    """
    Return the first line of *passphrase_file*, else BUILDTOOL_KEY_PASSPHRASE, else None.

    Raises: FileAccessError, ConfigError.
    """
    if passphrase_file is None:
        text = os.environ.get(PASSPHRASE_VARIABLE)
        return text.encode() if text else None
    passphrase = read_bounded(passphrase_file, MAX_PASSPHRASE_BYTES).partition(b"\n")[0].rstrip(b"\r")
    if not 0 < len(passphrase) <= MAX_PASSPHRASE_BYTES:
        raise ConfigError(f"{passphrase_file}: the first line is not a passphrase")
    return passphrase
