# SPDX-License-Identifier: Apache-2.0
"""Mutants of `known.toml`, each with the tests that kill it. They reach beyond the verifiers."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from labs import TOP
from mutation.checkout import copy_checkout, run_pytest
from mutation.mutants import Mutant

_LIST = Path(__file__).with_name("known.toml")
# The tests build the loader, and may wait for an engine or a kernel.
_SECONDS = 1800.0


def read_known() -> Iterator[tuple[Mutant, list[str]]]:
    """Yield the listed mutants with their tests. Raises: ValueError, if a text does not stand there once."""
    for item in tomllib.loads(_LIST.read_text())["mutant"]:
        source = (TOP / item["file"]).read_text()
        if source.count(item["old"]) != 1:
            raise ValueError(
                f"{item['name']}: its text stands {source.count(item['old'])} times in {item['file']}"
            )
        start = source.index(item["old"])
        end = start + len(item["old"])
        yield Mutant(file=item["file"], source=source, start=start, end=end, new=item["new"]), item["tests"]


class KnownMutants:
    """A copy of the checkout in which the tests of all listed mutants pass."""

    def __init__(self) -> None:
        self._copy = copy_checkout("known")
        self._listed = list(read_known())
        wanted = sorted({test for _, tests in self._listed for test in tests})
        done = run_pytest(self._copy, _SECONDS, *wanted)
        if done.failed:
            raise RuntimeError(f"a test fails without any mutant:\n{done.output.decode()[-3000:]}")

    def mutants(self) -> Iterator[Mutant]:
        """Yield all listed mutants."""
        return (mutant for mutant, _ in self._listed)

    def run(self, mutant: Mutant) -> tuple[str, str]:
        """Return the outcome of *mutant*, and what killed it."""
        (tests,) = (tests for listed, tests in self._listed if listed is mutant)
        path = self._copy / mutant.file
        path.write_text(mutant.text)
        try:
            done = run_pytest(self._copy, _SECONDS, *tests)
            outcome, by = done.outcome()
            # A fixture that builds the loader fails for a mutant that does not compile.
            return (
                ("survived", f"the tests do not run: {by}") if b"\nERROR " in done.output else (outcome, by)
            )
        finally:
            path.write_text(mutant.source)
