# SPDX-License-Identifier: Apache-2.0
"""Overlapping starts with --share at one hook: the kernel lets one program hold it only once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from labs.kernel import TRACEFS, bpf_file_system, list_bpf, program_ids
from labs.loader import PREFIX, Lab
from labs.net import flood, veth
from labs.pins import TCX, XDP, Releases
from labs.run import run, wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRACEPOINT = TCX.replace("tcx/ingress", "tracepoint/syscalls/sys_enter_getpgid").replace(
    "struct __sk_buff *c) { count(0); count(RELEASE); return TCX_NEXT; }", "void *c) { count(0); return 0; }"
)


@pytest.fixture
def shared(lab: Lab, tmp_path: Path) -> Iterator[tuple[Releases, str, str]]:
    """Give releases of a tcx program, and the two ends of a pair that frames go through."""
    with veth() as (left, right), bpf_file_system(tmp_path) as mount:
        yield Releases(lab, tmp_path, mount / "share", TCX), left, right


def attached() -> set[int]:
    """Return the ids of this test's programs that a link has."""
    ours = {program["id"] for program in list_bpf("prog") if program.get("name", "").startswith(PREFIX)}
    return ours & {link.get("prog_id") for link in list_bpf("link")}


def test_tcx_of_two_containers_at_one_interface(shared: tuple[Releases, str, str]) -> None:
    """Both programs run and count in one map; when the first container ends, the second goes on."""
    releases, left, right = shared
    releases.put(1)
    options = (f"--share={releases.root}", f"--attach={PREFIX}_tcx={left}")
    with releases.lab.started(releases.directory, *options) as (_, stop_first):
        with releases.lab.started(releases.directory, *options) as (_, stop_second):
            assert len(attached()) == 2
            with flood(right) as sent:
                pass
            assert wait_until(lambda: releases.counts()[0] == 2 * sent[0])
            first = stop_first()
            assert [line["event"] for line in first.lines] == ["verify", "load", "attach", "ready", "detach"]
            with flood(right) as more:
                pass
            assert wait_until(lambda: releases.counts()[0] == 2 * sent[0] + more[0])
            second = stop_second()
        assert second.code == 0
        assert [line["event"] for line in second.lines] == [
            "verify",
            "reuse",
            "load",
            "attach",
            "ready",
            "detach",
        ]
    assert list(releases.root.iterdir()) == []


# Constants, variables, a map that user space may only read, and a table of tail calls.
MANY_MAPS = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_RDONLY);
    __type(key, __u32); __type(value, __u64); } @_ro SEC(".maps");
const volatile __u64 step = 3;
__u64 total;
SEC("tcx/ingress") int @_tail(struct __sk_buff *c)
{
    __u32 zero = 0;
    __u64 *value = bpf_map_lookup_elem(&@_ro, &zero);
    if (value)
        *value += 1;
    total += step;
    count(0);
    return TCX_NEXT;
}
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 1); __uint(key_size, 4);
    __array(values, int (void *)); } @_table SEC(".maps") = { .values = { [0] = (void *)&@_tail } };
SEC("tcx/ingress") int @_tcx(struct __sk_buff *c) { bpf_tail_call(c, &@_table, 0); return TCX_NEXT; }
"""


def test_copy_of_a_program_with_all_kinds_of_maps(lab: Lab, tmp_path: Path) -> None:
    """The copy has the shared constants, variables and tables, and counts on after the first one ended."""
    with veth() as (left, right), bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "share", MANY_MAPS)
        programs = [{"name": f"{PREFIX}_tcx", "section": "tcx/ingress", "type": "sched_cls"}]
        releases.put(1, programs=programs)
        options = (
            f"--share={releases.root}",
            f"--attach={PREFIX}_tcx={left}",
            f"--attach={PREFIX}_tail=none",
        )
        with (
            lab.started(tmp_path, *options) as (_, stop_first),
            lab.started(tmp_path, *options) as (_, stop_second),
        ):
            assert len(attached()) == 2
            with flood(right) as sent:
                pass
            assert wait_until(lambda: releases.counts()[0] == 2 * sent[0])
            assert stop_first().code == 0
            with flood(right) as more:
                pass
            assert wait_until(lambda: releases.counts()[0] == 2 * sent[0] + more[0])
            assert stop_second().code == 0


def test_program_that_is_free_again_is_shared_again(shared: tuple[Releases, str, str]) -> None:
    """A third container uses the shared program after the first one detached it."""
    releases, left, _ = shared
    releases.put(1)
    options = (f"--share={releases.root}", f"--attach={PREFIX}_tcx={left}")
    with ExitStack() as stack:
        starts = [stack.enter_context(releases.lab.started(releases.directory, *options)) for _ in range(2)]
        assert starts[0][1]().code == 0
        _, stop = stack.enter_context(releases.lab.started(releases.directory, *options))
        assert len(attached()) == 2
        assert [line["event"] for line in stop().lines][:3] == ["verify", "reuse", "attach"]
        assert starts[1][1]().code == 0


def test_tracepoint_of_two_containers(lab: Lab, tmp_path: Path) -> None:
    """A tracepoint has no namespace, so all containers of an image meet there."""
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "share", TRACEPOINT)
        releases.put(1)
        option = f"--share={releases.root}"
        with (
            lab.started(tmp_path, option, before=TRACEFS) as (_, stop),
            lab.started(tmp_path, option, before=TRACEFS) as (_, stop_other),
        ):
            assert len(attached()) == 2
            assert (stop().code, stop_other().code) == (0, 0)


def test_reload_to_a_release_that_another_container_runs(shared: tuple[Releases, str, str]) -> None:
    """The update of a link cannot give it a program that is at the hook already, either."""
    releases, left, _ = shared
    releases.put(1)
    options = (f"--share={releases.root}", f"--attach={PREFIX}_tcx={left}", "--reload")
    with releases.lab.started(releases.directory, *options) as (process, stop):
        releases.put(2, release=2)
        with releases.lab.started(releases.directory, *options) as (_, stop_other):
            before = attached()
            process.send_signal(signal.SIGHUP)
            assert wait_until(lambda: attached() != before)
            assert len(attached()) == 2
            assert stop_other().code == 0
        result = stop()
    (line,) = result.events("reload")
    assert (result.code, line["outcome"]) == (0, "updated"), line
    assert len(result.events("update")) == 1


def test_interface_that_appears_for_two_containers(lab: Lab, tmp_path: Path) -> None:
    """Both wait for interfaces of one pattern: one attaches the shared program to a new one, one its copy."""
    stem = f"ls{os.getpid() % 100000}"

    def add(name: str) -> None:
        run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")

    def links() -> int:
        ours = program_ids(f"{PREFIX}_tcx")
        return sum(link.get("prog_id") in ours for link in list_bpf("link"))

    try:
        add(f"{stem}n0")
        with bpf_file_system(tmp_path) as mount:
            releases = Releases(lab, tmp_path, mount / "share", TCX)
            releases.put(1)
            options = ("--reload", f"--share={releases.root}", f"--attach={PREFIX}_tcx={stem}n?")
            with (
                lab.started(tmp_path, *options) as (_, stop),
                lab.started(tmp_path, *options) as (_, stop_other),
            ):
                assert links() == 2
                add(f"{stem}n1")
                assert wait_until(lambda: links() == 4)
                assert (stop().code, stop_other().code) == (0, 0)
    finally:
        for number in range(2):
            subprocess.run(["ip", "link", "del", f"{stem}n{number}"], capture_output=True, check=False)


def test_hook_with_room_for_one_program_names_its_holder(lab: Lab, tmp_path: Path) -> None:
    """XDP has room for one: the second container gets one line, with the program and an option."""
    with veth() as (left, _), bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "share", XDP)
        releases.put(1)
        options = (f"--share={releases.root}", f"--attach={PREFIX}_xdp={left}")
        with lab.started(tmp_path, *options) as (_, stop):
            result = lab.run(tmp_path, *options)
            assert result.code == 1
            assert f"program {PREFIX}_xdp" in result.message
            assert "holds the hook; --replace detaches it" in result.message
            assert result.events("load") == []
            assert stop().code == 0
