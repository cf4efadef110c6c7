# SPDX-License-Identifier: Apache-2.0
"""The type of digests of content."""

from __future__ import annotations

import re
from typing import NewType

Digest = NewType("Digest", str)
"""A SHA-256 as 64 lower-case hex digits, without the prefix sha256:."""

_PREFIXED = re.compile(r"sha256:([0-9a-f]{64})")


def parse_digest(value: object) -> Digest:
    """
    Return the digest in *value*, text of a foreign document: sha256: and 64 lower-case hex digits.

    Raises: ValueError.
    """
    found = _PREFIXED.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("not a sha256 digest")
    return Digest(found[1])
