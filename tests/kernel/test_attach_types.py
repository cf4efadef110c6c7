# SPDX-License-Identifier: Apache-2.0
"""Programs of every type that this kernel supports: attach, run on their event, detach."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import labs.attach  # noqa: F401 - adds its objects
import pytest
from labs import kernel, net
from labs.handsig import policy
from labs.kernel import TRACEFS
from labs.loader import PREFIX, Lab, counted, in_kernel
from labs.net import veth
from labs.run import WAIT_SECONDS, run, wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

PROGRAM = f"{PREFIX}_prog"


@pytest.fixture(scope="module")
def group() -> Iterator[Path]:
    """Make a cgroup of version 2."""
    with kernel.cgroup2() as directory:
        yield directory


def inside(group: Path, script: str) -> None:
    """Run a shell script in the cgroup; a failure of the script is accepted."""
    argv = ["bash", "-c", f"echo $$ > {group}/cgroup.procs; {script}"]
    subprocess.run(argv, check=False, capture_output=True)


CGROUP_CASES = {
    "sock_create": "exec 3<>/dev/udp/127.0.0.1/9",
    "connect4": "exec 3<>/dev/udp/127.0.0.1/9",
    "setsockopt": "python3 -c 'import socket; s = socket.socket(); s.setsockopt(1, 2, 1)'",
    "sysctl": "cat /proc/sys/net/core/somaxconn",
    "device": "echo > /dev/null",
    "sockops": "exec 3<>/dev/tcp/127.0.0.1/9",
}


@pytest.mark.parametrize("kind", CGROUP_CASES)
def test_cgroup_types_see_their_group(lab: Lab, tmp_path: Path, group: Path, kind: str) -> None:
    """Each type of cgroup program runs for processes of its cgroup, and not before."""
    lab.put(tmp_path, kind)
    with lab.started(tmp_path, f"--attach={PROGRAM}={group}") as (_, stop):
        assert counted() == 0
        inside(group, CGROUP_CASES[kind])
        assert wait_until(lambda: counted() > 0)
        assert stop().code == 0


def connect(port: int = 9) -> None:
    """Connect to a loopback port without a listener."""
    with socket.socket() as client:
        client.connect_ex(("127.0.0.1", port))


def burn() -> None:
    """Use the processor for a moment."""
    sum(range(200_000))


TRIGGERED: dict[str, tuple[str | None, Callable[[], object]]] = {
    "sk_lookup": (None, connect),
    "tracepoint": (None, lambda: os.getpgid(0)),
    "tracepoint_bare": ("syscalls/sys_enter_getpgid", lambda: os.getpgid(0)),
    "raw_tp_bare": ("sys_enter", os.getppid),
    "tp_btf": (None, os.getppid),
    "tp_btf_bare": ("sys_enter", os.getppid),
    "perf": ("cpu-clock:1000", burn),
    "netfilter": ("ipv4:input:7", connect),
}


@pytest.mark.parametrize("kind", TRIGGERED)
def test_event_runs_the_program(lab: Lab, tmp_path: Path, kind: str) -> None:
    """The event that the section or the target names runs the program."""
    target, trigger = TRIGGERED[kind]
    lab.put(tmp_path, kind)
    options = [f"--attach={PROGRAM}={target}"] if target else []
    with lab.started(tmp_path, *options, before=TRACEFS) as (_, stop):
        before = counted()

        def runs() -> bool:
            trigger()
            return counted() > before

        assert wait_until(runs)
        assert stop().code == 0


def map_id(name: str) -> int:
    """Return the id of the map *name*."""
    maps = json.loads(run("bpftool", "-j", "map", "show"))
    [found] = [item["id"] for item in maps if item.get("name") == name]
    return int(found)


@pytest.mark.parametrize("kind", ["sk_msg", "sk_skb"])
def test_sockmap_programs_see_the_sockets_of_their_map(lab: Lab, tmp_path: Path, kind: str) -> None:
    """Data through a socket in the map runs the program and arrives."""
    lab.put(tmp_path, kind)
    with lab.started(tmp_path) as (_, stop), socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as peer:
            watched = client if kind == "sk_msg" else peer
            kernel.update_map(map_id(f"{PREFIX}_socks"), bytes(4), struct.pack("<Q", watched.fileno()))
            client.sendall(b"hello")
            peer.settimeout(WAIT_SECONDS)
            assert peer.recv(5) == b"hello"
            assert wait_until(lambda: counted() > 0)
        assert stop().code == 0


def test_flow_dissector_runs_for_its_namespace(lab: Lab, tmp_path: Path) -> None:
    """The program dissects frames that are sent in its network namespace."""
    lab.put(tmp_path, "dissector")
    frame = bytes(12) + b"\x08\x00" + bytes(50)
    with ExitStack() as stack:
        namespace = stack.enter_context(net.namespace())
        options = [f"--attach={PROGRAM}=/run/netns/{namespace.name}"]
        _, stop = stack.enter_context(lab.started(tmp_path, *options))
        with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind(("lo", 0))
            out.send(frame)
        assert wait_until(lambda: counted() > 0)
        assert stop().code == 0


def test_iterator_is_read_through_its_pin(lab: Lab, tmp_path: Path) -> None:
    """Reading the pinned link of an iterator runs the program for each of its elements."""
    lab.put(tmp_path, "iterator")
    with ExitStack() as stack:
        mount = stack.enter_context(kernel.bpf_file_system())
        _, stop = stack.enter_context(lab.started(tmp_path, f"--pin-root={mount}/pins"))
        [link] = [path for path in mount.rglob("*") if path.is_file() and path.parent.name == "links"]
        link.read_bytes()
        assert counted() > 0
        assert stop().code == 0


def test_programs_for_maps_are_loaded_only(lab: Lab, tmp_path: Path) -> None:
    """A program for entries of a devmap is loaded without a target, and attached nowhere."""
    lab.put(tmp_path, "devmap")
    with lab.started(tmp_path) as (_, stop):
        assert PROGRAM in in_kernel()
        assert stop().events("attach") == []


@pytest.mark.parametrize(
    ("kind", "target", "shown"),
    [
        ("sk_msg", None, "socks"),
        ("sk_msg_two", "other", "other"),
        ("sk_skb", None, "socks"),
        ("iterator", None, "iter/bpf_map"),
        ("map_iterator", "map", "map"),
        ("dissector", None, "/proc/self/ns/net"),
    ],
)
def test_types_attach(lab: Lab, tmp_path: Path, kind: str, target: str | None, shown: str) -> None:
    """Types whose event needs more than a test has are attached to the right target and detached."""
    objects = lab.put(tmp_path, kind)
    if kind == "map_iterator":
        kernel.need_program_type(objects / f"{kind}.bpf.o")
    # Names of maps contain the process id. Fixed ids let parallel test processes collect the same tests.
    names = {name: f"{PREFIX}_{name}" for name in ("map", "other", "socks")}
    target, shown = names.get(target or "", target), names.get(shown, shown)
    options = [f"--attach={PROGRAM}={target}"] if target else []
    with lab.started(tmp_path, *options) as (_, stop):
        result = stop()
    assert [line["target"] for line in result.events("attach")] == [shown]
    assert [line["target"] for line in result.events("detach")] == [shown]


def test_perf_events_have_a_link_per_cpu(lab: Lab, tmp_path: Path) -> None:
    """A perf event program has one link for each CPU."""
    lab.put(tmp_path, "perf")
    with lab.started(tmp_path, f"--attach={PROGRAM}=1:0:1000000") as (_, stop):
        shown = [line["target"] for line in stop().events("attach")]
    assert len(shown) == os.cpu_count()
    assert shown[0] == "1:0:1000000:cpu0"


def test_network_namespaces_by_path(lab: Lab, tmp_path: Path) -> None:
    """sk_lookup runs in the network namespace that its target names, and in no other."""
    lab.put(tmp_path, "sk_lookup")
    with net.namespace() as namespace:
        options = [f"--attach={PROGRAM}=/run/netns/{namespace.name}"]
        with lab.started(tmp_path, *options) as (_, stop):
            connect()
            assert counted() == 0
            with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.connect_ex(("127.0.0.1", 9))
            assert wait_until(lambda: counted() > 0)
            assert stop().code == 0


def congestion_controls() -> list[str]:
    """Return the names of the available TCP congestion controls."""
    return Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()


def test_struct_ops_are_attached_with_their_map(lab: Lab, tmp_path: Path) -> None:
    """A struct_ops map is attached without a target and detached at the end; target none omits it."""
    lab.put(tmp_path, "struct_ops")
    with lab.started(tmp_path) as (_, stop):
        assert PREFIX in congestion_controls()
        result = stop()
    assert [line["program"] for line in result.events("detach")] == [f"{PREFIX}_ops"]
    assert PREFIX not in congestion_controls()
    with lab.started(tmp_path, f"--attach={PREFIX}_ops=none") as (_, stop):
        assert PREFIX not in congestion_controls()
        assert stop().code == 0


@pytest.mark.parametrize("options", [[], ["--reload"]], ids=["exec", "reload"])
def test_struct_ops_are_not_passed_to_the_workload(lab: Lab, tmp_path: Path, options: list[str]) -> None:
    """The workload gets data maps only: an update of a struct_ops map would register it again."""
    lab.put(tmp_path, "struct_ops")
    script = "env | grep -o 'BUILDTOOL_FD_[^=]*'; ls -l /proc/self/fd | grep -c bpf-map"
    result = lab.run(tmp_path, *options, "--", "sh", "-c", script)
    assert result.stdout.split() == [f"BUILDTOOL_FD_{PREFIX}_map", "1"], result.stdout
    assert PREFIX not in congestion_controls()


@pytest.mark.parametrize("mode", ["generic", "driver"])
def test_modes_of_xdp(lab: Lab, tmp_path: Path, mode: str) -> None:
    """XDP attaches in the mode that the target names."""
    lab.put(tmp_path, "xdp")
    with veth() as (left, _), lab.started(tmp_path, f"--attach={PREFIX}_xdp={left}:{mode}") as (_, stop):
        shown = subprocess.run(["ip", "-d", "link", "show", left], capture_output=True, text=True, check=True)
        assert ("xdpgeneric" in shown.stdout) == (mode == "generic")
        result = stop()
    assert result.events("attach")[0]["target"] == f"{left}:{mode}"


@pytest.mark.parametrize("signed", [True, False], ids=["statement", "option"])
def test_interfaces_by_pattern(lab: Lab, tmp_path: Path, signed: bool) -> None:  # noqa: FBT001 - a parameter
    """A pattern attaches to every matching interface, in the order of the names."""
    target = f"{PREFIX}*:generic"
    program = {"name": f"{PREFIX}_xdp", "section": "xdp", "type": "xdp", "attach": [target]}
    lab.put(tmp_path, "xdp", **({"programs": [program]} if signed else {}))
    with ExitStack() as stack:
        pairs = [stack.enter_context(veth()) for _ in range(2)]
        names = sorted(name for pair in pairs for name in pair)
        options = [] if signed else [f"--attach={PREFIX}_xdp={target}"]
        with lab.started(tmp_path, *options) as (_, stop):
            result = stop()
    assert [line["target"] for line in result.events("attach")] == [f"{name}:generic" for name in names]


@pytest.mark.parametrize(
    ("kind", "target", "code", "words"),
    [
        ("xdp", "{p}*", 1, ["interface {p}*: No such device: not in this network namespace"]),
        (
            "xdp",
            "lo:driver",
            1,
            ["cannot attach to lo:driver: Operation not supported: the driver has no XDP", "use lo:generic"],
        ),
        ("xdp", "lo:offload", 2, ["not a mode of XDP; the modes are :driver and :generic"]),
        ("sk_lookup", "here", 2, ["not the path of a network namespace"]),
        ("sk_lookup", "/nonexistent", 1, ["network namespace /nonexistent", "No such file"]),
        ("sk_msg", "nothing", 2, ["nothing: the object has no sockmap of this name"]),
        ("sk_msg_two", None, 2, ["several sockmaps; name one"]),
        ("sk_msg_none", None, 2, ["the object has no sockmap"]),
        ("sk_skb_bare", None, 2, ["use sk_skb/verdict"]),
        ("map_iterator", "nothing", 2, ["nothing", "no such map"]),
        ("perf", "cpu-clock", 2, ["not cpu-clock:FREQUENCY"]),
        ("perf", "1:0:0", 2, ["TYPE:CONFIG:PERIOD"]),
        ("perf", "cpu-clock:99x", 2, ["not cpu-clock:FREQUENCY"]),
        ("netfilter", "ipv4:input", 2, ["ipv4:HOOK:PRIORITY"]),
        ("netfilter", "ipv5:input:1", 2, ["ipv4:HOOK:PRIORITY"]),
        ("netfilter", "ipv4:input:4294967303", 2, ["ipv4:HOOK:PRIORITY"]),
        ("netfilter", "ipv4:input:9223372036854775808", 2, ["ipv4:HOOK:PRIORITY"]),
        ("kprobe", "vfs_read", 2, ["section kprobe/security_file_open already names the target"]),
        ("kprobe_bare", None, 2, ["--attach {p}_prog=FUNCTION"]),
        ("kprobe_bare", "vfs_read+x", 2, ["not FUNCTION[+OFFSET]"]),
        ("uprobe_bare", "main", 2, ["not /PATH:SYMBOL"]),
        ("uprobe_bare", "/bin/true:main@0", 2, ["not /PATH:SYMBOL"]),
        ("fentry_bare", "{p}_no_such_function", 1, ["this kernel has no such function"]),
        (
            "tracepoint_bare",
            "{p}/none",
            1,
            ["tracepoint {p}/none: No such file", "/sys/kernel/tracing/events"],
        ),
        ("tracepoint_bare", "../../../etc/passwd", 1, ["No such file"]),
        (
            "raw_tp_bare",
            "{p}_none",
            1,
            ["{p}_prog: cannot attach to {p}_none: No such file", "no such tracepoint"],
        ),
        ("struct_ops_left", None, 2, ["use .struct_ops.link"]),
        ("socket", None, 2, ["section socket has no hook", "--attach {p}_prog=none"]),
        ("action", None, 2, ["section action has no hook"]),
        ("usdt_bare", None, 2, ["no target; use --attach", "/PATH:PROVIDER:NAME"]),
        ("usdt_bare", "/bin/true", 2, ["not /PATH:PROVIDER:NAME[@PID]"]),
        ("usdt_bare", "bin:a:b", 2, ["not /PATH:PROVIDER:NAME[@PID]"]),
        ("usdt_bare", "/bin/true:a:b@0", 2, ["not /PATH:PROVIDER:NAME[@PID]"]),
        ("usdt", "/bin/true:a:b", 2, ["already names the target"]),
        (
            "freplace",
            None,
            2,
            ["the kernel loads the program for a target", "--attach {p}_prog=OBJECT:PROGRAM"],
        ),
        ("freplace", "none", 2, ["the kernel loads the program for a target only", "--no-load {p}_prog"]),
        ("freplace", "{p}_disp", 2, ["{p}_disp: not OBJECT:PROGRAM"]),
        ("freplace", "none.bpf.o:{p}_disp", 2, ["none.bpf.o:{p}_disp: no such object"]),
        ("freplace", "freplace.bpf.o:{p}_prog", 2, ["the object has programs of freplace itself"]),
        ("freplace_bare", "a.bpf.o:f", 2, ["section freplace names no function", "freplace/FUNCTION"]),
        ("uprobe_multi", "main", 2, ["not /PATH:SYMBOL"]),
    ],
)
def test_wrong_targets(
    lab: Lab, tmp_path: Path, kind: str, target: str | None, code: int, words: list[str]
) -> None:
    """Each wrong target has its exit code and its message, and nothing stays attached."""
    lab.put(tmp_path, kind)
    name = f"{PREFIX}_xdp" if kind == "xdp" else PROGRAM
    options = [f"--attach={name}={target.format(p=PREFIX)}"] if target else []
    result = lab.run(tmp_path, *options, before=TRACEFS)
    assert result.code == code, result.lines
    assert all(word.format(p=PREFIX) in result.message for word in words), result.message
    assert result.events("ready") == []


def test_policy_decides_about_added_targets(lab: Lab, tmp_path: Path) -> None:
    """A policy's attachPoints also decide about the function that --attach adds to a section."""
    lab.put(tmp_path, "raw_tp_bare")
    rules = policy(lab.key, attachPoints=["raw_tp", "raw_tp/sys_exit"])
    (tmp_path / "trust/policy.json").write_text(rules)
    refused = lab.run(tmp_path, f"--attach={PROGRAM}=sys_enter")
    assert [line["event"] for line in refused.lines] == ["verify", "refuse"]
    assert refused.code == 3
    assert "denied-by-policy: attachPoints do not include raw_tp/sys_enter" in refused.lines[-1]["message"]
    with lab.started(tmp_path, f"--attach={PROGRAM}=sys_exit") as (_, stop):
        assert stop().code == 0


@pytest.mark.parametrize(
    ("program", "function", "code", "words"),
    [
        ("none", "stub", 2, "replaceable.bpf.o:{p}_none: no such program is loaded"),
        ("disp", "lost", 1, "its object has no function {p}_lost"),
    ],
)
def test_what_freplace_does_not_find(
    lab: Lab, tmp_path: Path, program: str, function: str, code: int, words: str
) -> None:
    """A target without the program, or without the function, is refused before the program is loaded."""
    lab.put(tmp_path, "replaceable", f"freplace_{function}" if function != "stub" else "freplace")
    result = lab.run(tmp_path, f"--attach={PROGRAM}=replaceable.bpf.o:{PREFIX}_{program}")
    assert result.code == code, result.lines
    assert words.format(p=PREFIX) in result.message


@pytest.mark.parametrize("option", ["pin-root", "share"])
def test_freplace_and_programs_that_stay(lab: Lab, tmp_path: Path, option: str) -> None:
    """A program that stays would replace a function of an old program, so the options exclude each other."""
    lab.put(tmp_path, "replaceable", "freplace")
    target = f"--attach={PROGRAM}=replaceable.bpf.o:{PREFIX}_disp"
    result = lab.run(tmp_path, target, f"--{option}={tmp_path}/pins")
    assert result.code == 2
    assert f"section freplace/{PREFIX}_stub and --{option} exclude each other" in result.message
