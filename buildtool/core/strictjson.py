# SPDX-License-Identifier: Apache-2.0
"""
Read and write the JSON of spec/sig-section.md, section 6.

Statements and trust policies are read by this module. Text that two parsers could read
differently is an error. Python's own parser accepts duplicate members (the last wins), NaN,
lone surrogates and any depth.
"""

from __future__ import annotations

import json
import re
from calendar import timegm
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

MAX_DEPTH = 8
MAX_INTEGER = 2**53 - 1
MAX_DIGITS = 20

# Since Python 3.14, fromisoformat reads hour 24 as midnight of the next day.
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}Z")
_OBJECT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PROJECT = re.compile(r"[A-Za-z0-9._/-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Check = Callable[[Any], bool]


def parse_json_object(data: bytes) -> dict[str, Any]:
    """
    Return the JSON object in *data*, UTF-8 text that holds one object and nothing else.

    Raises: ValueError, whose text names the problem.
    """
    if data.startswith(BOM_UTF8):
        raise ValueError("begins with a byte order mark")
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_unique_members,
            parse_int=_parse_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    _check_strings(value, depth=1, escapes="\\u" in text)
    return value


def to_bytes(value: Mapping[str, Any]) -> bytes:
    """Return the encoding of *value* that writers use: sorted members, no white space, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def check_members(value: Any, where: str, required: Mapping[str, Check], **optional: Check) -> dict[str, Any]:
    """
    Return *value* if it is an object with all *required* and possibly *optional* members.

    Each member must satisfy its check. *where* is the first part of the error text.

    Raises: ValueError.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where}: not an object")
    for name, check in required.items():
        if name not in value:
            raise ValueError(f"{where}: {name} is missing")
        if not check(value[name]):
            raise ValueError(f"{where}: {name} must be {_EXPECTED.get(check, 'another value')}")
    if len(value) != len(required):
        for name in value.keys() - required.keys():
            if name not in optional:
                raise ValueError(f"{where}: unknown member {name!r}")
            if not optional[name](value[name]):
                raise ValueError(f"{where}: {name} must be {_EXPECTED.get(optional[name], 'another value')}")
    return value


def described(expected: str, check: Check) -> Check:
    """Return *check*, once messages know what it wants: *expected*."""
    _EXPECTED[check] = expected
    return check


def is_string(value: Any) -> bool:
    """Return whether *value* is a string."""
    return isinstance(value, str)


def is_strings(value: Any) -> bool:
    """Return whether *value* is an array of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def is_string_set(value: Any) -> bool:
    """Return whether *value* is an array of strings, strictly ascending as UTF-8 bytes."""
    # Python compares strings by code point. The order of UTF-8 bytes is the same.
    return is_strings(value) and all(first < second for first, second in pairwise(value))


def is_integer_set(value: Any) -> bool:
    """Return whether *value* is an array of integers, strictly ascending."""
    return (
        isinstance(value, list)
        and all(map(is_integer, value))
        and all(first < second for first, second in pairwise(value))
    )


def is_array(value: Any) -> bool:
    """Return whether *value* is an array."""
    return isinstance(value, list)


def is_object(value: Any) -> bool:
    """Return whether *value* is an object."""
    return isinstance(value, dict)


def is_integer(value: Any) -> bool:
    """Return whether *value* is an integer from 0 to 2**53 - 1 (spec/sig-section.md, section 6)."""
    return type(value) is int and 0 <= value <= MAX_INTEGER


def is_boolean(value: Any) -> bool:
    """Return whether *value* is true or false."""
    return isinstance(value, bool)


def is_object_name(value: Any) -> bool:
    """Return whether *value* is an object name."""
    return isinstance(value, str) and _OBJECT_NAME.fullmatch(value) is not None


def is_project(value: Any) -> bool:
    """Return whether *value* is a project name."""
    return isinstance(value, str) and _PROJECT.fullmatch(value) is not None


def is_sha256(value: Any) -> bool:
    """Return whether *value* is a SHA-256 in lower-case hex."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def is_time(value: Any) -> bool:
    """Return whether *value* is a valid time, YYYY-MM-DDTHH:MM:SSZ from 1970 on."""
    try:
        parse_time(value)
    except ValueError:
        return False
    return True


def parse_time(value: Any) -> int:
    """
    Return the seconds since the epoch of *value*, YYYY-MM-DDTHH:MM:SSZ.

    Raises: ValueError, if *value* is no such time or is before 1970.
    """
    if not isinstance(value, str) or _TIME.fullmatch(value) is None:
        raise ValueError("not a time")
    seconds = timegm(datetime.fromisoformat(value).timetuple())
    if seconds < 0:
        raise ValueError("before 1970")
    return seconds


def format_time(seconds: int) -> str:
    """
    Return *seconds* since the epoch as YYYY-MM-DDTHH:MM:SSZ.

    Raises: ValueError, if the year is not 1970 to 9999.
    """
    if seconds < 0:
        raise ValueError("before 1970")
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError) as error:
        raise ValueError("no such time") from error


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _parse_integer(text: str) -> int:
    if len(text) > MAX_DIGITS:  # Python takes a long time for many, and refuses more in words of its own
        raise ValueError(f"an integer with {len(text)} digits")
    return int(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text[:20]} is not an integer")


def _check_strings(value: Any, *, depth: int, escapes: bool) -> None:
    """
    Refuse nesting deeper than MAX_DEPTH, U+0000, and lone surrogates.

    Without *escapes*, strings are not searched: in UTF-8, only an escape can produce such a character.
    """
    if isinstance(value, str):
        if escapes and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
            raise ValueError("a string with \\u0000 or a lone surrogate")
        return
    if not isinstance(value, (dict, list)):
        return
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if escapes and isinstance(value, dict):
        for name in value:
            _check_strings(name, depth=depth, escapes=escapes)
    for item in value.values() if isinstance(value, dict) else value:
        if escapes or isinstance(item, (dict, list)):
            _check_strings(item, depth=depth + 1, escapes=escapes)


# What each check wants, for messages. A dictionary, since verification calls the checks a thousand times.
_EXPECTED: dict[Check, str] = {
    is_string: "a string",
    is_strings: "an array of strings",
    is_string_set: "an array of strings in ascending order, each once",
    is_integer_set: "an array of integers in ascending order, each once",
    is_array: "an array",
    is_object: "an object",
    is_integer: f"an integer from 0 to {MAX_INTEGER}",
    is_boolean: "true or false",
    is_object_name: "an object name (A-Z a-z 0-9 . _ -)",
    is_project: "a project name (A-Z a-z 0-9 . _ - /)",
    is_sha256: "a SHA-256 of 64 lower-case hexadecimal digits",
    is_time: "a time like 2027-01-31T00:00:00Z",
}
