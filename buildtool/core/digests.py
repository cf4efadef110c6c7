# SPDX-License-Identifier: Apache-2.0
"""Digests of content, as a type of their own."""

from __future__ import annotations

from typing import NewType

Digest = NewType("Digest", str)
"""A SHA-256 as 64 lower-case hex digits, without a prefix."""
