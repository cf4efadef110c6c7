# SPDX-License-Identifier: Apache-2.0
"""Effect of a reload on programs of each type: update in place, attach beside, or keep the old one."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from labs import kernel, net
from labs.attach import SOURCES
from labs.loader import PREFIX, Lab, counted, in_kernel
from labs.run import WAIT_SECONDS, run, wait_until

from buildtool.objects.types import program_type

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

PROGRAM = f"{PREFIX}_prog"
IN_PLACE = {
    "sock_create": ("cgroup/sock_create", "cgroup"),
    "sk_lookup": ("sk_lookup", "namespace"),
    "dissector": ("flow_dissector", "namespace"),
    "sk_msg": ("sk_msg", None),
    "sk_skb": ("sk_skb/stream_verdict", None),
    "iterator": ("iter/bpf_map", None),
}
BESIDE = {
    "raw_tp_bare": ("raw_tp", "sys_enter"),
    "tp_btf": ("tp_btf/sys_enter", None),
    "perf": ("perf_event", "cpu-clock:99"),
}
NOT_AT_ALL = {
    "netfilter": (
        "netfilter",
        "ipv4:input:7",
        "cannot attach to ipv4:input:7: Device or resource busy: the old program holds the hook",
    ),
    "struct_ops": (
        "struct_ops/ssthresh",
        None,
        f"map {PREFIX}_ops: cannot attach to {PREFIX}_ops: File exists: the old program holds the hook",
    ),
}


def reload_once(
    lab: Lab, tmp_path: Path, kind: str, section: str, target: str | None
) -> list[dict[str, Any]]:
    """Start the object, sign it as another release, reload, stop; return the lines after `ready`."""
    programs = [{"name": PROGRAM, "section": section, "type": program_type(section)}]
    with ExitStack() as stack:
        if target == "cgroup":
            target = str(stack.enter_context(kernel.cgroup2()))
        elif target == "namespace":
            target = f"/run/netns/{stack.enter_context(net.namespace()).name}"
        lab.put(tmp_path, kind, programs=programs)
        options = ["--reload", *([f"--attach={PROGRAM}={target}"] if target else [])]
        process, stop = stack.enter_context(lab.started(tmp_path, *options))
        lab.put(tmp_path, kind, programs=programs, release="2.0")
        process.send_signal(signal.SIGHUP)
        (log,) = tmp_path.glob("stderr*")
        assert wait_until(lambda: '"event":"reload"' in log.read_text()), log.read_text()
        result = stop()
    assert result.code == 0
    at = next(at for at, line in enumerate(result.lines) if line["event"] == "ready")
    return result.lines[at + 1 :]


def named(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    """Return the lines with *event*."""
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("kind", IN_PLACE)
def test_link_gets_its_new_program(lab: Lab, tmp_path: Path, kind: str) -> None:
    """The link stays and gets the new program in one step."""
    lines = reload_once(lab, tmp_path, kind, *IN_PLACE[kind])
    assert [line["outcome"] for line in named(lines, "reload")] == ["updated"], lines
    assert len(named(lines, "update")) == 1
    assert named(lines, "attach") == []


@pytest.mark.parametrize("kind", BESIDE)
def test_new_program_comes_before_the_old_one_goes(lab: Lab, tmp_path: Path, kind: str) -> None:
    """For links without update, the new program is attached before the old one is detached."""
    lines = reload_once(lab, tmp_path, kind, *BESIDE[kind])
    assert [line["outcome"] for line in named(lines, "reload")] == ["updated"], lines
    attached = named(lines, "attach")
    assert attached
    assert all("both run for a moment" in line["message"] for line in attached)


@pytest.mark.parametrize("kind", NOT_AT_ALL)
def test_old_program_stays_if_the_hook_allows_no_second(lab: Lab, tmp_path: Path, kind: str) -> None:
    """A hook that allows neither update nor a second program keeps the old one; the line has the reason."""
    section, target, words = NOT_AT_ALL[kind]
    lines = reload_once(lab, tmp_path, kind, section, target)
    (line,) = named(lines, "reload")
    assert line["outcome"] == "kept"
    assert words in line["message"]


def attached_map(mount: Path) -> int:
    """Return the id of the map that the one pinned sockmap link is attached to."""
    [link] = list(mount.rglob("*@*"))
    return kernel.pin_number(link, "map_id")


def pinned_map(mount: Path, generation: str) -> int:
    """Return the id of the sockmap of a generation."""
    return kernel.pin_number(mount / f"pins/sk_msg,bpf,o/{generation}/maps/{PREFIX}_socks", "map_id")


def shown_maps() -> list[dict[str, Any]]:
    """Return all maps of the kernel."""
    return list(json.loads(run("bpftool", "-j", "map", "show")))


def send_through(number: int) -> None:
    """Put a socket into the sockmap and send data through it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as peer,
    ):
        kernel.update_map(number, bytes(4), struct.pack("<Q", client.fileno()))
        client.sendall(b"hello")
        peer.settimeout(WAIT_SECONDS)
        assert peer.recv(5) == b"hello"


def test_sockmap_of_another_size(lab: Lab, tmp_path: Path) -> None:
    """A sockmap of another size is a new map: the update attaches to it, a rollback to the old one."""
    SOURCES["sk_msg_larger"] = SOURCES["sk_msg"].replace("max_entries, 4", "max_entries, 8")
    lab.put(tmp_path, "sk_msg")
    with kernel.bpf_file_system() as mount:
        root = f"--pin-root={mount}/pins"
        assert lab.run(tmp_path, root, "--", "/bin/true").code == 0
        first = attached_map(mount)
        lab.replace(tmp_path, "sk_msg", "sk_msg_larger", version=2)
        result = lab.run(tmp_path, root, "--", "/bin/true")
        assert [line["target"] for line in result.events("map")] == [f"{PREFIX}_socks"]
        assert len(result.events("attach")) == 1
        assert attached_map(mount) == pinned_map(mount, "current") != first
        before = counted()
        send_through(attached_map(mount))
        assert wait_until(lambda: counted() > before)
        argv = [lab.pins, "rollback", root]
        assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
        assert attached_map(mount) == pinned_map(mount, "current") == first
        before = counted()
        send_through(first)
        assert wait_until(lambda: counted() > before)


def test_reload_with_a_sockmap_of_another_size(lab: Lab, tmp_path: Path) -> None:
    """A reload without pins also attaches the new program to the new sockmap."""
    SOURCES["sk_msg_larger"] = SOURCES["sk_msg"].replace("max_entries, 4", "max_entries, 8")
    programs = [{"name": PROGRAM, "section": "sk_msg", "type": "sk_msg"}]
    lab.put(tmp_path, "sk_msg", programs=programs)
    with lab.started(tmp_path, "--reload") as (process, stop):
        lab.replace(tmp_path, "sk_msg", "sk_msg_larger", version=2, programs=programs)
        process.send_signal(signal.SIGHUP)
        (log,) = tmp_path.glob("stderr*")
        assert wait_until(lambda: '"event":"reload"' in log.read_text()), log.read_text()
        assert wait_until(lambda: in_kernel().count(f"{PREFIX}_socks") == 1)
        [number] = [item["id"] for item in shown_maps() if item.get("name") == f"{PREFIX}_socks"]
        before = counted()
        send_through(number)
        assert wait_until(lambda: counted() > before)
        result = stop()
    assert [line["outcome"] for line in result.events("reload")] == ["updated"], result.lines


# A seccomp filter that answers BPF_LINK_CREATE (28) with EINVAL, as Linux does for sockmaps before 6.10.
WITHOUT_LINKS = """
import ctypes, os, struct, sys
rules = [(0x20, 0, 0, 0), (0x15, 0, 3, int(sys.argv[1])), (0x20, 0, 0, 16), (0x15, 0, 1, 28),
         (0x06, 0, 0, 0x50016), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("@HP", len(rules), ctypes.addressof(code)))
assert ctypes.CDLL(None).prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_reload_of_a_sockmap_without_links(lab: Lab, tmp_path: Path) -> None:
    """Without links a sockmap's program is replaced too, and an unhealthy one is replaced back."""
    SOURCES["sk_msg_next"] = SOURCES["sk_msg"].replace("count();", "count(); count();")
    programs = [{"name": PROGRAM, "section": "sk_msg", "type": "sk_msg"}]
    check = tmp_path / "check"
    check.write_text(f"#!/bin/sh\nexec test ! -e {check}.bad\n")
    check.chmod(0o755)
    before = [sys.executable, "-c", WITHOUT_LINKS, str(kernel.BPF_SYSCALL[os.uname().machine])]
    lab.put(tmp_path, "sk_msg", programs=programs)
    with lab.started(tmp_path, "--reload", f"--health-command={check}", before=before) as (process, stop):
        [number] = [item["id"] for item in shown_maps() if item.get("name") == f"{PREFIX}_socks"]
        Path(f"{check}.bad").touch()
        lab.replace(tmp_path, "sk_msg", "sk_msg_next", version=2, programs=programs)
        (log,) = tmp_path.glob("stderr*")
        for outcome, calls in (("kept", 1), ("updated", 2)):
            process.send_signal(signal.SIGHUP)
            assert wait_until(lambda: f'"outcome":"{outcome}"' in log.read_text()), log.read_text()  # noqa: B023
            seen = counted()
            send_through(number)
            assert counted() - seen == calls
            Path(f"{check}.bad").unlink(missing_ok=True)
        result = stop()
    assert result.code == 0


def test_rollback_that_needs_the_object(lab: Lab, tmp_path: Path) -> None:
    """A rollback of a struct_ops map is an error: pins cannot attach it again. The attached state stays."""
    lab.put(tmp_path, "struct_ops")
    with kernel.bpf_file_system() as mount:
        root = f"--pin-root={mount}/pins"
        assert lab.run(tmp_path, root, "--", "/bin/true").code == 0
        SOURCES["struct_ops_next"] = SOURCES["struct_ops"].replace("return 2;", "return 3;")
        lab.replace(tmp_path, "struct_ops", "struct_ops_next", version=2)
        assert lab.run(tmp_path, root, f"--attach={PREFIX}_ops=none", "--", "/bin/true").code == 0
        argv = [lab.pins, "rollback", root]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert done.returncode == 1
        assert "rollback requires its object" in done.stderr
        status = subprocess.run([lab.pins, "status", root], check=False, capture_output=True)
        assert status.returncode == 0


# A restart loads these types again even if nothing changed: their target is a map of the object.
KEPT = {"sk_msg": "update"}


@pytest.mark.parametrize(
    ("kind", "target", "event"),
    [
        ("sk_msg", None, "update"),
        ("iterator", None, "update"),
        ("perf", "cpu-clock:99", "attach"),
        ("raw_tp_bare", "sys_enter", "attach"),
    ],
)
def test_pinned_links_of_each_type(
    lab: Lab, tmp_path: Path, kind: str, target: str | None, event: str
) -> None:
    """Pinned links outlive the loader; the same code keeps them, other code updates or replaces them."""
    SOURCES[f"{kind}_next"] = SOURCES[kind].replace("count();", "count(); count();")
    lab.put(tmp_path, kind)
    with kernel.bpf_file_system() as mount:
        options = [f"--pin-root={mount}/pins", *([f"--attach={PROGRAM}={target}"] if target else [])]
        for start, expected in enumerate(("attach", KEPT.get(kind, "keep"), event)):
            if start == 2:
                lab.replace(tmp_path, kind, f"{kind}_next", version=2)
            with lab.started(tmp_path, *options) as (_, stop):
                result = stop()
            assert result.code == 0
            assert result.events(expected), result.lines
            assert PROGRAM in in_kernel()
