# SPDX-License-Identifier: Apache-2.0
"""Limits of a deployment that people choose: processors and memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from buildtool.core.errors import UsageError

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_MEMORY = re.compile(r"([1-9][0-9]{0,12})([kmg]?)(?:i?b)?", re.IGNORECASE)
_CPUSET = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")
_CPUS = re.compile(r"([0-9]{1,3}\.[0-9]{1,3}|[0-9]{1,3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    *cpus*, a number of processors as text; *cpuset*, their numbers; *memory* in bytes.

    An empty one, and 0, is no limit of the person's.
    """

    cpus: str = ""
    cpuset: str = ""
    memory: int = 0


def parse_memory(text: str) -> int:
    """Return the bytes of *text*, such as 64m, 64Mi or 1g. Raises: UsageError."""
    found = _MEMORY.fullmatch(text)
    if not found:
        raise UsageError(f"{text!r} is not an amount of memory", hint="for example 128m or 1g")
    return int(found[1]) * _UNITS[found[2].lower()]


def parse_cpus(text: str) -> str:
    """Return *text* if it is a number of processors. Raises: UsageError."""
    if not _CPUS.fullmatch(text) or not float(text):
        raise UsageError(f"{text!r} is not a number of processors", hint="for example 2 or 0.5")
    return text


def parse_cpuset(text: str) -> str:
    """Return *text* if it lists processors. Raises: UsageError."""
    if not _CPUSET.fullmatch(text):
        raise UsageError(f"{text!r} does not list processors", hint="for example 2-3 or 0,2")
    return text


def format_bytes(count: int) -> str:
    """Return *count* in whole MiB, rounded up, as Compose and docker take it."""
    return f"{mebibytes(count)}m"


def mebibytes(count: int) -> int:
    """Return *count* bytes in whole MiB, rounded up."""
    return -(-count // (1 << 20))
