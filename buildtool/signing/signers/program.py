# SPDX-License-Identifier: Apache-2.0
"""Signer `exec:PROGRAM ARG...`: a program that signs, usually by a key service (spec/exec-signer.md)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from buildtool.core.errors import ConfigError, SigningKeyError, UsageError
from buildtool.core.process import Runner
from buildtool.signing.keys import KeyId, PublicKey, load_public_key, parse_public_key
from buildtool.signing.signers.signer import SignerContext

_HINT = "write exec:PROGRAM or 'exec:PROGRAM ARG...', quoted as for a shell"
PROTOCOL = {"BUILDTOOL_SIGNER_PROTOCOL": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalSigner:
    """A program *argv* that signs with the private half of *public*."""

    argv: tuple[str, ...]
    public: PublicKey
    timeout_seconds: float
    runner: Runner

    @property
    def key_id(self) -> KeyId:
        """The key id."""
        return self.public.key_id

    def sign(self, message: bytes) -> bytes:
        """
        Run the program with *message* as its input and return its output, the signature.

        Raises: ToolMissingError, ToolFailedError.
        """
        argv = [*self.argv, "sign"]
        return self.runner.run(argv, stdin=message, env=PROTOCOL, timeout_seconds=self.timeout_seconds).stdout


def open_signer(command: str, context: SignerContext) -> ExternalSigner:
    """
    Return the signer of program *command*, which is split into words as by a shell. No shell runs.

    The program prints its public key, unless *context* names a file of it.

    Raises: UsageError, ConfigError, SigningKeyError, ToolMissingError, ToolFailedError.
    """
    argv, runner = _split(command), Runner()
    name = f"exec:{Path(argv[0]).name}"
    if context.public is not None:
        public = load_public_key(context.public)
    else:
        done = runner.run([*argv, "public"], env=PROTOCOL, timeout_seconds=context.timeout_seconds)
        try:
            public = parse_public_key(done.stdout, f"{name} public", name=name)
        except ConfigError as error:
            raise SigningKeyError(
                error.message, hint="it must print a PEM public key; --public FILE gives one instead"
            ) from error
    return ExternalSigner(argv=argv, public=public, timeout_seconds=context.timeout_seconds, runner=runner)


def _split(command: str) -> tuple[str, ...]:
    try:
        argv = tuple(shlex.split(command))
    except ValueError as error:
        problem = "a backslash at its end" if "escape" in str(error) else "a quote without its end"
        raise UsageError(f"exec:{command}: {problem}", hint=_HINT) from error
    if not argv or not argv[0]:
        raise UsageError("exec: no program named", hint=_HINT)
    return argv
