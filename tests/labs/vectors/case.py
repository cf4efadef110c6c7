# SPDX-License-Identifier: Apache-2.0
"""A vector, and functions that damage its file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labs.vectors.builder import (
    Recipe,
    build,
)

AMD64 = "linux/amd64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A vector: *recipe* or *data*, trust store *trust*, and the expected result, accepted or a reason."""

    name: str
    expect: str
    recipe: Recipe | None = None
    data: bytes | None = None
    trust: str = "alice"
    platform: str = AMD64

    @property
    def bytes(self) -> bytes:
        """The object's file."""
        if self.data is not None:
            return self.data
        assert self.recipe is not None
        return build(self.recipe)


def put(offset: int, form: str, value: Any) -> Callable[[bytearray], object]:
    """Return an edit that writes *value* in struct *form* at *offset*, from the end if it is negative."""
    return lambda data: struct.pack_into(form, data, offset % len(data), value)


def table(index: int, offset: int, form: str, value: Any) -> Callable[[bytearray], object]:
    """Return an edit of section header *index* (1 xdp, 2 license, 3 .sig, 4 .strtab)."""
    return lambda data: struct.pack_into(
        form, data, struct.unpack_from("<Q", data, 40)[0] + 64 * index + offset, value
    )
