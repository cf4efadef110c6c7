# SPDX-License-Identifier: Apache-2.0
"""
The one error tree, exit codes and refusal reasons.

Exit codes are an API (docs/reference/exit-codes.md): 0 done, 1 could not do the
job, 2 usage or configuration, 3 refused. 126, 127 and 128+n belong to tini.
"""

from __future__ import annotations

from enum import StrEnum

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3


class Reason(StrEnum):
    """
    Why an object is refused; the same words in Python, C, JSON and docs.

    Source: spec/sig-section.md, "Reasons of refusal".
    """

    UNSIGNED = "unsigned"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    BAD_SIGNATURE = "bad-signature"
    DIGEST_MISMATCH = "digest-mismatch"
    WRONG_PLATFORM = "wrong-platform"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    ROLLED_BACK = "rolled-back"
    BELOW_THRESHOLD = "below-threshold"
    REVOKED = "revoked"
    DENIED_BY_POLICY = "denied-by-policy"
    TOO_LARGE = "too-large"


def system_reason(error: OSError) -> str:
    """Return the system's words for *error*, in lower case as messages are."""
    return (error.strerror or str(error)).lower()


def first_line(error: BaseException) -> str:
    """Return the first line of *error*, which another library raised, or its class, shortened."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


class BuildtoolError(Exception):
    """
    Base of every error a user may see: one line *message*, optional *hint*.

    The message says what and where, lower case, without a final period; the
    hint says what to do. *detail* is more text of a tool (a compiler's
    diagnostics), shown as it is.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        """Let an error come back from a worker process whole, whatever its class asks for when it is made."""
        return BaseException.__new__, (type(self), self.message), self.__dict__


class UsageError(BuildtoolError):
    """The command line asks for something that cannot be."""

    exit_code = EXIT_USAGE


class ConfigError(BuildtoolError):
    """The configuration file or an environment variable is wrong."""

    exit_code = EXIT_USAGE


class FileAccessError(BuildtoolError):
    """A file cannot be read or written."""


class ToolMissingError(BuildtoolError):
    """A program this needs (clang, docker) is not on this machine."""


class ToolFailedError(BuildtoolError):
    """A program ran and failed; *detail* carries what it said."""


class PackageUnavailableError(ToolFailedError):
    """
    A mirror delivers no Debian packages *packages* for *architecture* (Debian's name), by none of the ways.

    *packages* is empty when the mirror delivers no package list either.
    """

    def __init__(
        self,
        message: str,
        *,
        architecture: str,
        packages: tuple[str, ...] = (),
        hint: str | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.architecture = architecture
        self.packages = packages


class CompileError(BuildtoolError):
    """clang refused a source; *detail* carries its diagnostics."""


class CheckFailedError(BuildtoolError):
    """An object of a build breaks a rule of `check`; *detail* has the other findings."""


class EngineError(BuildtoolError):
    """The container engine is missing, too old or failed."""


class VmError(BuildtoolError):
    """A virtual machine did not start, did not reach its command or did not end in time."""


class RegistryError(BuildtoolError):
    """A registry refuses, lacks something or breaks the connection."""


class ObjectFormatError(BuildtoolError):
    """The file is not an object of the profile in spec/sig-section.md."""


class SigningKeyError(BuildtoolError):
    """A key file is missing, unreadable, too open, encrypted or of another kind."""


class AlreadySignedError(BuildtoolError):
    """The object carries a signature and re-signing was not asked for."""


class RefusedError(BuildtoolError):
    """An object is refused for the stated *reason*."""

    exit_code = EXIT_REFUSED

    def __init__(self, reason: Reason, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
