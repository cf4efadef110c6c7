# SPDX-License-Identifier: Apache-2.0
"""Starts programs with some capabilities only, as `docker run --cap-drop ALL --cap-add ...` does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from measure import BenchError

from buildtool.objects.capabilities import CAPABILITY_NUMBERS

_PR_CAPBSET_DROP = 24  # linux/prctl.h

Result = TypeVar("Result")


def call_bounded(names: Collection[str], call: Callable[[], Result]) -> Result:
    """
    Return what *call* returns, in a thread of which root's programs get the capabilities *names* alone.

    A bounding set is a thread's own, and never grows again (capabilities(7)): the thread ends with the call.

    Raises: BenchError when that needs rights that we have not got; what *call* raises.
    """

    def drop_and_call() -> Result:
        libc = ctypes.CDLL(None, use_errno=True)
        for name, number in CAPABILITY_NUMBERS.items():
            if name not in names and libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
                raise BenchError(f"cannot take {name} away: errno {ctypes.get_errno()}; run as root")
        return call()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(drop_and_call).result()
