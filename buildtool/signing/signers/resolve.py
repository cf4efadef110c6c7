# SPDX-License-Identifier: Apache-2.0
"""Open the signer of a reference (`--key`, sign.key). Only that signer's module is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from buildtool.core.errors import SigningKeyError, UsageError
from buildtool.core.secrecy import keep_out_of_core_dumps
from buildtool.signing.keys import load_public_key
from buildtool.signing.signers.file import open_file, open_variable
from buildtool.signing.signers.signer import Signer, SignerContext

# Modules are imported by name. A build context carries each module that an import statement names, and a
# builder uses key files only.
_MODULES = {"pkcs11": "pkcs11", "ssh-agent": "sshagent", "exec": "program"}


def find_signer(reference: Path | str, context: SignerContext) -> Signer:
    """
    Return the signer of *reference*: a path, or text with a scheme (`validate.parse_signer`).

    Raises: UsageError, ConfigError, SigningKeyError, ToolMissingError, ToolFailedError.
    """
    keep_out_of_core_dumps()
    if isinstance(reference, Path):
        return _expect_public(open_file(reference, context), context)
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        return _expect_public(open_variable(rest, context), context)
    if scheme not in _MODULES:
        raise UsageError(
            f"no signer of kind {scheme!r}",
            hint="choose from env, " + ", ".join(_MODULES) + ", or name a file",
        )
    module: Any = importlib.import_module(f"buildtool.signing.signers.{_MODULES[scheme]}")
    opener: Callable[[str, SignerContext], Signer] = module.open_signer
    return _expect_public(opener(rest, context), context)


def _expect_public(signer: Signer, context: SignerContext) -> Signer:
    """Return *signer* if the public key in *context*, if any, is its own. Raises: SigningKeyError."""
    if context.public is not None and load_public_key(context.public).raw != signer.public.raw:
        raise SigningKeyError(
            f"{context.public} is not the key of the signer: {signer.key_id}",
            hint="name the signer's public key by --public, or leave --public out",
        )
    return signer
