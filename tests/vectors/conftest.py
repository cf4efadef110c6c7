# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that run the vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
from labs.vectors.index import write_stores


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with all good trust stores."""
    return write_stores(tmp_path_factory.mktemp("stores"))
