# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the unit tests."""

from __future__ import annotations

from labs.mirrorfixtures import keys, mirror

__all__ = ["keys", "mirror"]
