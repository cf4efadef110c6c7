# SPDX-License-Identifier: Apache-2.0
"""Work in forks is as work in a loop: the same results, the same error, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from signing_samples import NOW, RELEASE, store, unsigned
from signing_samples import test_key as alice

from buildtool.core import parallel as forks
from buildtool.core.errors import ObjectFormatError, Reason, RefusedError, ToolFailedError
from buildtool.core.parallel import map_forked
from buildtool.core.platforms import PLATFORMS
from buildtool.signing.sign import sign_files
from buildtool.trust.verify import verify_files

MANY = 200


@pytest.fixture(autouse=True)
def _two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks.os, "sched_getaffinity", lambda _: {0, 1, 2})


def children() -> str:
    """Return the processes that this one started."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_results_in_order() -> None:
    """From several processes."""
    results = map_forked(lambda number: (number, os.getpid()), range(MANY))
    assert [number for number, _ in results] == list(range(MANY))
    assert len({pid for _, pid in results}) == 3
    assert not children()


def test_few_items_and_threads_need_no_fork() -> None:
    """A fork of a process with threads could wait for ever."""
    assert set(map_forked(lambda _: os.getpid(), range(99))) == {os.getpid()}
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert set(map_forked(lambda _: os.getpid(), range(MANY))) == {os.getpid()}
    done.set()
    thread.join()


@pytest.mark.parametrize("first", [0, 70, 150])
def test_first_error_arrives_whole(first: int) -> None:
    """With its class, reason and hint."""

    def check(number: int) -> int:
        if number in (first, 199):
            raise RefusedError(Reason.REVOKED, f"item {number}", hint="none")
        return number

    with pytest.raises(RefusedError, match=f"item {first}") as caught:
        map_forked(check, range(MANY))
    assert (caught.value.reason, caught.value.hint) == (Reason.REVOKED, "none")
    assert not children()


def test_killed_worker_is_an_error() -> None:
    """Not a shorter list."""
    ours = os.getpid()

    def check(number: int) -> int:
        if number == 150 and os.getpid() != ours:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(ToolFailedError, match="killed"):
        map_forked(check, range(MANY))
    assert not children()


def test_interrupt_ends_the_workers() -> None:
    """They do not go on after the prompt is back."""

    def check(number: int) -> int:
        if number == 0:
            raise KeyboardInterrupt
        threading.Event().wait(60)
        return number

    with pytest.raises(KeyboardInterrupt):
        map_forked(check, range(MANY))
    assert not children()


def test_many_objects_are_signed_and_verified(tmp_path: Path) -> None:
    """The same bytes as one by one; one bad object among many leaves all as they were."""
    paths = [tmp_path / f"x{number}.bpf.o" for number in range(MANY)]
    for path in paths:
        path.write_bytes(unsigned())
    paths[170].write_bytes(b"text")
    with pytest.raises(ObjectFormatError, match=r"x170\.bpf\.o: not an ELF file"):
        sign_files(paths, alice(), RELEASE, platform=PLATFORMS["amd64"])
    assert paths[0].read_bytes() == paths[199].read_bytes() == unsigned()
    paths[170].write_bytes(unsigned())
    sign_files(paths, alice(), RELEASE, platform=PLATFORMS["amd64"])
    many = paths[199].read_bytes()
    paths[199].write_bytes(unsigned())
    sign_files(paths[199:], alice(), RELEASE, platform=PLATFORMS["amd64"])
    assert paths[199].read_bytes() == many
    paths[180].write_bytes(many)
    verdicts = list(verify_files(paths, store(), platform=None, now=NOW))
    assert [verdict.path for verdict in verdicts] == paths
    assert all(verdict.accepted for verdict in verdicts)
    paths[190].write_bytes(many[:-1])
    (bad,) = [v for v in verify_files(paths, store(), platform=None, now=NOW) if v.error]
    assert bad.path == paths[190]
    assert isinstance(bad.error, RefusedError)
