# SPDX-License-Identifier: Apache-2.0
"""Many starts with the same objects: the kernel loads each object once, and every loader verifies it."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from labs.kernel import bpf_file_system
from labs.loader import PREFIX, Lab, parse, program_ids
from labs.net import veth
from labs.pins import TCX, Releases
from labs.step import count_boundaries, kill_at, kill_at_boundary

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

STARTS = 100
# Points of SIGKILL: a start that makes an entry makes 28 calls of bpf(2), and these calls on the file system.
POINTS = [*(("bpf", n) for n in range(1, 27, 2)), *(("mkdirat", n) for n in range(1, 5))]
POINTS += [("unlinkat", 1), ("flock", 1), ("flock", 2), ("renameat", 1)]
RANDOM_KILLS, CROWD = 20, 3
TRUE = ("--", "/bin/true")
# Landlock rules need one call for each entry of the parent directories. Without it the number of calls is
# fixed.
WITHOUT_LANDLOCK = ("--workload-user=65532", *TRUE)
ENTRY = re.compile(r"[0-9a-f]{64}-[0-9a-f]{16}")


def entries(releases: Releases) -> list[str]:
    """Return the names in the shared directory, sorted."""
    return sorted(entry.name for entry in releases.root.iterdir())


@pytest.mark.parametrize("loads", [1, STARTS])
def test_a_hundred_starts_load_once(shared: Releases, tmp_path: Path, loads: int) -> None:
    """With --share one of 100 starts loads and 99 reuse; without, each loads. All of them verify."""
    shared.put(1)
    options = [f"--share={shared.root}"] if loads == 1 else []
    argv = shared.lab.argv(shared.directory, *options, "--", "/bin/sleep", "60")
    logs = [tmp_path / f"log{number}" for number in range(STARTS)]
    running = []
    for log in logs:
        with log.open("w") as stream:
            running.append(subprocess.Popen(argv, stderr=stream))
    try:
        deadline = time.monotonic() + 60
        while not all('"event":"exec"' in log.read_text() for log in logs):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        words = [line["event"] for log in logs for line in parse(log.read_text())]
        assert len(program_ids()) == loads
        assert (words.count("verify"), words.count("attach")) == (STARTS, STARTS)
        assert (words.count("load"), words.count("reuse")) == (loads, STARTS - loads)
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_everybody_verifies(shared: Releases) -> None:
    """A shared entry does not help a start whose own bytes are not the signed ones."""
    shared.put(1)
    assert shared.lab.run(shared.directory, f"--share={shared.root}", *TRUE).code == 0
    path = shared.directory / "objects/count.bpf.o"
    path.write_bytes(path.read_bytes().replace(b"GPL\0", b"GPM\0", 1))
    result = shared.lab.run(shared.directory, f"--share={shared.root}", *TRUE)
    assert (result.code, result.reasons) == (3, ["digest-mismatch"])


def test_entry_lives_as_long_as_somebody_uses_it(shared: Releases) -> None:
    """An entry stays while a loader or workload uses it, and is removed with the last one."""
    shared.put(1)
    option = f"--share={shared.root}"
    with shared.lab.started(shared.directory, option) as (_, stop):
        (entry,) = entries(shared)
        argv = [str(shared.lab.pins), "list", option]
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[-1] == "used"
        assert subprocess.run([*argv[:1], "detach", option], check=True, capture_output=True)
        assert entries(shared) == [entry]
        with shared.lab.started(shared.directory, option) as (_, stop_other):
            assert stop_other().code == 0
        assert entries(shared) == [entry]
        assert stop().code == 0
    assert entries(shared) == []


def test_old_release_goes_when_a_new_one_comes(shared: Releases) -> None:
    """The first start of the next release removes an entry that killed workloads left."""
    option = f"--share={shared.root}"
    shared.put(1)
    assert shared.lab.run(shared.directory, option, *TRUE).code == 0
    (old,) = entries(shared)
    shared.put(2, release=2)
    assert shared.lab.run(shared.directory, option, *TRUE).code == 0
    (new,) = entries(shared)
    assert new != old
    argv = [str(shared.lab.pins), "list", option, "--json"]
    (found,) = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert (found["version"], found["used"]) == (2, False)


def test_direction_is_part_of_what_is_shared(lab: Lab, tmp_path: Path) -> None:
    """One object for two hooks gives two entries with different programs."""
    source = TCX.replace("tcx/ingress", "tc")
    with veth() as (left, _), bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "share", source)
        releases.put(1)
        option = f"--share={releases.root}"
        attach = f"--attach={PREFIX}_tcx={left}"
        with lab.started(tmp_path, option, f"{attach}:ingress") as (_, stop):
            with lab.started(tmp_path, option, f"{attach}:egress") as (_, other):
                assert len(entries(releases)) == 2
                assert other().code == 0
            assert stop().code == 0


@pytest.mark.parametrize(
    ("call", "number"),
    POINTS,
)
def test_killed_starter_blocks_nobody(shared: Releases, call: str, number: int) -> None:
    """After SIGKILL at any of these points no partial entry is used, and the next start works."""
    shared.put(1)
    option = f"--share={shared.root}"
    assert kill_at(shared.lab.argv(shared.directory, option, *TRUE), call, number)
    if shared.root.exists():
        assert all(name == "next" or ENTRY.fullmatch(name) for name in entries(shared))
    result = shared.lab.run(shared.directory, option, *TRUE)
    assert (result.code, len(entries(shared))) == (0, 1)


def test_killed_at_random_points_in_a_crowd(shared: Releases, tmp_path: Path) -> None:
    """After SIGKILL at a random point the starts that waited for it work, and so does the next."""
    seed = int(os.environ.get("STORM_SEED") or random.randrange(2**32))  # noqa: S311
    points = random.Random(seed)  # noqa: S311
    shared.put(1)
    option = f"--share={shared.root}"
    argv, log = shared.lab.argv(shared.directory, option, *WITHOUT_LANDLOCK), tmp_path / "log"
    clear = [str(shared.lab.pins), "detach", option]
    boundaries = count_boundaries(argv, log)
    assert boundaries > RANDOM_KILLS
    for _ in range(RANDOM_KILLS):
        subprocess.run(clear, check=True, capture_output=True)
        point = points.randrange(boundaries)
        crowd: list[subprocess.Popen[bytes]] = []

        def gather(crowd: list[subprocess.Popen[bytes]] = crowd) -> None:
            crowd += [subprocess.Popen(argv, stderr=subprocess.PIPE) for _ in range(CROWD)]
            time.sleep(0.02)  # some of them now wait for the stopped one

        assert kill_at_boundary(argv, point, log, gather)
        said = [process.communicate(timeout=30)[1] for process in crowd]
        where = f"STORM_SEED={seed}, boundary {point}: {said}"
        assert [process.returncode for process in crowd] == [0] * CROWD, where
        assert shared.lab.run(shared.directory, option, *TRUE).code == 0, where
        assert len(entries(shared)) == 1, where


def test_something_else_in_the_directory_stays(shared: Releases) -> None:
    """A foreign name is not touched; a foreign directory with an entry's name is an error."""
    shared.put(1)
    option = f"--share={shared.root}"
    assert shared.lab.run(shared.directory, option, *TRUE).code == 0
    (entry,) = entries(shared)
    subprocess.run([shared.lab.pins, "detach", option], check=True, capture_output=True)
    assert not shared.root.exists()
    shared.root.mkdir(mode=0o700)
    (shared.root / entry).mkdir()
    (shared.root / "tools").mkdir()
    result = shared.lab.run(shared.directory, option, *TRUE)
    assert (result.code, "something else is there" in result.message) == (1, True)
    assert entries(shared) == sorted([entry, "tools"])


def test_share_and_pin_root_exclude_each_other(shared: Releases) -> None:
    """--share with --pin-root is exit code 2."""
    shared.put(1)
    result = shared.lab.run(shared.directory, f"--share={shared.root}", *shared.options())
    assert (result.code, "exclude each other" in result.message) == (2, True)


LOCKER = """
import fcntl, time
for descriptor in range(3, 64):
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        continue
print("locked", flush=True)
time.sleep(60)
"""


def test_workload_that_locks_an_entry_keeps_nobody_waiting(shared: Releases) -> None:
    """A workload that locks its entry exclusively is an error for other starts, which do not wait."""
    shared.put(1)
    option = f"--share={shared.root}"
    argv = shared.lab.argv(shared.directory, option, "--", sys.executable, "-c", LOCKER)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"locked\n"
        result = shared.lab.run(shared.directory, option, *TRUE)
        running.kill()
    assert (result.code, "has locked it for itself alone" in result.message) == (1, True)
    assert shared.lab.run(shared.directory, option, *TRUE).code == 0
