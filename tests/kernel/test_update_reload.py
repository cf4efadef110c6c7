# SPDX-License-Identifier: Apache-2.0
"""SIGHUP: the running loader verifies the objects again and updates its programs, without pins."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from labs.kernel import bpf_file_system
from labs.loader import PREFIX, Lab, in_kernel
from labs.net import flood, veth
from labs.pins import RAW, TCX, XDP, Releases
from labs.run import wait_until

UPDATES = 20
pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")


def reloads(directory: Path) -> int:
    """Return the number of reloads in the loader's log."""
    (log,) = directory.glob("stderr*")
    return log.read_text().count('"event":"reload"')


@pytest.mark.parametrize(("program", "name"), [(XDP, "xdp"), (TCX, "tcx")], ids=["xdp", "tcx"])
def test_no_packet_is_missed_by_reloads(lab: Lab, tmp_path: Path, program: str, name: str) -> None:
    """Reloads between two releases under traffic count each frame once, in the map of the start."""
    releases = Releases(lab, tmp_path, tmp_path / "none", program)
    releases.put(1)
    with veth() as (left, right):
        options = ["--reload", f"--attach={PREFIX}_{name}={left}"]
        with lab.started(tmp_path, *options) as (process, stop):
            with flood(right) as sent:
                for version in range(2, UPDATES + 2):
                    releases.put(version, release=2 - version % 2)
                    process.send_signal(signal.SIGHUP)
                    assert wait_until(lambda done=version - 1: reloads(tmp_path) == done)
            assert wait_until(lambda: releases.counts()[0] == sent[0]), (releases.counts(), sent)
            assert min(releases.counts()[1:]) > 0
            result = stop()
    assert result.code == 0
    assert [line["outcome"] for line in result.events("reload")] == ["updated"] * UPDATES
    assert (len(result.events("update")), len(result.events("attach"))) == (UPDATES, 1)


def test_update_that_fails_its_check_leaves_the_old_one(lab: Lab, tmp_path: Path) -> None:
    """A failed health check attaches the old program again, and every frame is counted."""
    releases = Releases(lab, tmp_path, tmp_path / "none", XDP)
    releases.put(1)
    check = tmp_path / "check"
    check.write_text("#!/bin/sh\ntest ! -e $0.bad\n")
    check.chmod(0o755)
    with veth() as (left, right):
        options = ["--reload", f"--attach={PREFIX}_xdp={left}", f"--health-command={check}"]
        with lab.started(tmp_path, *options) as (process, stop):
            with flood(right) as sent:
                Path(f"{check}.bad").touch()
                releases.put(2, release=2)
                process.send_signal(signal.SIGHUP)
                assert wait_until(lambda: reloads(tmp_path) == 1)
                settled = releases.counts()
                assert wait_until(lambda: releases.counts()[1] > settled[1])
            assert wait_until(lambda: releases.counts()[0] == sent[0])
            result = stop()
    (line,) = result.events("reload")
    assert (line["outcome"], "ended with exit code 1" in line["message"]) == ("kept", True), str(line)
    assert (len(result.events("update")), len(result.events("rollback"))) == (1, 1)
    assert result.code == 0


def test_reload_of_a_link_without_update(lab: Lab, tmp_path: Path) -> None:
    """The new program is attached before the old one is detached."""
    releases = Releases(lab, tmp_path, tmp_path / "none", RAW)
    releases.put(1)
    with lab.started(tmp_path, "--reload") as (process, stop):
        releases.put(2, release=2)
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: reloads(tmp_path) == 1)
        assert wait_until(lambda: releases.counts()[2] > 0)
        assert wait_until(lambda: in_kernel().count(f"{PREFIX}_raw") == 1)
        result = stop()
    assert [line["event"] for line in result.lines][4:] == ["verify", "load", "attach", "reload", "detach"]


def test_reload_with_pins(lab: Lab, tmp_path: Path) -> None:
    """A reload with --pin-root updates the pinned link, and the end leaves it pinned."""
    with veth() as (left, right), bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        releases.put(1)
        with lab.started(tmp_path, "--reload", *releases.options(f"xdp={left}")) as (process, stop):
            link = releases.link(f"{PREFIX}_xdp@{left}")
            with flood(right) as sent:
                releases.put(2, release=2)
                process.send_signal(signal.SIGHUP)
                assert wait_until(lambda: reloads(tmp_path) == 1)
            result = stop()
        assert wait_until(lambda: releases.counts()[0] == sent[0])
        after = releases.link(f"{PREFIX}_xdp@{left}")
    assert (after["id"], after["prog_id"] != link["prog_id"]) == (link["id"], True)
    assert result.events("detach") == []
