# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the loader's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from loader_lab import Lab


@pytest.fixture(scope="session")
def lab(clang: Path, sysroot: Path, loader_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Give the lab of the loader's tests."""
    directory = tmp_path_factory.mktemp("lab")
    return Lab(clang=clang, sysroot=sysroot, loader=loader_binary, directory=directory)
