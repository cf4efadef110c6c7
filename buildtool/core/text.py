# SPDX-License-Identifier: Apache-2.0
"""
Show untrusted text: names of files, programs and keys, and values that somebody typed.

Printable characters of every script stay. Control characters could send commands to a terminal, and
characters for bidirectional text could show another order than the bytes have: these are escaped. So are
lone surrogates, which stand for bytes that are not UTF-8.
"""

from __future__ import annotations

import re

_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # surrogates that stand for no byte


def escape(text: str, *, keep: str = "") -> str:
    """Return *text* with an escape for each character that is not printable, except those in *keep*."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def replace_bytes(text: str) -> str:
    """Return *text* as UTF-8 can encode it: U+FFFD is in place of bytes that are none, and of surrogates."""
    if text.isascii():
        return text
    return _HALVES.sub("\ufffd", text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def quote(text: str, *, limit: int = 80) -> str:
    """Return *text* in quotes on one line, with escapes as in `escape`, cut to *limit* characters."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
