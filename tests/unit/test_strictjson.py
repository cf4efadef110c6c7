# SPDX-License-Identifier: Apache-2.0
"""JSON that the strict reader accepts and refuses, beyond the vectors."""

from __future__ import annotations

import pytest

from buildtool.core import strictjson


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON: line 1 column 1"),
        (b'{"a":1,\n  b}', "not valid JSON: line 2 column 3"),
        (b'\xef\xbb\xbf{"a":1}', "begins with a byte order mark"),
        (b"null", "not a JSON object"),
        (b'{"a":1,"a":1}', "duplicate member"),
        (b'{"a":{"b":1,"b":1}}', "duplicate member"),
        (b'{"a":1e1}', "not an integer"),
        (b'{"a":-Infinity}', "not an integer"),
        (b'{"a":"\\ud800"}', "lone surrogate"),
        (b'{"\\udc00":1}', "lone surrogate"),
        (b'{"a":["\\u0000"]}', "u0000"),
        (b'{"a":' + b"[" * 8 + b"]" * 8 + b"}", "nested more than 8 deep"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested more than 8 deep"),
        (b'{"a":' + b"9" * 5000 + b"}", "^an integer with 5000 digits$"),
        (b'{"a":"\xff"}', "not UTF-8"),
    ],
)
def test_refused(text: bytes, message: str) -> None:
    """Any text gives a value or ValueError."""
    with pytest.raises(ValueError, match=message):
        strictjson.parse_json_object(text)


def test_taken() -> None:
    """Eight levels, pairs of surrogates and an escaped backslash before u0000 are fine."""
    assert strictjson.parse_json_object(b'{"a":' + b"[" * 7 + b"]" * 7 + b"}")
    assert strictjson.parse_json_object(b'{"a":"\\ud83d\\ude00","b":"\\\\u0000"}') == {
        "a": "\U0001f600",
        "b": "\\u0000",
    }


def test_times_are_read_back() -> None:
    """A time is one text and one number."""
    for text in ("1970-01-01T00:00:00Z", "2024-02-29T12:34:56Z", "9999-12-31T23:59:59Z"):
        assert strictjson.format_time(strictjson.parse_time(text)) == text
    with pytest.raises(ValueError, match=r"no such time|year"):
        strictjson.format_time(10**15)
    with pytest.raises(ValueError, match="before 1970"):
        strictjson.format_time(-1)


def test_encoding_is_sorted_ascii_without_spaces() -> None:
    """Equal values are equal bytes."""
    assert strictjson.to_bytes({"b": "\u00e4", "a": [1]}) == b'{"a":[1],"b":"\\u00e4"}'
