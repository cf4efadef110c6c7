# SPDX-License-Identifier: Apache-2.0
"""An update of attached programs misses no packet."""

from __future__ import annotations

from pathlib import Path

import pytest
from labs.kernel import bpf_file_system
from labs.loader import PREFIX, Lab
from labs.net import flood, statistic, veth
from labs.pins import TCX, XDP, Releases
from labs.run import wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

UPDATES = 100


@pytest.mark.parametrize(
    ("program", "name", "mode"),
    [(XDP, "xdp", ""), (XDP, "xdp", ":generic"), (TCX, "tcx", "")],
    ids=["driver", "generic", "tcx"],
)
def test_no_packet_is_missed_by_a_hundred_updates(
    lab: Lab, tmp_path: Path, program: str, name: str, mode: str
) -> None:
    """A hundred updates under continuous traffic count every frame exactly once."""
    with veth() as (left, right), bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", program)
        options = releases.options(f"{name}={left}{mode}")
        releases.put(1)
        assert lab.run(tmp_path, *options, "--", "/bin/true").code == 0
        link = releases.link(f"{PREFIX}_{name}@{left}{mode}")
        received = statistic(left, "rx_packets")
        with flood(right) as sent:
            for version in range(2, UPDATES + 2):
                releases.put(version, release=2 - version % 2)
                result = lab.run(tmp_path, *options, "--", "/bin/true")
                assert result.code == 0, result.lines
                assert [line["event"] for line in result.lines] == [
                    "verify",
                    "load",
                    "update",
                    "ready",
                    "exec",
                ]
        assert wait_until(lambda: releases.counts()[0] == sent[0]), (releases.counts(), sent)
        both, first, second = releases.counts()
        assert both == first + second
        # The interface received what the programs counted: no queue was full, no program was missing.
        assert both == statistic(left, "rx_packets") - received
        assert min(first, second) > 0
        after = releases.link(f"{PREFIX}_{name}@{left}{mode}")
        assert after["id"] == link["id"]
        assert after["prog_id"] != link["prog_id"]
