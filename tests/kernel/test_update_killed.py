# SPDX-License-Identifier: Apache-2.0
"""A loader killed during an update: a program stays attached, and the next start completes the update."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from labs.kernel import bpf_file_system
from labs.loader import PREFIX, Lab, in_kernel, is_clean
from labs.net import flood
from labs.pins import RAW, XDP, Releases
from labs.run import wait_until
from labs.step import kill_at

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--", "/bin/true")
# Points of SIGKILL: an update makes 47 calls of bpf(2), from 14 on after the object's first program, and
# these calls for pins.
POINTS = [*(("bpf", n) for n in range(14, 47, 3)), *(("mkdirat", n) for n in (1, 2, 3))]
POINTS += [("renameat", 1), ("renameat2", 1), ("unlinkat", 1), ("unlinkat", 2), ("flock", 1), ("capset", 1)]


def status(releases: Releases) -> int:
    """Return the exit code of `status`."""
    argv = [releases.lab.pins, "status", f"--pin-root={releases.root}"]
    return subprocess.run(argv, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("call", "number"), POINTS)
def test_killed_update_misses_no_packet(place: tuple[Releases, str, str], call: str, number: int) -> None:
    """Every frame is counted by the old or the new program, whichever call SIGKILL interrupts."""
    releases, left, right = place
    options = releases.options(f"xdp={left}")
    releases.put(1)
    assert releases.lab.run(releases.directory, *options, *TRUE).code == 0
    link = releases.link(f"{PREFIX}_xdp@{left}")["id"]
    releases.put(2, release=2)
    with flood(right) as sent:
        assert kill_at(releases.lab.argv(releases.directory, *options, *TRUE), call, number)
        assert releases.lab.run(releases.directory, *options, *TRUE).code == 0
    assert wait_until(lambda: releases.counts()[0] == sent[0]), (releases.counts(), sent)
    assert releases.link(f"{PREFIX}_xdp@{left}")["id"] == link
    assert status(releases) == 0
    assert sorted(path.name for path in releases.home.iterdir()) == ["current", "links", "previous"]


@pytest.mark.parametrize(
    ("call", "number"), [*(("bpf", n) for n in range(8, 31, 4)), ("mkdirat", 3), ("renameat", 1)]
)
def test_killed_first_start_blocks_nobody(place: tuple[Releases, str, str], call: str, number: int) -> None:
    """The next start removes the rest of a killed first start."""
    releases, left, _ = place
    options = releases.options(f"xdp={left}")
    releases.put(1)
    argv = releases.lab.argv(releases.directory, *options, *TRUE)
    assert kill_at(argv, call, number)
    assert releases.lab.run(releases.directory, *options, *TRUE).code == 0
    assert status(releases) == 0
    assert sorted(path.name for path in releases.home.iterdir()) == ["current", "links"]


@pytest.mark.parametrize(("call", "number"), [("bpf", 30), ("mkdirat", 3), ("mkdirat", 5), ("renameat", 1)])
def test_detach_after_a_killed_start(place: tuple[Releases, str, str], call: str, number: int) -> None:
    """`status` is 1 after a killed first start, and `detach` removes its rest."""
    releases, left, _ = place
    releases.put(1)
    assert kill_at(
        releases.lab.argv(releases.directory, *releases.options(f"xdp={left}"), *TRUE), call, number
    )
    assert status(releases) == 1
    argv = [releases.lab.pins, "detach", f"--pin-root={releases.root}"]
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
    assert not releases.root.exists()
    assert is_clean()


def test_killed_during_its_check_the_update_is_taken_back(place: tuple[Releases, str, str]) -> None:
    """An update killed during its health check is rolled back by the next start of the old release."""
    releases, left, right = place
    options = releases.options(f"xdp={left}")
    releases.put(1)
    assert releases.lab.run(releases.directory, *options, *TRUE).code == 0
    name = f"{PREFIX}_xdp@{left}"
    before = releases.link(name)["prog_id"]
    releases.put(2, release=2)
    argv = releases.lab.argv(releases.directory, *options, "--health-command=/bin/sleep 30", *TRUE)
    with flood(right) as sent:
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
            assert wait_until(lambda: releases.link(name)["prog_id"] != before)
            process.send_signal(signal.SIGKILL)
        releases.put(1)
        result = releases.lab.run(releases.directory, *options, *TRUE)
    assert [line["event"] for line in result.lines] == ["verify", "reuse", "keep", "ready", "exec"]
    assert releases.link(name)["prog_id"] == before
    assert wait_until(lambda: releases.counts()[0] == sent[0])


@pytest.mark.parametrize(
    ("call", "number"), [("renameat2", 1), ("unlinkat", 1), ("renameat", 1), ("renameat", 2)]
)
@pytest.mark.parametrize("word", ["run", "rollback"])
def test_killed_update_of_links_without_update(
    lab: Lab, tmp_path: Path, word: str, call: str, number: int
) -> None:
    """A kill while old and new program are both attached leaves one link after the next start."""
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", RAW)
        for version in (1, 2, 3):
            releases.put(version, release=2 - version % 2)
            argv = lab.argv(tmp_path, *releases.options(), *TRUE)
            if version < 3:
                assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
        if word == "rollback":
            argv = [str(lab.pins), word, f"--pin-root={releases.root}"]
        assert kill_at(argv, call, number)
        assert lab.run(tmp_path, *releases.options(), *TRUE).code == 0
        assert status(releases) == 0
        assert len(list((releases.home / "links").iterdir())) == 1
        assert wait_until(lambda: in_kernel().count(f"{PREFIX}_raw") == 2)


@pytest.mark.parametrize("number", range(1, 9))
def test_killed_detach_blocks_nobody(place: tuple[Releases, str, str], number: int) -> None:
    """After a killed `detach` the next start works, and so does the next `detach`."""
    releases, left, _ = place
    options = releases.options(f"xdp={left}")
    argv = [str(releases.lab.pins), "detach", f"--pin-root={releases.root}"]
    for restart in (True, False):
        for version in (1, 2):
            releases.put(version, release=version)
            assert releases.lab.run(releases.directory, *options, *TRUE).code == 0
        assert kill_at(argv, "unlinkat", number)
        if restart:
            assert releases.lab.run(releases.directory, *options, *TRUE).code == 0
            assert status(releases) == 0
        assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
        assert not releases.root.exists()


@pytest.mark.parametrize("number", range(1, 7))
def test_killed_cleaning_of_what_is_shared(lab: Lab, tmp_path: Path, number: int) -> None:
    """A killed `detach` of a shared entry blocks neither the next start nor the next `detach`."""
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "share", RAW)
        releases.put(1)
        assert lab.run(tmp_path, f"--share={releases.root}", *TRUE).code == 0
        kill_at([str(lab.pins), "detach", f"--share={releases.root}"], "unlinkat", number)
        assert lab.run(tmp_path, f"--share={releases.root}", *TRUE).code == 0
        argv = [lab.pins, "detach", f"--share={releases.root}"]
        assert subprocess.run(argv, check=False, capture_output=True).returncode == 0


def test_interface_gone_after_a_killed_update(lab: Lab, tmp_path: Path) -> None:
    """After a killed update and a removed interface, the next start attaches to a new one of that name."""
    name = f"{PREFIX}gone"
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        options = releases.options(f"xdp={name}")
        try:
            subprocess.run(["ip", "link", "add", name, "type", "veth"], check=True)
            releases.put(1)
            assert lab.run(tmp_path, *options, *TRUE).code == 0
            releases.put(2, release=2)
            assert kill_at(lab.argv(tmp_path, *options, *TRUE), "renameat2", 1)
            subprocess.run(["ip", "link", "del", name], check=True)
            assert status(releases) == 1
            subprocess.run(["ip", "link", "add", name, "type", "veth"], check=True)
            result = lab.run(tmp_path, *options, *TRUE)
            assert [line["event"] for line in result.lines] == ["verify", "load", "attach", "ready", "exec"]
            assert status(releases) == 0
        finally:
            subprocess.run(["ip", "link", "del", name], check=True)


@pytest.mark.parametrize("attempt", range(5))
def test_hook_of_a_killed_update_is_free(place: tuple[Releases, str, str], attempt: int) -> None:
    """The next start detaches what a killed update attached in addition, before it attaches there."""
    releases, left, right = place
    options = releases.options(f"xdp={left}")
    releases.put(1)
    assert releases.lab.run(releases.directory, *options, *TRUE).code == 0, attempt
    releases.put(2, release=2)
    more = [*options, f"--attach={PREFIX}_xdp={right}"]
    assert kill_at(releases.lab.argv(releases.directory, *more, *TRUE), "renameat2", 1)
    result = releases.lab.run(releases.directory, *more, *TRUE)
    assert result.code == 0, result.lines
    assert status(releases) == 0


NO_EXCHANGE = ["-e", "inject=renameat2:error=EINVAL"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_kernel_that_exchanges_no_names(place: tuple[Releases, str, str], number: int) -> None:
    """Before Linux 5.17 two renames replace the exchange; SIGKILL between them is harmless."""
    releases, left, right = place
    options = releases.options(f"xdp={left}")
    releases.put(1)
    assert releases.lab.run(releases.directory, *options, *TRUE).code == 0
    with flood(right) as sent:
        releases.put(2, release=2)
        argv = releases.lab.argv(releases.directory, *options, *TRUE)
        if number:
            assert kill_at(argv, "renameat", number, NO_EXCHANGE)
        else:
            before = ["strace", "-o", "/dev/null", *NO_EXCHANGE]
            assert subprocess.run([*before, *argv], check=False, capture_output=True).returncode == 0
        assert releases.lab.run(releases.directory, *options, *TRUE).code == 0
    assert wait_until(lambda: releases.counts()[0] == sent[0])
    assert status(releases) == 0
    assert sorted(path.name for path in releases.home.iterdir()) == ["current", "links", "previous"]
