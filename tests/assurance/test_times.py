# SPDX-License-Identifier: Apache-2.0
"""Times that every verifier reads, and times that the loader writes, against Python's own calendar."""

from __future__ import annotations

from calendar import monthrange, timegm
from collections.abc import Iterator
from pathlib import Path

from labs.vectors.trust import A, policy
from labs.verifiers import Verifier, python_store

from buildtool.core.strictjson import format_time

YEARS = (1969, 1970, 1972, 1999, 2000, 2001, 2024, 2100, 2101, 2400, 9999)
NUMBERS = (0, 4, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18)  # places of digits


def texts() -> Iterator[str]:
    """Yield times at the ends of months and days, and what is no time."""
    for year in YEARS:
        for month in range(14):
            for day in (0, 1, 28, 29, 30, 31, 32):
                yield f"{year}-{month:02}-{day:02}T00:00:00Z"
    for clock in ("23:59:59", "24:00:00", "12:60:00", "00:00:60", "01:02:03"):
        yield f"2026-06-07T{clock}Z"
    for place in range(20):
        for letter in "/:-Tz":
            yield "2026-01-02T03:04:05Z"[:place] + letter + "2026-01-02T03:04:05Z"[place + 1 :]


def store_of(text: str) -> bytes:
    """Return a policy with the time *text*."""
    return policy(A, earliest=text)["policy.json"].encode()


def seconds() -> Iterator[int]:
    """Yield the first and the last second of each month of the years, and some between."""
    for year in YEARS[1:]:
        for month in range(1, 13):
            yield timegm((year, month, 1, 0, 0, 0))
            yield timegm((year, month, monthrange(year, month)[1], 23, 59, 59))
            yield timegm((year, month, 15, 1, 2, month))


def test_times_that_are_read(verifier: Verifier, tmp_path: Path) -> None:
    """All verifiers read the same times, and refuse what is none."""
    path, read = tmp_path / "policy.json", 0
    for text in texts():
        path.write_bytes(store_of(text))
        ours = python_store(path, is_key=False)
        assert verifier.ask("Y", store_of(text)) == ours, text
        read += ours != "bad-trust"
    assert read > 500


def test_times_that_are_written(c_verifier: Verifier) -> None:
    """Decision lines and records of pins have the dates of Python."""
    for second in seconds():
        assert c_verifier.ask("D", str(second).encode()) == format_time(second)
