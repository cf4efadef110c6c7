# SPDX-License-Identifier: Apache-2.0
"""Interfaces and cgroups that go and come while the loader runs: what is attached is what the kernel has."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import labs.attach  # noqa: F401 - adds its objects
import pytest
from labs.kernel import bpf_file_system, cgroup2, inside_cgroup, list_bpf
from labs.loader import PREFIX, Lab, counted, parse, program_ids
from labs.net import flood
from labs.pins import TCX, XDP, Releases
from labs.run import run, wait_until
from prometheus_client.parser import text_string_to_metric_families

from buildtool.objects.types import program_type

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

STEM = f"la{os.getpid() % 100000}"
NAMES = tuple(f"{STEM}n{number}" for number in range(4))


def add(name: str) -> None:
    """Make a veth pair whose one end has the name, both ends up and silent."""
    run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    for end in (name, f"{name}p"):
        Path(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6").write_text("1")
        run("ip", "link", "set", end, "up")


def remove(name: str) -> None:
    """Delete the pair."""
    run("ip", "link", "del", name)


@pytest.fixture(autouse=True)
def _no_interface_is_left() -> Iterator[None]:
    """Delete the interfaces that a test leaves."""
    yield
    for name in (*NAMES, f"{STEM}other"):
        subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)


def has_xdp(name: str) -> bool:
    """Return whether an XDP program is on the interface."""
    return "prog/xdp" in run("ip", "link", "show", name)


def metrics(path: Path) -> dict[str, float]:
    """Return the metrics without labels."""
    return {
        sample.name.removeprefix("buildtool_"): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if not sample.labels
    }


class Running:
    """A loader that runs, its log and its metrics."""

    def __init__(self, process: subprocess.Popen[str], stop: Callable[..., Any], directory: Path) -> None:
        self.process, self.stop = process, stop
        self._directory = directory

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event so far, checked against the schema."""
        text = max(self._directory.glob("stderr*")).read_text()
        return [line for line in parse(text[: text.rfind("\n") + 1]) if line["event"] == event]

    def targets(self, event: str) -> list[str]:
        """Return the targets of the lines of one event."""
        return [line["target"] for line in self.lines(event)]

    def has(self, **values: float) -> bool:
        """Return whether the metrics come to have the values."""
        path = self._directory / "loader.prom"
        return wait_until(lambda: values.items() <= metrics(path).items())

    def rests(self) -> bool:
        """Return whether the loader comes to wait for news. News that stays would keep it awake."""
        path = Path(f"/proc/{self.process.pid}/stat")

        def is_asleep() -> bool:
            states = []
            for _ in range(20):
                states.append(path.read_text().rpartition(")")[2].split()[0])
                time.sleep(0.005)
            return set(states) == {"S"}

        return wait_until(is_asleep)

    def reload(self) -> dict[str, Any]:
        """Send SIGHUP and return the line about it."""
        count = len(self.lines("reload"))
        self.process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: len(self.lines("reload")) > count)
        return self.lines("reload")[-1]


@contextmanager
def running(lab: Lab, directory: Path, *options: str, before: tuple[str, ...] = ()) -> Iterator[Running]:
    """Run the loader with metrics."""
    path = f"--metrics-file={directory}/loader.prom"
    with lab.started(directory, path, *options, before=before) as (process, stop):
        yield Running(process, stop, directory)


def describe(name: str, section: str) -> list[dict[str, str]]:
    """Return a statement's programs, by which the loader keeps capabilities."""
    return [{"name": f"{PREFIX}_{name}", "section": section, "type": program_type(section)}]


KINDS = {"xdp": "xdp", "tcx": "tcx/ingress"}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> str:
    """Give a kind of program on interfaces, its object in place."""
    lab.put(tmp_path, request.param, programs=describe(request.param, KINDS[request.param]))
    return str(request.param)


WORKLOADS = {"alone": (), "workload": ("--", "sleep", "1000")}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_interface_that_is_deleted_and_made_anew(lab: Lab, tmp_path: Path, kind: str, workload: str) -> None:
    """At once there are a line and a metric; the same program counts the frames of the new interface."""
    name = NAMES[0]
    add(name)
    option = f"--attach={PREFIX}_{kind}={name}"
    with running(lab, tmp_path, "--reload", option, *WORKLOADS[workload]) as loader:
        assert loader.has(ready=1, attachments=1, attachments_lost=0)
        programs = program_ids()
        remove(name)
        assert loader.has(ready=0, attachments=0, attachments_lost=1)
        [lost] = loader.lines("lost")
        assert (lost["program"], lost["target"]) == (f"{PREFIX}_{kind}", name)
        assert re.match(
            "the interface is not in this network namespace|its link was detached", lost["message"]
        )
        line = loader.reload()
        assert (line["outcome"], f"interface {name}" in line["message"]) == ("kept", True), line
        add(name)
        assert loader.has(ready=1, attachments=1, attachments_lost=0)
        assert loader.targets("attach") == [name, name]
        assert program_ids() == programs
        assert loader.rests()
        before = counted()
        with flood(f"{name}p") as sent:
            pass
        assert wait_until(lambda: counted() == before + sent[0])
        assert loader.reload()["outcome"] == "unchanged"
        result = loader.stop()
    assert (len(result.events("lost")), result.events("error")) == (1, [])
    assert len(result.events("detach")) == 1


@pytest.mark.parametrize("times", [1, 20])
def test_interface_that_is_made_anew_at_once(lab: Lab, tmp_path: Path, kind: str, times: int) -> None:
    """Between two looks of the loader an interface may be another one already."""
    name = NAMES[0]
    add(name)
    with running(lab, tmp_path, "--reload", f"--attach={PREFIX}_{kind}={name}") as loader:
        for _ in range(times):
            run("sh", "-ec", f"ip link del {name}; ip link add {name} type veth peer name {name}p")
        for end in (name, f"{name}p"):
            run("ip", "link", "set", end, "up")
        before = counted()
        with flood(f"{name}p"):
            assert wait_until(lambda: counted() > before)
        assert loader.has(ready=1, attachments=1)
        assert loader.reload()["outcome"] == "unchanged"
        result = loader.stop()
    assert result.code == 0
    assert 1 <= len(result.events("lost")) == len(result.events("attach")) - 1 <= times


def test_reload_looks_without_news(lab: Lab, tmp_path: Path) -> None:
    """SIGHUP finds what no news tell: a link that another process detached is there again."""
    lab.put(tmp_path, "sock_create", programs=describe("prog", "cgroup/sock_create"))
    # Interfaces and mounts of other tests would be news in these namespaces.
    alone = ("unshare", "--net", "--mount")
    with (
        cgroup2() as group,
        running(lab, tmp_path, "--reload", f"--attach={PREFIX}_prog={group}", before=alone) as loader,
    ):
        [link] = [link["id"] for link in list_bpf("link") if link.get("prog_id") in program_ids()]
        run("bpftool", "link", "detach", "id", str(link))
        before = counted()
        with inside_cgroup(group), socket.socket():
            assert counted() == before
        assert loader.reload()["outcome"] == "updated"
        [lost] = loader.lines("lost")
        assert "its link was detached" in lost["message"]
        with inside_cgroup(group), socket.socket():
            assert counted() > before
        assert loader.stop().code == 0


def test_new_interface_that_matches_the_pattern(lab: Lab, tmp_path: Path, kind: str) -> None:
    """It is attached, one that goes is let go of, and the last one is missed."""
    add(NAMES[0])
    with running(lab, tmp_path, "--reload", f"--attach={PREFIX}_{kind}={STEM}n?") as loader:
        add(NAMES[1])
        assert loader.has(ready=1, attachments=2)
        assert wait_until(lambda: loader.targets("attach") == [*NAMES[:2]])
        remove(NAMES[0])
        assert loader.has(ready=1, attachments=1, attachments_lost=0)
        remove(NAMES[1])
        assert loader.has(ready=0, attachments=0, attachments_lost=1)
        add(NAMES[2])
        assert loader.has(ready=1, attachments=1, attachments_lost=0)
        assert loader.targets("lost") == [*NAMES[:2]]
        assert loader.targets("attach") == [*NAMES[:3]]
        assert loader.stop().code == 0


def test_two_targets_of_one_program(lab: Lab, tmp_path: Path, kind: str) -> None:
    """Each is lost and attached again for itself, in any order."""
    first, second = NAMES[:2]
    add(first)
    add(second)
    targets = [f"--attach={PREFIX}_{kind}={name}" for name in (first, second)]
    with running(lab, tmp_path, "--reload", *targets) as loader:
        assert loader.has(attachments=2, attachments_lost=0)
        remove(second)
        assert loader.has(attachments=1, attachments_lost=1)
        remove(first)
        assert loader.has(attachments=0, attachments_lost=2)
        add(second)
        assert loader.has(attachments=1, attachments_lost=1)
        add(first)
        assert loader.has(ready=1, attachments=2, attachments_lost=0)
        assert loader.targets("attach") == [first, second, second, first]
        assert loader.targets("lost") == [second, first]


def test_refused_interface_does_not_hold_up_others(lab: Lab, tmp_path: Path) -> None:
    """A new interface with an XDP program of somebody else is one error line; others are attached."""
    lab.put(tmp_path, "xdp", programs=describe("xdp", "xdp"))
    other = tmp_path / "other"
    other.mkdir()
    lab.put(other, "foreign", programs=describe("foreign", "xdp"))
    add(NAMES[0])
    add(f"{STEM}other")
    with lab.started(other, f"--attach={PREFIX}_foreign={STEM}other") as (_, stop):
        # Naming and replacing the holder of a link requires CAP_SYS_ADMIN.
        options = ("--reload", "--replace", "--capabilities=SYS_ADMIN", f"--attach={PREFIX}_xdp={STEM}n?")
        with running(lab, tmp_path, *options) as loader:
            run("ip", "link", "set", f"{STEM}other", "down")
            run("ip", "link", "set", f"{STEM}other", "name", NAMES[1])
            try:
                assert loader.has(ready=0, attachments=1, attachments_lost=1)
                add(NAMES[2])
                assert loader.has(ready=0, attachments=2, attachments_lost=1)
                remove(NAMES[2])
                assert loader.has(attachments=1)
                [error] = loader.lines("error")
                assert error["target"] == NAMES[1]
                assert f"program {PREFIX}_foreign" in error["message"]
                # SIGHUP is the operator's: --replace holds.
                assert loader.reload()["outcome"] == "updated"
                assert loader.has(ready=1, attachments=2, attachments_lost=0)
            finally:
                run("ip", "link", "set", NAMES[1], "name", f"{STEM}other")
            assert loader.stop().code == 0
        assert stop().code == 0


def test_renamed_interface_keeps_its_program(lab: Lab, tmp_path: Path, kind: str) -> None:
    """A new name is no loss. When another interface gets the old name, the program moves there."""
    name = NAMES[0]
    add(name)
    with running(lab, tmp_path, "--reload", f"--attach={PREFIX}_{kind}={name}") as loader:
        run("ip", "link", "set", name, "down")
        run("ip", "link", "set", name, "name", f"{STEM}other")
        line = loader.reload()
        assert line["outcome"] == "unchanged", line
        assert loader.lines("lost") == []
        run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{NAMES[3]}")
        assert wait_until(lambda: loader.targets("attach") == [name, name])
        assert "the old program is detached next" in loader.lines("attach")[1]["message"]
        assert loader.lines("lost") == []
        assert loader.has(ready=1, attachments=1)
        for end in (name, NAMES[3]):
            run("ip", "link", "set", end, "up")
        before = counted()
        with flood(NAMES[3]):
            assert wait_until(lambda: counted() > before)
        assert loader.stop().code == 0


def test_interface_that_moves_to_another_namespace(lab: Lab, tmp_path: Path) -> None:
    """It is lost there: no program of ours stays on it."""
    lab.put(tmp_path, "xdp", programs=describe("xdp", "xdp"))
    name, inside = NAMES[0], f"{STEM}space"
    add(name)
    run("ip", "netns", "add", inside)
    try:
        with running(lab, tmp_path, "--reload", f"--attach={PREFIX}_xdp={name}") as loader:
            run("ip", "link", "set", name, "netns", inside)
            assert loader.has(ready=0, attachments_lost=1)
            assert "prog/xdp" not in run("ip", "-n", inside, "link", "show", name)
            run("ip", "-n", inside, "link", "set", name, "netns", str(os.getpid()))
            assert loader.has(ready=1, attachments_lost=0)
            assert has_xdp(name)
            assert loader.stop().code == 0
    finally:
        run("ip", "netns", "del", inside)


def test_without_reload_a_loss_is_said_and_no_more(lab: Lab, tmp_path: Path, kind: str) -> None:
    """The loader has no capability to attach again: a line, the metric, and nothing else."""
    name = NAMES[0]
    add(name)
    with running(lab, tmp_path, f"--attach={PREFIX}_{kind}={name}") as loader:
        remove(name)
        assert loader.has(ready=0, attachments=0, attachments_lost=1)
        add(name)
        add(NAMES[1])
        [lost] = loader.lines("lost")
        assert "use --reload" in lost["message"]
        result = loader.stop()
    assert (len(result.events("attach")), result.events("detach"), result.events("error")) == (1, [], [])


def test_other_attachments_are_left_alone(lab: Lab, tmp_path: Path) -> None:
    """A program that cannot be updated in place stays as it is when another one is attached again."""
    lab.put(tmp_path, "xdp", "raw_tp", "netfilter", "struct_ops")
    name = NAMES[0]
    add(name)
    options = (f"--attach={PREFIX}_xdp={name}", f"--attach={PREFIX}_prog=ipv6:output:79")
    with running(lab, tmp_path, "--reload", *options) as loader:
        programs = program_ids()
        remove(name)
        assert loader.has(ready=0, attachments=3, attachments_lost=1)
        add(name)
        assert loader.has(ready=1, attachments=4, attachments_lost=0)
        assert program_ids() == programs
        result = loader.stop()
    assert len(result.events("attach")) == 5
    assert len(result.events("detach")) == 4
    assert result.events("error") == []


@pytest.mark.parametrize("deep", [False, True], ids=["cgroup", "and the one above"])
def test_cgroup_that_is_deleted_and_made_anew(lab: Lab, tmp_path: Path, deep: bool) -> None:  # noqa: FBT001
    """A service manager deletes the cgroup of a service that stops, and makes another of the same name."""
    lab.put(tmp_path, "sock_create", programs=describe("prog", "cgroup/sock_create"))
    with cgroup2() as above:
        group = above / "slice/service" if deep else above / "service"
        group.mkdir(parents=True)
        with running(lab, tmp_path, "--reload", f"--attach={PREFIX}_prog={group}") as loader:
            group.rmdir()
            if deep:
                group.parent.rmdir()
            assert loader.has(ready=0, attachments_lost=1)
            [lost] = loader.lines("lost")
            assert (lost["target"], "the cgroup was deleted" in lost["message"]) == (str(group), True)
            group.mkdir(parents=True)
            assert loader.has(ready=1, attachments_lost=0)
            assert loader.rests()
            before = counted()
            with inside_cgroup(group), socket.socket():
                assert counted() > before
            assert loader.reload()["outcome"] == "unchanged"
            assert loader.stop().code == 0
        if deep:
            group.rmdir()


def test_network_namespace_that_is_deleted_and_made_anew(lab: Lab, tmp_path: Path) -> None:
    """A path that leads to another namespace: the program is attached to that one."""
    lab.put(tmp_path, "sk_lookup", programs=describe("prog", "sk_lookup"))
    name = f"{STEM}space"
    run("ip", "netns", "add", name)
    try:
        with running(lab, tmp_path, "--reload", f"--attach={PREFIX}_prog=/run/netns/{name}") as loader:
            run("ip", "netns", "del", name)
            run("ip", "netns", "add", name)
            assert wait_until(lambda: len(loader.targets("attach")) == 2)
            inode = (Path("/run/netns") / name).stat().st_ino
            assert inode in [link.get("netns_ino") for link in list_bpf("link")]
            assert loader.has(ready=1, attachments=1, attachments_lost=0)
            assert loader.rests()
            result = loader.stop()
        assert (result.code, result.events("error")) == (0, [])
    finally:
        run("ip", "netns", "del", name)


@pytest.mark.parametrize(("program", "name"), [(XDP, "xdp"), (TCX, "tcx")], ids=["xdp", "tcx"])
def test_pinned_link_of_an_interface_that_is_made_anew(
    lab: Lab, tmp_path: Path, program: str, name: str
) -> None:
    """The new link is pinned under the old name, `status` knows it, and the next start keeps it."""
    interface = NAMES[0]
    add(interface)
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", program)
        releases.put(1)
        options = releases.options(f"{name}={interface}")
        with running(lab, tmp_path, "--reload", *options) as loader:
            before = releases.link(f"{PREFIX}_{name}@{interface}")["id"]
            remove(interface)
            assert loader.has(ready=0, attachments_lost=1)
            assert releases.command("status").code == 1
            add(interface)
            assert loader.has(ready=1, attachments_lost=0)
            assert releases.command("status").code == 0
            after = releases.link(f"{PREFIX}_{name}@{interface}")["id"]
            assert after != before
            with flood(f"{interface}p") as sent:
                pass
            assert wait_until(lambda: releases.counts()[0] == sent[0])
            # An update of the running loader goes on from there.
            releases.put(2, release=2)
            assert loader.reload()["outcome"] == "updated"
            assert loader.lines("update")
            assert loader.stop().events("error") == []
        result = lab.run(tmp_path, *options, "--", "/bin/true")
        assert (result.code, len(result.events("keep"))) == (0, 1), result.lines
        assert releases.link(f"{PREFIX}_{name}@{interface}")["id"] == after


def test_pinned_links_and_a_pattern(lab: Lab, tmp_path: Path) -> None:
    """A new interface gets a pinned link; that of a deleted one goes while others are there."""
    add(NAMES[0])
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        releases.put(1)
        with running(lab, tmp_path, "--reload", *releases.options(f"xdp={STEM}n?")) as loader:
            add(NAMES[1])
            assert loader.has(ready=1, attachments=2)
            remove(NAMES[0])
            assert loader.has(ready=1, attachments_lost=0)
            add(NAMES[2])
            assert loader.has(ready=1, attachments=2)
            pinned = sorted(path.name for path in (releases.home / "links").iterdir())
            assert pinned == [f"{PREFIX}_xdp@{name}" for name in NAMES[1:3]]
            assert releases.command("status").code == 0
            assert loader.reload()["outcome"] == "unchanged"
            assert loader.stop().events("error") == []
        assert releases.command("status").code == 0


def test_pins_of_another_start_are_left_alone(lab: Lab, tmp_path: Path) -> None:
    """A loader that is still running does not attach again what a newer start has taken over."""
    for name in NAMES[:2]:
        add(name)
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        releases.put(1)
        with running(lab, tmp_path, "--reload", *releases.options(f"xdp={NAMES[0]}")) as loader:
            other = lab.run(tmp_path, *releases.options(f"xdp={NAMES[1]}"), "--", "/bin/true")
            assert other.code == 0, other.lines
            remove(NAMES[0])
            add(NAMES[0])
            assert wait_until(lambda: loader.lines("error"))
            assert not has_xdp(NAMES[0])
            assert releases.command("status").code == 0
            line = loader.reload()
            assert (line["outcome"], "start the loader again" in line["message"]) == ("kept", True), line
            assert len(loader.lines("error")) == 1
            assert loader.stop().code == 0
        assert [path.name for path in (releases.home / "links").iterdir()] == [f"{PREFIX}_xdp@{NAMES[1]}"]


def test_detached_pins_stay_detached(lab: Lab, tmp_path: Path) -> None:
    """After `ebpf-pins detach`, a running loader makes no new pins."""
    add(NAMES[0])
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        releases.put(1)
        with running(lab, tmp_path, "--reload", *releases.options(f"xdp={NAMES[0]}")) as loader:
            assert releases.command("detach").code == 0
            assert loader.reload()["outcome"] == "kept"
            assert not has_xdp(NAMES[0])
            assert not releases.root.exists()
            assert loader.stop().code == 0


def test_loader_of_another_user_attaches_again(lab: Lab, tmp_path: Path) -> None:
    """Capabilities of the programs are enough, and news of the kernel need none."""
    lab.put(tmp_path, "xdp", programs=describe("xdp", "xdp"))
    (tmp_path / "metrics").mkdir(mode=0o777)
    name = NAMES[0]
    add(name)
    caps = "+bpf,+net_admin"
    before = ("setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", f"--inh-caps={caps}",
              f"--ambient-caps={caps}")  # fmt: skip
    with lab.started(tmp_path, "--reload", f"--attach={PREFIX}_xdp={name}", before=before) as (_, stop):
        remove(name)
        add(name)
        assert wait_until(lambda: has_xdp(name))
        result = stop()
    assert (result.code, len(result.events("lost")), result.events("error")) == (0, 1, [])


@pytest.mark.parametrize("pinned", [False, True], ids=["held", "pinned"])
@pytest.mark.parametrize("kind", ["xdp", "sk_lookup"])
def test_another_target_of_the_same_number(lab: Lab, tmp_path: Path, kind: str, *, pinned: bool) -> None:
    """Between two looks, the next interface may have the index of the old one, and a namespace its inode."""
    name, space = NAMES[0], f"{STEM}space"
    index = ("index", str(70000 + os.getpid() % 10000), "type", "veth", "peer", "name", f"{name}p")
    if kind == "xdp":
        target, describes = f"{PREFIX}_xdp={name}", describe("xdp", "xdp")
        commands = [("link", "del", name), ("link", "add", name, *index)]
    else:
        target, describes = f"{PREFIX}_prog=/run/netns/{space}", describe("prog", "sk_lookup")
        commands = [("netns", "del", space), ("netns", "add", space)]
    lab.put(tmp_path, kind, programs=describes)
    run("ip", *commands[1])
    try:
        with bpf_file_system(tmp_path) as mount:
            pins = [f"--pin-root={mount}/pins"] if pinned else []
            with running(lab, tmp_path, "--reload", f"--attach={target}", *pins) as loader:
                loader.process.send_signal(signal.SIGSTOP)
                run("ip", *commands[0])
                assert wait_until(lambda: 0 in _namespaces() or kind == "xdp")
                run("ip", *commands[1])
                loader.process.send_signal(signal.SIGCONT)
                assert wait_until(lambda: len(loader.targets("attach")) == 2)
                assert len(loader.lines("lost")) == 1
                if kind == "xdp":
                    assert has_xdp(name)
                else:
                    assert _namespaces() == [Path("/run/netns", space).stat().st_ino]
                assert loader.has(ready=1, attachments=1, attachments_lost=0)
                assert loader.reload()["outcome"] == "unchanged"
                assert loader.stop().events("error") == []
            if pinned:
                run(lab.pins, "detach", *pins)
    finally:
        run("ip", *commands[0])


def _namespaces() -> list[int]:
    """Return the inodes of the network namespaces that this process's links are on; 0 is none any more."""
    ours = program_ids()
    return [
        link["netns_ino"] for link in list_bpf("link") if link.get("prog_id") in ours and "netns_ino" in link
    ]


def test_pinned_link_that_another_process_detaches(lab: Lab, tmp_path: Path) -> None:
    """The next news or SIGHUP finds it, as a link without a pin."""
    lab.put(tmp_path, "tcx", programs=describe("tcx", "tcx/ingress"))
    add(NAMES[0])
    with bpf_file_system(tmp_path) as mount:
        options = ("--reload", f"--pin-root={mount}/pins", f"--attach={PREFIX}_tcx={NAMES[0]}")
        with running(lab, tmp_path, *options) as loader:
            [link] = [link["id"] for link in list_bpf("link") if link.get("prog_id") in program_ids()]
            run("bpftool", "link", "detach", "id", str(link))
            add(NAMES[1])
            assert wait_until(lambda: len(loader.targets("attach")) == 2)
            [lost] = loader.lines("lost")
            assert "its link was detached" in lost["message"]
            assert loader.stop().events("error") == []


def test_one_interface_too_many_is_said(lab: Lab, tmp_path: Path) -> None:
    """A pattern may not match more than 64: the next one is not attached, which a line says once."""
    lab.put(tmp_path, "xdp", programs=describe("xdp", "xdp"))
    names = [f"{STEM}q{number}" for number in range(33)]
    try:
        for name in names[:-1]:
            run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        with running(lab, tmp_path, "--reload", f"--attach={PREFIX}_xdp={STEM}q*:generic") as loader:
            assert loader.has(attachments=64)
            run("ip", "link", "add", names[-1], "type", "veth", "peer", "name", f"{names[-1]}p")
            assert wait_until(lambda: loader.lines("error"))
            [error] = loader.lines("error")
            assert "more than 64 match" in error["message"]
            assert loader.has(attachments=64)
            assert loader.stop().code == 0
    finally:
        for name in names:
            subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)
