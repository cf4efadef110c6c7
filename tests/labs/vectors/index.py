# SPDX-License-Identifier: Apache-2.0
"""The vectors of tests/vectors/vectors.json, and their trust stores as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labs import TOP

VECTORS = TOP / "tests/vectors/vectors.json"
INDEX: dict[str, Any] = json.loads(VECTORS.read_text())


def write_store(directory: Path, files: Mapping[str, str]) -> Path:
    """Write the files of a trust store and return its directory."""
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_bytes(text.encode())
    return directory


def write_stores(directory: Path) -> Path:
    """Write all good trust stores, each into a directory of its name, and return *directory*."""
    for name, files in INDEX["trust"].items():
        write_store(directory / name, files)
    return directory
