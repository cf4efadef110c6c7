# SPDX-License-Identifier: Apache-2.0
"""The loader on this kernel: it loads, attaches, runs the workload and detaches."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from labs.loader import PREFIX, Lab, Result, counted, in_kernel
from labs.net import send, veth
from labs.privileges import root_with
from labs.run import wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")


@contextmanager
def cgroup(tmp_path: Path) -> Iterator[Path]:
    """Make a cgroup of version 2."""
    mount = tmp_path / "cgroup"
    mount.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", mount], check=True)
    try:
        group = mount / PREFIX
        group.mkdir()
        yield group
        group.rmdir()
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.parametrize(
    ("kind", "target", "shown"),
    [
        ("xdp", "xdp={left}", "{left}"),
        ("tcx", "tcx={left}", "{left}"),
        ("tcx", "tcx={left}:ingress", "{left}:ingress"),
        ("tc", "tc={left}:ingress", "{left}:ingress"),
    ],
)
def test_interface_counts_packets(lab: Lab, tmp_path: Path, kind: str, target: str, shown: str) -> None:
    """XDP, tcx and tc programs count the packets of their interface until SIGTERM detaches them."""
    lab.put(tmp_path, kind)
    with veth() as (left, right):
        option = f"--attach={PREFIX}_{target.format(left=left)}"
        with lab.started(tmp_path, option) as (_, stop):
            send(right, 7)
            assert wait_until(lambda: counted() == 7), counted()
            result = stop()
    assert result.code == 0
    assert [line["event"] for line in result.lines] == ["verify", "load", "attach", "ready", "detach"]
    (attached,) = result.events("attach")
    assert attached["target"] == shown.format(left=left)
    assert attached["program"] == f"{PREFIX}_{kind}"


def test_egress_program_sees_what_is_sent(lab: Lab, tmp_path: Path) -> None:
    """A tc program attaches to the direction that its target names."""
    lab.put(tmp_path, "tc")
    with veth() as (left, _), lab.started(tmp_path, f"--attach={PREFIX}_tc={left}:egress") as (_, stop):
        send(left, 3)
        assert wait_until(lambda: counted() == 3)
        assert stop().code == 0


def test_cgroup_program_sees_its_group(lab: Lab, tmp_path: Path) -> None:
    """A cgroup program attaches to the path of a cgroup and counts what its processes send."""
    lab.put(tmp_path, "cgroup")
    with cgroup(tmp_path) as group, lab.started(tmp_path, f"--attach={PREFIX}_cg={group}") as (_, stop):
        script = f"echo $$ > {group}/cgroup.procs; exec 3<>/dev/udp/127.0.0.1/9; echo x >&3"
        subprocess.run(["bash", "-c", script], check=True)
        assert wait_until(lambda: counted() == 1)
        assert stop().code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_detaches(lab: Lab, tmp_path: Path, number: int) -> None:
    """A program whose section names the hook needs no option; SIGTERM and SIGINT end with exit code 0."""
    lab.put(tmp_path, "raw_tp")
    with lab.started(tmp_path) as (process, stop):
        assert f"{PREFIX}_raw" in in_kernel()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        result = stop(number)
    assert result.code == 0
    assert len(result.events("detach")) == 1


def test_kill_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    """SIGKILL leaves no program behind."""
    lab.put(tmp_path, "raw_tp")
    with lab.started(tmp_path) as (_, stop):
        assert stop(signal.SIGKILL).code == -signal.SIGKILL


def test_targets_of_the_statement_are_the_default(lab: Lab, tmp_path: Path) -> None:
    """Without --attach the signed statement names the targets; --attach replaces them."""
    with veth() as (left, right):
        program = {"name": f"{PREFIX}_xdp", "section": "xdp", "type": "xdp", "attach": [left]}
        lab.put(tmp_path, "xdp", programs=[program])
        with lab.started(tmp_path) as (_, stop):
            assert stop().events("attach")[0]["target"] == left
        with lab.started(tmp_path, f"--attach={PREFIX}_xdp={right}") as (_, stop):
            assert [line["target"] for line in stop().events("attach")] == [right]


def test_program_on_several_interfaces(lab: Lab, tmp_path: Path) -> None:
    """Two --attach options attach one program twice."""
    lab.put(tmp_path, "tcx")
    with veth() as (left, right):
        options = [f"--attach={PREFIX}_tcx={name}" for name in (left, right)]
        with lab.started(tmp_path, *options) as (_, stop):
            assert len(stop().events("detach")) == 2


def test_program_that_is_loaded_only(lab: Lab, tmp_path: Path) -> None:
    """Target none loads a program and attaches it nowhere."""
    lab.put(tmp_path, "xdp")
    with lab.started(tmp_path, f"--attach={PREFIX}_xdp=none") as (_, stop):
        assert f"{PREFIX}_xdp" in in_kernel()
        result = stop()
    assert result.events("attach") == []


def test_optional_program_is_loaded_when_asked_for(lab: Lab, tmp_path: Path) -> None:
    """SEC("?...") is loaded only if --attach names its program."""
    lab.put(tmp_path, "optional")
    with lab.started(tmp_path) as (_, stop):
        assert f"{PREFIX}_opt" not in in_kernel()
        assert stop().code == 0
    with veth() as (left, _), lab.started(tmp_path, f"--attach={PREFIX}_opt={left}") as (_, stop):
        assert f"{PREFIX}_opt" in in_kernel()
        assert stop().code == 0


def test_same_program_in_two_objects(lab: Lab, tmp_path: Path) -> None:
    """A program name in two objects is ambiguous; OBJECT:PROGRAM is not."""
    objects = lab.put(tmp_path, "xdp")
    (objects / "other.bpf.o").write_bytes(lab.signed("xdp"))
    ambiguous = lab.run(tmp_path, f"--attach={PREFIX}_xdp=none")
    assert ambiguous.code == 2
    assert f"use OBJECT:{PREFIX}_xdp=TARGET" in ambiguous.message
    options = [f"--attach={name}.bpf.o:{PREFIX}_xdp=none" for name in ("xdp", "other")]
    with lab.started(tmp_path, *options) as (_, stop):
        assert len(stop().events("load")) == 2


def test_pins_are_not_made(lab: Lab, tmp_path: Path) -> None:
    """The loader ignores a map's request to be pinned: the pin would outlive the loader."""
    lab.put(tmp_path, "pinned")
    with lab.started(tmp_path) as (_, stop):
        assert f"{PREFIX}_pin" in in_kernel()
        assert stop().code == 0
    assert not Path(f"/sys/fs/bpf/{PREFIX}_pin").exists()


def test_container_capabilities_are_enough(lab: Lab, tmp_path: Path) -> None:
    """CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are enough, and the workload has none of them."""
    lab.put(tmp_path, "xdp")
    with veth() as (left, _):
        option = f"--attach={PREFIX}_xdp={left}"
        more = (option, "--capabilities=NET_ADMIN,PERFMON")
        before = root_with("bpf", "net_admin", "perfmon")
        result = lab.run(tmp_path, *more, "--", "cat", "/proc/self/status", before=before)
    assert result.code == 0, result.lines
    assert "CapEff:\t0000000000000000" in result.stdout


def test_workload_has_no_capability(lab: Lab, tmp_path: Path) -> None:
    """The workload is found on PATH and runs with five empty capability sets and no_new_privs."""
    lab.put(tmp_path, "raw_tp")
    result = lab.run(tmp_path, "--", "cat", "/proc/self/status")
    assert result.code == 0, result.lines
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{name}:\t0000000000000000" in result.stdout
    assert "NoNewPrivs:\t1" in result.stdout
    assert "SigBlk:\t0000000000000000" in result.stdout
    assert [line["event"] for line in result.lines][-2:] == ["ready", "exec"]


def test_workload_gives_the_exit_code_and_holds_the_links(lab: Lab, tmp_path: Path) -> None:
    """Programs stay attached while the workload runs, and its exit code is the loader's."""
    lab.put(tmp_path, "raw_tp")
    workload = ["/bin/sh", "-c", "trap 'exit 42' TERM; while :; do sleep 0.05; done"]
    with lab.started(tmp_path, "--", *workload) as (process, stop):
        program = Path(f"/proc/{process.pid}/exe")
        assert wait_until(lambda: program.readlink().name != lab.loader.name)
        first = counted()
        assert wait_until(lambda: counted() > first)
        assert stop().code == 42


@pytest.mark.parametrize("missing", ["/nonexistent/workload", "no-such-workload", "/tmp"])
def test_missing_workload(lab: Lab, tmp_path: Path, missing: str) -> None:
    """A missing workload is an error before anything is loaded."""
    lab.put(tmp_path, "raw_tp")
    result = lab.run(tmp_path, "--", missing)
    assert result.code == 1
    assert missing in result.message
    assert result.events("load") == []


def test_workload_that_cannot_run_is_no_shell_script(lab: Lab, tmp_path: Path) -> None:
    """A file that the kernel cannot execute is not run by a shell, and everything is detached."""
    lab.put(tmp_path, "raw_tp")
    script = tmp_path / "script"
    script.write_text("echo no\n")
    script.chmod(0o755)
    result = lab.run(tmp_path, "--", str(script))
    assert result.code == 1
    assert "Exec format error" in result.message
    assert len(result.events("detach")) == 1
    assert result.stdout == ""


def check_not_attached(result: Result, code: int, *words: str) -> None:
    """Check the exit code and the words of the message, and that no line says `ready`."""
    assert result.code == code, result.lines
    assert all(word in result.message for word in words), result.message
    assert result.events("ready") == []


@pytest.mark.parametrize(
    ("kind", "options", "code", "words"),
    [
        ("xdp", [], 2, ["--attach {p}_xdp=INTERFACE"]),
        ("cgroup", [], 2, ["--attach {p}_cg=/PATH"]),
        ("xdp", ["{p}_nope=lo"], 2, ["{p}_nope", "no object has this program; use one of: {p}_xdp"]),
        ("xdp", ["other.bpf.o:{p}_xdp=lo"], 2, ["no object has this program"]),
        ("xdp", ["{p}_xdp={p}none"], 1, ["interface {p}none", "No such device"]),
        ("xdp", ["{p}_xdp=lo:ingress"], 2, ["lo:ingress: not a mode of XDP", ":driver and :generic"]),
        ("xdp", ["{p}_xdp=an-interface-name-too-long"], 2, ["not the name of an interface"]),
        ("tc", ["{p}_tc=lo"], 2, ["no direction", "use lo:ingress or lo:egress"]),
        ("tcx", ["{p}_tcx=lo:egress"], 2, ["the other direction; use lo"]),
        ("tcx", ["{p}_tcx=lo:sideways"], 2, ["lo:sideways: not a direction; use :ingress or :egress"]),
        ("cgroup", ["{p}_cg=relative"], 2, ["relative: not the absolute path of a cgroup"]),
        ("cgroup", ["{p}_cg=/nonexistent/cgroup"], 1, ["No such file or directory"]),
        (
            "cgroup",
            ["{p}_cg=/tmp"],
            1,
            ["{p}_cg: cannot attach to /tmp: Bad file", "not a cgroup of version 2"],
        ),
        ("raw_tp", ["{p}_raw=lo"], 2, ["lo: section raw_tp/sys_enter already names the target"]),
        ("nowhere", [], 2, ["no target", "--attach {p}_tp=CATEGORY/NAME", "{p}_tp=none"]),
        ("refused", [], 1, ["cannot load", "R1 invalid mem access 'scalar'"]),
    ],
)
def test_cannot_attach(
    lab: Lab, tmp_path: Path, kind: str, options: list[str], code: int, words: list[str]
) -> None:
    """Each failed attachment has its exit code and a message with the program and a remedy."""
    lab.put(tmp_path, kind)
    arguments = [f"--attach={option.format(p=PREFIX)}" for option in options]
    check_not_attached(lab.run(tmp_path, *arguments), code, *(word.format(p=PREFIX) for word in words))


def test_good_object_beside_one_the_kernel_refuses(lab: Lab, tmp_path: Path) -> None:
    """An object that the kernel refuses unloads the ones before it."""
    lab.put(tmp_path, "raw_tp", "refused")
    check_not_attached(lab.run(tmp_path), 1, "refused.bpf.o")


def test_attached_programs_go_when_a_later_one_fails(lab: Lab, tmp_path: Path) -> None:
    """A failed second attachment detaches the first one."""
    lab.put(tmp_path, "xdp")
    with veth() as (left, _):
        options = [f"--attach={PREFIX}_xdp={target}" for target in (left, "lo:driver")]
        result = lab.run(tmp_path, *options)
        shown = subprocess.run(["ip", "link", "show", left], capture_output=True, text=True, check=True)
    check_not_attached(
        result, 1, f"program {PREFIX}_xdp: cannot attach to lo:driver: Operation not supported"
    )
    assert len(result.events("detach")) == 1
    assert "xdp" not in shown.stdout.replace(f"{PREFIX}_xdp", "").split("mtu")[1]


def test_without_capabilities_the_kernel_refuses(lab: Lab, tmp_path: Path) -> None:
    """Without CAP_BPF a start is exit code 1 with the kernel's reason."""
    lab.put(tmp_path, "raw_tp")
    check_not_attached(lab.run(tmp_path, before=root_with()), 1, "Operation not permitted")


def test_a_struct_ops_map_without_its_section_is_an_error(lab: Lab, tmp_path: Path) -> None:
    """A struct_ops map in section .maps is an error; libbpf itself would crash on it."""
    lab.put(tmp_path, "lost_ops")
    result = lab.run(tmp_path)
    assert result.code == 1
    assert f"map {PREFIX}_lost: a struct_ops map outside of section .struct_ops" in result.message
