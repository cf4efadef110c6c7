# SPDX-License-Identifier: Apache-2.0
"""The type of digests of content."""

from __future__ import annotations

from typing import NewType

Digest = NewType("Digest", str)
"""A SHA-256 as 64 lower-case hex digits, without the prefix sha256:."""
