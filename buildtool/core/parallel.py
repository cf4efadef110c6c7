# SPDX-License-Identifier: Apache-2.0
"""
One function over many items on all processors, by fork(2).

A fork has what this process has: nothing is sent to it, least of all a key.
Only results come back.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TypeVar

from buildtool.core.errors import ToolFailedError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Fewer are done before a fork has paid for itself.
MIN_ITEMS_PER_FORK = 50


def map_forked(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """
    Return what *function* gives for each of *items*, in their order.

    When it raises, the exception of the first such item arrives here, as it
    does in a loop; the others may have been done or not.
    """
    workers = min(len(os.sched_getaffinity(0)), len(items) // MIN_ITEMS_PER_FORK)
    # A fork of a process with threads may inherit a lock that nobody will release.
    if workers < 2 or threading.active_count() > 1:
        return [function(item) for item in items]
    size = -(-len(items) // workers)
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    with _started(function, parts[1:]) as pipes:
        results = [function(item) for item in parts[0]]
        for pipe in pipes:
            answer = pipe.read()
            # Our own forks wrote it, from values of ours.
            if not answer:
                raise ToolFailedError("a worker process was killed", hint="out of memory?")
            done, value = pickle.loads(answer)  # noqa: S301
            if not done:
                raise value
            results += value
    return results


@contextmanager
def _started(
    function: Callable[[Item], Result], parts: Sequence[Sequence[Item]]
) -> Iterator[list[IO[bytes]]]:
    """Start a fork for each of *parts* and give the pipes that results come from; none outlives the block."""
    pids: list[int] = []
    pipes: list[IO[bytes]] = []
    try:
        for part in parts:
            reading, writing = os.pipe()
            pipes.append(os.fdopen(reading, "rb"))
            with os.fdopen(writing, "wb") as answer:
                pid = os.fork()
                if pid == 0:
                    _work(function, part, answer)
                pids.append(pid)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _work(function: Callable[[Item], Result], items: Sequence[Item], pipe: IO[bytes]) -> None:
    """Do the work of a fork and end it; nothing of the parent's is flushed, closed or cleaned up here."""
    try:
        try:
            answer = pickle.dumps((True, [function(item) for item in items]))
        except Exception as error:  # noqa: BLE001 - raised again by the parent
            answer = pickle.dumps((False, error))
        pipe.write(answer)
        pipe.flush()
    finally:
        os._exit(0)
