# SPDX-License-Identifier: Apache-2.0
"""Parallel work gives the results and the error of a loop, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from labs.sig import NOW, RELEASE, store, unsigned
from labs.sig import test_key as alice

from buildtool.core import parallel
from buildtool.core.errors import ObjectFormatError, Reason, RefusedError, ToolFailedError
from buildtool.core.parallel import map_parallel
from buildtool.core.platforms import PLATFORMS
from buildtool.signing.sign import sign_files
from buildtool.trust.verify import verify_files

MANY = 200

# Each item names its worker by a file and takes a second.
SLOW = """
import os, signal, sys, time
from pathlib import Path
from buildtool.core import parallel
os.sched_getaffinity = lambda _: {0, 1}
signal.signal(signal.SIGINT, signal.default_int_handler)
parallel.CHUNK_ITEMS = 1

def work(item):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(1)

try:
    parallel.map_parallel(work, range(200))
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


@pytest.fixture(autouse=True)
def _three_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: {0, 1, 2})


def children() -> set[int]:
    """Return the processes that this one started and that still run."""
    started = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in started}


@pytest.fixture
def before() -> set[int]:
    """Return the children from before the test: other tests of the same process may have left some."""
    return children()


def is_running(pid: int) -> bool:
    """Tell whether process *pid* exists and is not a zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_results_in_order(before: set[int]) -> None:
    """Several processes share the work, and none of them stays."""

    def work(number: int) -> tuple[int, int]:
        time.sleep(0.005)  # long enough for the second worker to start
        return number, os.getpid()

    results = map_parallel(work, range(MANY))
    assert [number for number, _ in results] == list(range(MANY))
    workers = {pid for _, pid in results}
    assert os.getpid() not in workers
    assert 1 < len(workers) <= 3
    assert children() <= before


def test_few_items_and_threads_need_no_worker() -> None:
    """A fork of a process with threads could wait for ever."""
    assert set(map_parallel(lambda _: os.getpid(), range(99))) == {os.getpid()}
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert set(map_parallel(lambda _: os.getpid(), range(MANY))) == {os.getpid()}
    done.set()
    thread.join()


@pytest.mark.parametrize("first", [0, 70, 150])
def test_first_error_arrives_whole(first: int, before: set[int]) -> None:
    """With its class, reason and hint."""

    def check(number: int) -> int:
        if number in (first, 199):
            raise RefusedError(Reason.REVOKED, f"item {number}", hint="none")
        return number

    with pytest.raises(RefusedError, match=f"item {first}") as caught:
        map_parallel(check, range(MANY))
    assert (caught.value.reason, caught.value.hint) == (Reason.REVOKED, "none")
    assert children() <= before


def test_killed_worker_is_an_error(before: set[int]) -> None:
    """Not a shorter list."""
    ours = os.getpid()

    def check(number: int) -> int:
        if number == 150 and os.getpid() != ours:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(ToolFailedError, match="a worker process was killed"):
        map_parallel(check, range(MANY))
    assert children() <= before


def test_the_function_is_not_sent_to_workers() -> None:
    """A signing key that it holds reaches them by fork only."""

    class Key:
        def __reduce__(self) -> str:
            raise AssertionError("pickled")

    key = Key()
    assert set(map_parallel(lambda _: isinstance(key, Key), range(MANY))) == {True}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("everyone", [True, False], ids=["the group", "the parent"])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals, everyone: bool) -> None:  # noqa: FBT001
    """Ctrl-C ends the run after the items at work; a killed parent ends it at once; no worker has words."""
    argv = [sys.executable, "-c", SLOW, tmp_path]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while len(list(tmp_path.iterdir())) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        workers = [int(path.name) for path in tmp_path.iterdir()]
        (os.killpg if everyone else os.kill)(process.pid, number)
        started = time.monotonic()
        _, said = process.communicate(timeout=60)
    while any(map(is_running, workers)):
        assert time.monotonic() - started < 20
        time.sleep(0.01)
    assert said == ("interrupted\n" if number == signal.SIGINT else "")
    assert process.returncode == (1 if number == signal.SIGINT else -number)


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
