# SPDX-License-Identifier: Apache-2.0
"""Words of `[trust]` in buildtool.toml, as a policy has them (spec/trust-policy.md)."""

from __future__ import annotations

import difflib
from typing import Any

from buildtool.core import validate
from buildtool.core.errors import UsageError
from buildtool.objects.helpers import HELPER_NUMBERS
from buildtool.objects.types import SECTION_TYPES

CLOCKS = ("required", "unset-ok")
MAX_HELPER = 2**32 - 1


def check_clock(value: str) -> str:
    """Return *value* if it says what becomes of objects when the clock is not set. Raises: UsageError."""
    if value not in CLOCKS:
        raise UsageError(f"{value!a} is neither {' nor '.join(CLOCKS)}")
    return value


def check_program_type(value: str) -> str:
    """Return *value* if it is libbpf's name of a program type. Raises: UsageError."""
    return _one_of(value, set(SECTION_TYPES.values()), "a program type")


def check_attach_point(value: str) -> str:
    """Return *value* if it is a section's name, or the beginning of one and a *. Raises: UsageError."""
    if not value or not value.isprintable() or "*" in value[:-1] or value.startswith("?"):
        raise UsageError(f"{value!a} is not a section's name, with * at its end for any ending")
    return value


def parse_helper(value: Any) -> int:
    """Return the number of the helper that *value*, a name or a number, is. Raises: UsageError."""
    if isinstance(value, str):
        return HELPER_NUMBERS[_one_of(value, set(HELPER_NUMBERS), "a helper")]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_HELPER:
        raise UsageError("must be a list of helpers: names or numbers")
    return value


def parse_minimum_versions(value: Any) -> dict[str, int]:
    """Return the table of object names and versions that *value* is. Raises: UsageError."""
    if not isinstance(value, dict):
        raise UsageError('must be a table: "x.bpf.o" = 3')
    for name, version in value.items():
        validate.check_object_name(name)
        if (
            not isinstance(version, int)
            or isinstance(version, bool)
            or not 0 <= version <= validate.MAX_INTEGER
        ):
            raise UsageError(f"the version of {name} must be an integer from 0 to {validate.MAX_INTEGER}")
    return dict(sorted(value.items()))


def _one_of(value: str, known: set[str], what: str) -> str:
    if value in known:
        return value
    close = difflib.get_close_matches(value, known, n=1)
    guess = f" (did you mean {close[0]}?)" if close else ""
    raise UsageError(f"{value[:80]!a} is not {what}{guess}")
