# SPDX-License-Identifier: Apache-2.0
"""Write values into YAML, so that no reader takes them for syntax or for other values."""

from __future__ import annotations

import json
from collections.abc import Iterable


def quote_scalar(value: str) -> str:
    """
    Return *value* as a double-quoted scalar of YAML 1.2, on one line and in ASCII. Surrogates become U+FFFD.

    Source: YAML 1.2.2, section 5.7: JSON's escapes are YAML's, but for pairs of surrogates.
    """
    text = value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    letters = (json.dumps(each)[1:-1] if ord(each) < 0x10000 else f"\\U{ord(each):08x}" for each in text)
    return '"' + "".join(letters) + '"'


def quote_scalars(values: Iterable[str]) -> str:
    """Return *values* as a sequence of YAML on one line."""
    return "[" + ", ".join(map(quote_scalar, values)) + "]"
