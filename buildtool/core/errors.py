# SPDX-License-Identifier: Apache-2.0
"""
The error tree, exit codes and refusal reasons.

Exit codes are an API (docs/reference/exit-codes.md): 0 done, 1 failed, 2 usage or
configuration, 3 refused. 126, 127 and 128+n belong to tini.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buildtool.core.diagnostics import Diagnostic

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3


class Reason(StrEnum):
    """
    Reasons of refusal, with the same words in Python, C, JSON and the documents.

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
    """Return the system's text for *error* in lower case, as messages require."""
    return (error.strerror or str(error)).lower()


def has_system_reason(error: BaseException) -> bool:
    """Say whether *error* has words of the system: libraries derive errors of their own from OSError."""
    return isinstance(error, OSError) and bool(error.strerror)


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of a foreign *error*, or its class name, cut to 200 characters."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


class BuildtoolError(Exception):
    """
    Base of every error that a user may see.

    *message* is one line, `thing: problem: cause`, in lower case, without a final period.
    *hint* names a command or a key that helps. *detail* is output of a tool, such as a
    compiler's diagnostics, and is printed unchanged. *diagnostics* are the lines of source files in it.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        self.diagnostics: tuple[Diagnostic, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        """Return a recipe that skips `__init__`, whose arguments differ: worker processes pickle errors."""
        return BaseException.__new__, (type(self), self.message), self.__dict__


class UsageError(BuildtoolError):
    """The command line is wrong or contradicts itself."""

    exit_code = EXIT_USAGE


class ConfigError(BuildtoolError):
    """The configuration file or an environment variable is wrong."""

    exit_code = EXIT_USAGE


class FileAccessError(BuildtoolError):
    """A file cannot be read or written."""


class ToolMissingError(BuildtoolError):
    """A required program (clang, docker) is not installed on this machine."""


class ToolFailedError(BuildtoolError):
    """A program ran and failed. *detail* holds its standard error."""


class PackageUnavailableError(ToolFailedError):
    """
    A mirror delivers *packages* for *architecture* (Debian's name) by none of the ways in CONTRIBUTING.md.

    *packages* is empty if the mirror does not deliver the package list either.
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
    """clang refused a source. *detail* holds its diagnostics."""


class CheckFailedError(BuildtoolError):
    """An object of a build breaks a rule of `check`; *detail* has the other findings."""


class EngineError(BuildtoolError):
    """The container engine is missing, too old or failed."""


class BuildStepError(EngineError):
    """A step of buildtool's Dockerfile failed in the builder, with its own message, hint and *exit_code*."""

    def __init__(self, message: str, *, exit_code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class VmError(BuildtoolError):
    """A virtual machine did not start, did not reach its command, or did not end in time."""


class RegistryError(BuildtoolError):
    """A registry refused a request, lacks an object, or broke the connection."""


class ObjectFormatError(BuildtoolError):
    """A file is not an object of the profile in spec/sig-section.md."""


class MetricTagError(ObjectFormatError):
    """A declaration tag of a metric is wrong. *word* is a word of the tag, by which its line is found."""

    def __init__(self, message: str, *, word: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.word = word


class SigningKeyError(BuildtoolError):
    """A key file is missing, unreadable, readable by others, encrypted, or of another kind."""


class AlreadySignedError(BuildtoolError):
    """The object has a signature, and the caller did not request a new one."""


class RefusedError(BuildtoolError):
    """Verification refused an object for *reason*."""

    exit_code = EXIT_REFUSED

    def __init__(self, reason: Reason, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
