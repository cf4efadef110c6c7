# SPDX-License-Identifier: Apache-2.0
"""
Show untrusted text: names of files, programs and keys, and values that somebody typed.

Printable characters of every script stay. Control characters could send commands to a terminal, and
characters for bidirectional text could show another order than the bytes have: these are escaped. So are
lone surrogates, which stand for bytes that are not UTF-8.
"""

from __future__ import annotations


def escape(text: str, *, keep: str = "") -> str:
    """Return *text* with an escape for each character that is not printable, except those in *keep*."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def quote(text: str, *, limit: int = 80) -> str:
    """Return *text* in quotes on one line, with escapes as in `escape`, cut to *limit* characters."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
