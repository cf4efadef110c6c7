# SPDX-License-Identifier: Apache-2.0
"""Names of interfaces and cgroups on this kernel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from labs import kernel, net
from labs.run import run

from buildtool.metrics.names import Names

pytestmark = pytest.mark.usefixtures("as_root")


def test_interfaces_of_a_named_namespace() -> None:
    """The names are those inside, and this thread stays where it is."""
    before = Path("/proc/thread-self/ns/net").stat().st_ino
    with net.veth_pair() as (left, right):
        names, inode = Names(), left.namespace.inode
        assert names.interface(left.index, inode) == "veth0"
        run("ip", "-n", right.namespace.name, "link", "set", "veth0", "down")
        run("ip", "-n", right.namespace.name, "link", "set", "veth0", "name", "other0")
        assert names.interface(right.index, right.namespace.inode) == "other0"
        assert names.interface(left.index, 12345) == str(left.index)
        names.begin()
        assert names.interface(1, inode) == "lo"
    assert Path("/proc/thread-self/ns/net").stat().st_ino == before
    names.begin()
    assert names.interface(left.index, inode) == str(left.index)


def test_interfaces_of_a_container() -> None:
    """A namespace without a name is found by a process in it, until the process ends."""
    argv = ["unshare", "--net", "sh", "-c", "ip link add inside0 type veth && echo ready && exec sleep 600"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            inode = Path(f"/proc/{process.pid}/ns/net").stat().st_ino
            names = Names()
            assert "inside0" in {names.interface(index, inode) for index in range(1, 10)}
        finally:
            process.kill()
            process.wait()
    names.begin()
    assert names.interface(1, inode) == "1"


def test_cgroups_by_their_ids() -> None:
    """The path below the root of the hierarchy; a removed one has its number, or a path that is known."""
    with kernel.cgroup2() as top:
        child = top / "a b"
        child.mkdir()
        number, names = child.stat().st_ino, Names()
        assert names.cgroup(top.stat().st_ino) == f"/{top.name}"
        assert names.cgroup(number) == f"/{top.name}/a b"
        child.rmdir()
        names.begin()
        # A counter keeps its labels when its cgroup ends.
        assert names.cgroup(number) == f"/{top.name}/a b"
        assert Names().cgroup(number) == str(number)
        assert names.cgroup(2**63) == str(2**63)
        names.begin()


def test_names_that_are_not_utf8() -> None:
    """Anybody who may make a cgroup or an interface chooses bytes; the label is text that has an encoding."""
    with kernel.cgroup2() as top:
        child = Path(os.fsdecode(os.fsencode(top) + b"/x\xffy"))
        child.mkdir()
        assert Names().cgroup(child.stat().st_ino) == f"/{top.name}/x\ufffdy"
    with net.veth_pair() as (_, right):
        link = ("ip", "-n", right.namespace.name, "link", "set", "veth0")
        run(*link, "down")
        subprocess.run([*link, "name", b"v\xff0"], check=True)
        assert Names().interface(right.index, right.namespace.inode) == "v\ufffd0"
        place = Path(os.fsdecode(b"/run/netns/lab-\xff"))
        place.touch()
        try:
            assert Names().namespace(place.stat().st_ino) == "lab-\ufffd"
        finally:
            place.unlink()


def test_a_reading_leaves_no_descriptor() -> None:
    """The hierarchy of cgroups is opened for one reading."""
    names = Names()
    with kernel.cgroup2() as top:
        before = len([*Path("/proc/self/fd").iterdir()])
        for _ in range(5):
            names.begin()
            names.cgroup(2**62)
            names.cgroup(top.stat().st_ino)
        names.begin()
        assert len([*Path("/proc/self/fd").iterdir()]) == before
