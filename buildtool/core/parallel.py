# SPDX-License-Identifier: Apache-2.0
"""
Run one function over many items on all processors, by the process pool of the standard library.

Reading and checking an object is Python code, and Python's global lock lets one thread run at a time.
Workers are forks, so the function and its signing key are never sent through a pipe. Items and
results are.
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
# An interrupted run ends when its workers have finished their present chunks.
CHUNK_ITEMS = 16

_function: Callable[[Any], Any]


def map_parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """
    Return the results of *function* for *items*, in the order of *items*.

    If *function* raises, this function raises the exception of the first such item, as a loop
    would. Later items may have been processed.

    Raises: ToolFailedError, if a worker process was killed.
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
            pool.shutdown(cancel_futures=True)  # the end of the block alone would wait for all items
            raise


def _start_worker(function: Callable[[Any], Any]) -> None:
    """Store *function* for later items, leave interrupts to the parent, and watch for the parent's end."""
    global _function  # noqa: PLW0603 - the pool gives an initializer no other place
    _function = function
    # Ctrl-C reaches the whole process group. The parent reports it, so workers print no traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent ends. The pool alone would wait for the next chunk for ever."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _call(item: Any) -> Any:
    return _function(item)
