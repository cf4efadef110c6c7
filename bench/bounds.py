# SPDX-License-Identifier: Apache-2.0
"""Start programs with few capabilities, as `docker run --cap-drop ALL --cap-add ...` does."""

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
    Return the result of *call*, whose child programs have only the capabilities *names*, even as root.

    A thread has its own bounding set, which never grows again (capabilities(7)). Therefore *call* runs in a
    new thread.

    Raises: BenchError, without the right to drop capabilities; errors of *call*.
    """

    def drop_and_call() -> Result:
        libc = ctypes.CDLL(None, use_errno=True)
        for name, number in CAPABILITY_NUMBERS.items():
            if name not in names and libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
                raise BenchError(f"cannot take {name} away: errno {ctypes.get_errno()}; run as root")
        return call()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(drop_and_call).result()
