# SPDX-License-Identifier: Apache-2.0
"""
Collect the tests once, then test each mutant in a fork: imports and collection cost more than the tests.

    python server.py REQUESTS ANSWERS PYTEST-ARGUMENT...      two descriptors; a line of JSON for each message

A fork gives the functions of the mutant's module the code of the changed text. Code that ran at import
cannot be changed so, and the answer is then {"outcome": "import"}.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import IO, Any

import coverage
import pytest

Code = dict[tuple[str, int], CodeType]


def functions(code: CodeType) -> Iterator[CodeType]:
    """Yield *code* and the code inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from functions(constant)


def by_name(text: str, file: str) -> Code:
    """Return the code of *text* by qualified name and, among those of one name, by number."""
    seen: Counter[str] = Counter()
    found = {}
    for code in functions(compile(text, file, "exec", dont_inherit=True)):
        found[code.co_qualname, seen[code.co_qualname]] = code
        seen[code.co_qualname] += 1
    return found


def own_instructions(code: CodeType) -> tuple[Any, ...]:
    """Return all of *code* but its lines and the code inside it."""
    constants = [constant for constant in code.co_consts if not isinstance(constant, CodeType)]
    return code.co_code, [(type(item), item) for item in constants], code.co_names, code.co_varnames


def change_code(file: str, old_text: str, new_text: str) -> bool:
    """Give the live functions of *file* their code in *new_text*. Return False if code of imports differs."""
    old, new = by_name(old_text, file), by_name(new_text, file)
    live = [item for item in gc.get_objects() if isinstance(item, FunctionType)]
    live = [item for item in live if item.__code__.co_filename == file]
    names = {code: name for name, code in old.items()}
    lives_on = {names.get(item.__code__) for item in live}
    # What no live function holds, alone or in its constants, ran at import or has not run yet.
    inside = {names[code] for item in live if item.__code__ in names for code in functions(item.__code__)}
    changed = {
        name for name in old.keys() & new.keys() if own_instructions(old[name]) != own_instructions(new[name])
    }
    if old.keys() != new.keys() or not changed <= inside or None in lives_on:
        return False
    try:
        for item in live:
            item.__code__ = new[names[item.__code__]]
    except ValueError:  # other free variables
        return False
    for item in gc.get_objects():
        if isinstance(item, functools._lru_cache_wrapper):
            item.cache_clear()
    return True


class Server:
    """A pytest plugin that answers requests instead of running the collected tests."""

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        self._requests = requests
        self._answers = answers
        self._failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        self._failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Answer until the end of the requests."""
        items = {item.nodeid: item for item in session.items}
        for line in self._requests:
            request = json.loads(line)
            chosen = [items[name] for name in request.get("tests", items)]
            work = self._measure if request["kind"] == "measure" else self._test
            answer = self._fork(functools.partial(work, chosen, request), request["seconds"])
            self._answers.write(json.dumps(answer) + "\n")
            self._answers.flush()
        return True

    def _fork(self, work: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
        """Do *work* in a process of its own and return what it returns; end it after *seconds*."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.setpgid(0, 0)
                answer = json.dumps(work()).encode()
            except BaseException as error:  # noqa: BLE001 - whatever a mutant raises, in a fixture too
                answer = json.dumps({"outcome": "killed", "by": repr(error)[:200]}).encode()
            with os.fdopen(writing, "wb") as file:
                file.write(answer)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            ready, _, _ = select.select([file], [], [], seconds)
            answer = file.read() if ready else b""
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(child, 0)
        ended = "the process ended" if ready else "no end in time"
        found: dict[str, Any] = json.loads(answer) if answer else {"outcome": "killed", "by": ended}
        return found

    def _run(self, items: Sequence[pytest.Item]) -> Iterator[pytest.Item]:
        """Run *items* in their order, yield each afterwards, and stop after a failure."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            yield item
            if self._failed:
                return

    def _test(self, items: Sequence[pytest.Item], request: dict[str, Any]) -> dict[str, Any]:
        if not change_code(request["file"], request["old"], request["new"]):
            return {"outcome": "import", "by": ""}
        last = ""
        for item in self._run(items):
            last = item.nodeid
        return {"outcome": "killed", "by": last} if self._failed else {"outcome": "survived", "by": ""}

    def _measure(self, items: Sequence[pytest.Item], request: dict[str, Any]) -> dict[str, Any]:
        """Return the seconds of each test, and the tests of each line of the files in *request*."""
        seconds: dict[str, float] = {}
        tracer = coverage.Coverage(data_file=None, include=request["files"], config_file=False)
        tracer.start()
        tracer.switch_context("start")
        begun = time.monotonic()
        for number, item in enumerate(self._run(items)):
            now = time.monotonic()
            seconds[item.nodeid], begun = now - begun, now
            if number + 1 < len(items):
                tracer.switch_context(items[number + 1].nodeid)
        tracer.stop()
        data = tracer.get_data()
        lines = {file: data.contexts_by_lineno(file) for file in data.measured_files()}
        failed = list(seconds)[-1] if self._failed else ""
        return {"outcome": "measured", "failed": failed, "seconds": seconds, "lines": lines}


def main(arguments: Sequence[str]) -> int:
    """Collect and serve."""
    reading, writing, *options = arguments
    with os.fdopen(int(reading)) as requests, os.fdopen(int(writing), "w") as answers:
        return int(pytest.main(options, [Server(requests, answers)]))


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main(sys.argv[1:]))
