# SPDX-License-Identifier: Apache-2.0
"""
One function over many items on all processors, by the process pool of the standard library.

Reading and checking an object is Python code, which threads would run one after another.
Workers are forks: the function and what it holds, a signing key for one, are never sent
through a pipe. Only items and results are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from buildtool.core.errors import ToolFailedError

Item = TypeVar("Item")
Result = TypeVar("Result")

# For fewer items, starting a worker takes longer than the work.
MIN_ITEMS_PER_WORKER = 50
# An interrupted run ends when its workers have finished the chunks that they have.
CHUNK_ITEMS = 16

_function: Callable[[Any], Any]


def map_parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """
    Return the results of *function* for *items*, in the order of *items*.

    If *function* raises, the exception of the first such item is raised here,
    as in a loop; other items may have been done.

    Raises: ToolFailedError, when a worker process was killed.
    """
    workers = min(len(os.sched_getaffinity(0)), len(items) // MIN_ITEMS_PER_WORKER)
    # A fork of a process with threads may inherit a lock that no thread of the fork releases.
    if workers < 2 or threading.active_count() > 1:
        return [function(item) for item in items]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(function,)) as pool:
        try:
            return list(pool.map(_call, items, chunksize=CHUNK_ITEMS))
        except BrokenProcessPool as error:
            raise ToolFailedError(
                "a worker process was killed", hint="check whether memory ran out: dmesg shows it"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)  # leaving the block would wait for all items
            raise


def _start_worker(function: Callable[[Any], Any]) -> None:
    """Keep *function* for the items to come; leave interrupts to the parent, and end when it ends."""
    global _function  # noqa: PLW0603 - the pool gives an initializer no other place
    _function = function
    # Ctrl-C reaches the whole process group; a worker's traceback would say nothing that the parent does not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent is gone; the pool alone would wait for the next chunk for ever."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _call(item: Any) -> Any:
    return _function(item)
