# SPDX-License-Identifier: Apache-2.0
"""Fixtures of a local Debian mirror. A test file or a conftest.py that imports them has them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.mirror import Keys, Mirror, forget_keys, make_keys, serve


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """Give the key that signs the lists of the mirrors."""
    for tool in ("apt-get", "dpkg-deb", "gpg"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs-tool: {tool}")
    keys = make_keys(tmp_path_factory.mktemp("keys"))
    yield keys
    forget_keys(keys)


@pytest.fixture
def mirror(keys: Keys, tmp_path: Path) -> Iterator[Mirror]:
    """Give an empty mirror."""
    with serve(tmp_path / "mirror", keys) as mirror:
        yield mirror
