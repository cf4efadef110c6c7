# SPDX-License-Identifier: Apache-2.0
"""
A plugin of pytest that writes down which functions of the loader each test enters.

REACHED_FILES names the files that reached.c maps, REACHED_LOG the file that gets a line of JSON for each
test: its outcome, its seconds, and for each file the addresses of entered functions.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_FILES = [Path(name) for name in os.environ["REACHED_FILES"].split(":")]
_LOG = Path(os.environ["REACHED_LOG"])


def _take() -> dict[str, list[int]]:
    """Return the addresses of the functions that were entered since the last call."""
    found = {}
    for path in _FILES:
        data = path.read_bytes()
        found[path.name] = [address for address, byte in enumerate(data) if byte] if any(data) else []
        with path.open("r+b") as file:
            file.write(bytes(len(data)))
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Write the line of one test."""
    begun = time.monotonic()
    failed = item.session.testsfailed
    result: Any = yield
    line = {
        "test": item.nodeid,
        "passed": item.session.testsfailed == failed,
        "seconds": round(time.monotonic() - begun, 3),
        "reached": _take(),
    }
    with _LOG.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return result
