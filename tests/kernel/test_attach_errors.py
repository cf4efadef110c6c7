# SPDX-License-Identifier: Apache-2.0
"""
Error lines for an attachment that the kernel refuses: program, target, the kernel's reason, a hint.

The same lines explain a program that the kernel refuses because a capability is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import labs.attach  # noqa: F401 - adds its objects
import pytest
from labs import kernel
from labs.loader import PREFIX, SOURCES, Lab, Result, parse
from labs.net import veth
from labs.privileges import AS_USER, root_with
from labs.run import run, wait_until

from buildtool.objects.capabilities import CAPABILITY_NUMBERS

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

KPROBES = Path("/sys/bus/event_source/devices/kprobe")
XDP, PROGRAM = f"{PREFIX}_xdp", f"{PREFIX}_prog"
# Without CAP_PERFMON the kernel refuses a pointer whose bounds it would have to mask against speculation.
SOURCES["options"] = """
SEC("xdp") int @_xdp(struct xdp_md *c)
{
    char *data = (void *)(long)c->data, *end = (void *)(long)c->data_end;
    int size;
    if (data + 64 > end)
        return XDP_PASS;
    size = (data[14] & 15) * 4;
    if (size < 20)
        return XDP_DROP;
    data = size & 8 ? data + size : data - size;
    return data + 80 > end ? XDP_DROP : XDP_PASS;
}
"""
SOURCES["leaking"] = """
SEC("socket") int @_prog(struct __sk_buff *c)
{
    __u32 key = 0;
    __u64 *value = bpf_map_lookup_elem(&@_map, &key);
    if (value)
        *value = (__u64)c;
    return 0;
}
"""
# The padding of the value stays uninitialized on the stack, which CAP_PERFMON allows since Linux 6.3.
SOURCES["padded"] = """
SEC("socket") int @_prog(struct __sk_buff *c)
{
    __u32 key = 0;
    struct { char a; int b; } value;
    value.a = 1;
    value.b = 2;
    bpf_map_update_elem(&@_map, &key, &value, 0);
    return 0;
}
"""
SOURCES["printing"] = (
    'SEC("socket") int @_prog(void *c) { char t[] = "x"; bpf_trace_printk(t, 2); return 0; }'
)


@contextmanager
def pair(*options: str, mtu: int = 1500) -> Iterator[str]:
    """Make a veth pair and yield the name of one end; the other end has *options*."""
    left, right = f"{PREFIX}ma", f"{PREFIX}mb"
    run("ip", "link", "add", left, "type", "veth", "peer", "name", right, *options)
    try:
        for name in (left, right):
            run("ip", "link", "set", name, "mtu", str(mtu))
        yield left
    finally:
        subprocess.run(["ip", "link", "del", left], check=True)


def check(result: Result, *words: str) -> None:
    """Check that the run failed with one line that has all *words*, and attached nothing."""
    assert result.code == 1, result.lines
    assert all(word in result.message for word in words), result.message
    assert len(result.message) < 500, result.message
    assert result.events("ready") == []


def test_mtu_too_large_for_xdp(lab: Lab, tmp_path: Path) -> None:
    """The line for a driver's ERANGE names program, interface and MTU, and the mode that works."""
    lab.put(tmp_path, "xdp")
    with pair(mtu=9000) as left:
        for target in (left, f"{left}:driver"):
            check(
                lab.run(tmp_path, f"--attach={XDP}={target}"),
                f"xdp.bpf.o: program {XDP}: cannot attach to {target}: Numerical result out of range: ",
                "the MTU (of a veth: its peer's) is too large for XDP in the driver",
                f"; use {left}:generic, or ip link set NAME mtu 1500",
            )
        with lab.started(tmp_path, f"--attach={XDP}={left}:generic") as (_, stop):
            assert stop().code == 0
        run("ip", "link", "set", f"{PREFIX}mb", "mtu", "1500")
        with lab.started(tmp_path, f"--attach={XDP}={left}") as (_, stop):
            assert stop().code == 0


def test_interface_of_a_pattern_is_named(lab: Lab, tmp_path: Path) -> None:
    """The line names the interface that refused, not only the pattern that matched it."""
    lab.put(tmp_path, "xdp")
    with pair(mtu=9000) as left:
        result = lab.run(tmp_path, f"--attach={XDP}={PREFIX}m?")
        check(result, f"program {XDP}: cannot attach to {left} ({PREFIX}m?): Numerical result out of range")


def test_too_few_queues_for_xdp(lab: Lab, tmp_path: Path) -> None:
    """The line for ENOSPC names the missing receive queues: the veth's peer has more send queues."""
    lab.put(tmp_path, "xdp")
    with pair("numtxqueues", "4") as left:
        run("ethtool", "-L", f"{PREFIX}mb", "tx", "4")
        check(
            lab.run(tmp_path, f"--attach={XDP}={left}"),
            f"cannot attach to {left}: No space left on device: the interface has fewer receive queues",
            f"use {left}:generic",
        )


def test_device_above_has_xdp(lab: Lab, tmp_path: Path) -> None:
    """EEXIST on an interface without a program: the line names the program on the bridge above."""
    lab.put(tmp_path, "xdp")
    bridge = f"{PREFIX}br"
    with pair() as left:
        run("ip", "link", "add", bridge, "type", "bridge")
        try:
            run("ip", "link", "set", left, "master", bridge)
            with lab.started(tmp_path, f"--attach={XDP}={bridge}:generic") as (_, stop):
                result = lab.run(tmp_path, f"--attach={XDP}={left}:generic")
                assert stop().code == 0
        finally:
            run("ip", "link", "del", bridge)
    check(result, f"cannot attach to {left}:generic: File exists: ", "on a device above", "bpftool net")


def test_cgroup_under_one_that_allows_no_other(lab: Lab, tmp_path: Path) -> None:
    """The line for EPERM names the program of the parent cgroup, and no missing capability."""
    lab.put(tmp_path, "sock_create")
    foreign = tmp_path / "foreign.o"
    foreign.write_bytes(lab.object("sock_create"))
    with kernel.cgroup2() as group, kernel.loaded(foreign) as pins:
        run("bpftool", "cgroup", "attach", group, "cgroup_inet_sock_create", "pinned", pins.program(PROGRAM))
        below = group / "below"
        below.mkdir()
        try:
            result = lab.run(tmp_path, f"--attach={PROGRAM}={below}")
        finally:
            below.rmdir()
            run(
                "bpftool",
                "cgroup",
                "detach",
                group,
                "cgroup_inet_sock_create",
                "pinned",
                pins.program(PROGRAM),
            )
    check(result, f"cannot attach to {below}: Operation not permitted: ", "bpftool cgroup tree")
    assert "missing" not in result.message


@pytest.mark.parametrize(
    ("kind", "target", "words"),
    [
        ("netfilter", "ipv4:input:-2147483648", ["Numerical result out of range", "reserves this priority"]),
        ("sk_lookup", "/etc/hostname", ["Invalid argument: not a network namespace", "/run/netns/NAME"]),
        ("sock_create", "/tmp", ["Bad file descriptor: not a cgroup of version 2", "findmnt -t cgroup2"]),
        ("perf", "1:99999:1", ["no such event", "use cpu-clock:99"]),
        ("raw_tp_bare", "none", None),
        ("raw_tp_bare", "no_such", ["No such file or directory: this kernel has no such tracepoint"]),
        ("uprobe_bare", "/none:main", ["no such file, or it has no such function", "container"]),
        ("uprobe_bare", "/bin/true:no_such", ["no such file, or it has no such function"]),
    ],
)
def test_reason_and_hint(lab: Lab, tmp_path: Path, kind: str, target: str, words: list[str] | None) -> None:
    """Each line names program and target, and gives the kernel's reason, the cause and a hint."""
    lab.put(tmp_path, kind)
    option = f"--attach={PROGRAM}={target}"
    if words is None:
        with lab.started(tmp_path, option) as (_, stop):
            assert stop().code == 0
        return
    result = lab.run(tmp_path, option)
    check(result, f"{kind}.bpf.o: program {PROGRAM}: cannot attach to {target}", *words)
    assert "; " in result.message


@pytest.mark.skipif(KPROBES.exists(), reason="needs-kernel-feature: a kernel without kprobes")
def test_kernel_without_kprobes(lab: Lab, tmp_path: Path) -> None:
    """The line names missing kprobes as the reason, whichever error number the kernel returns."""
    lab.put(tmp_path, "kprobe_bare")
    result = lab.run(tmp_path, f"--attach={PROGRAM}=vfs_read")
    check(
        result, f"program {PROGRAM}: cannot attach to vfs_read: ", "this kernel has no kprobes", "use fentry"
    )


@pytest.mark.parametrize(
    ("kind", "name", "words", "helpers"),
    [
        ("options", XDP, "prohibited for !root", []),
        ("leaking", PROGRAM, "leaks addr", []),
        ("padded", PROGRAM, "read from stack", []),
        ("printing", PROGRAM, "bpf_trace_printk#6", [6]),
    ],
    # Names of programs contain the process id. Fixed ids let parallel test processes collect the same tests.
    ids=["options", "leaking", "padded", "printing"],
)
def test_missing_capability_is_named(
    lab: Lab, tmp_path: Path, kind: str, name: str, words: str, helpers: list[int]
) -> None:
    """The line names CAP_PERFMON and the option that adds it; with the capability the program loads."""
    lab.put(tmp_path, kind, helpers=helpers)
    options = (f"--attach={name}=none", "--capabilities=NET_ADMIN,PERFMON", "--", "true")
    result = lab.run(tmp_path, *options, before=root_with("bpf", "net_admin"))
    check(result, f"{kind}.bpf.o: cannot load: program {name}: ", words)
    wanted = "; missing CAP_PERFMON: the container lacks it; start it with --cap-add PERFMON"
    assert result.message.endswith(wanted), result.message
    done = lab.run(tmp_path, *options, before=root_with("bpf", "net_admin", "perfmon"))
    assert done.code == 0, done.lines


@pytest.mark.parametrize("kind", ["scalar", "helper"])
def test_other_objections_name_no_capability(lab: Lab, tmp_path: Path, kind: str) -> None:
    """The line names no capability when no capability would make the program valid."""
    lab.put(tmp_path, kind)
    for held in (["bpf", "perfmon"], ["bpf", "perfmon", "sys_admin"]):
        result = lab.run(tmp_path, before=root_with(*held))
        check(result, f"{kind}.bpf.o: cannot load: program {PROGRAM}: ")
        assert "CAP_" not in result.message


def test_bpf_without_capability(lab: Lab, tmp_path: Path) -> None:
    """The line for EPERM of bpf(2) names CAP_BPF and the other needed capabilities in one command."""
    lab.put(tmp_path, "xdp", programs=[{"name": XDP, "section": "xdp", "type": "xdp"}])
    options = (f"--attach={XDP}=none", "--", "true")
    result = lab.run(tmp_path, *options, before=root_with())
    check(result, "xdp.bpf.o: cannot load: Operation not permitted; missing CAP_NET_ADMIN CAP_BPF: ")
    assert result.message.endswith("start it with --cap-add NET_ADMIN --cap-add BPF")


WITHOUT_BTF = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf; exec "$@"', "sh"]


@pytest.mark.parametrize(
    ("kind", "before", "words"),
    [
        ("tp_btf", WITHOUT_BTF, "cannot load: this kernel has no BTF (CONFIG_DEBUG_INFO_BTF); use kprobe"),
        ("fentry_lost", [], "cannot load: this kernel has no such function or hook; bpftool btf dump file"),
    ],
)
def test_advice_comes_before_the_words_of_libbpf(
    lab: Lab, tmp_path: Path, kind: str, before: list[str], words: str
) -> None:
    """Libbpf names an error by its number, -3: the line begins with the cause and has a command or a type."""
    lab.put(tmp_path, kind)
    result = lab.run(tmp_path, before=before)
    check(result, f"{kind}.bpf.o: {words}", "(libbpf: ")


def test_capabilities_of_a_user_namespace(lab: Lab, tmp_path: Path) -> None:
    """The line names the user namespace: bpf(2) ignores the capabilities of a rootless container."""
    lab.put(tmp_path, "raw_tp")
    result = lab.run(tmp_path, before=["unshare", "--user", "--map-root-user"])
    check(
        result, "raw_tp.bpf.o: cannot load: Operation not permitted", "user namespace (a rootless container)"
    )


NOBODY = [*AS_USER, "--inh-caps=-all"]


@pytest.mark.parametrize(
    ("capabilities", "before", "remedy"),
    [
        (None, NOBODY, "this user does not have it; run as root"),
        ("cap_bpf", NOBODY, "the loader's file does not have it; add it to image.capabilities"),
        (
            "cap_bpf,cap_perfmon",
            [*NOBODY, "setpriv", "--no-new-privs"],
            "no_new_privs disables those of the loader's file",
        ),
        ("cap_bpf,cap_perfmon", NOBODY, None),
    ],
    ids=["user", "file", "no_new_privs", "enough"],
)
def test_remedy_names_who_can_give_it(
    lab: Lab, tmp_path: Path, capabilities: str | None, before: list[str], remedy: str | None
) -> None:
    """The hint names the one that lacks the capability: the container, the loader's file or the user."""
    program = {"name": f"{PREFIX}_raw", "section": "raw_tp/sys_enter", "type": "raw_tracepoint"}
    lab.put(tmp_path, "raw_tp", programs=[program])
    loader = tmp_path / "verify-and-load"
    shutil.copy(lab.loader, loader)
    if capabilities:
        run("setcap", f"{capabilities}=p", loader)
    allowed = f"--capabilities={','.join(CAPABILITY_NUMBERS)}"
    argv = [*before, loader, *lab.argv(tmp_path, allowed, "--", "true")[1:]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if remedy is None:
        assert done.returncode == 0, done.stderr
        return
    check(
        Result(done.returncode, parse(done.stderr), ""), "Operation not permitted", "; missing CAP_", remedy
    )


@pytest.mark.parametrize("mode", ["", ":generic"], ids=["driver", "generic"])
def test_interface_that_goes_before_the_link_is_made(lab: Lab, tmp_path: Path, mode: str) -> None:
    """The kernel says EINVAL, as for a kernel or a driver without XDP: the line names the interface."""
    lab.put(tmp_path, "xdp")
    # Slow calls of bpf(2), so that the interface goes between the load and the link.
    slow = ["strace", "-o", "/dev/null", "-e", "inject=bpf:delay_enter=300000"]
    log = tmp_path / "stderr"
    with veth() as (left, _), log.open("w") as stream:
        argv = [*slow, *lab.argv(tmp_path, f"--attach={XDP}={left}{mode}")]
        process = subprocess.Popen(argv, stderr=stream)
        try:
            assert wait_until(lambda: '"event":"load"' in log.read_text())
            run("ip", "link", "del", left)
            assert process.wait(timeout=30) == 1
        finally:
            process.kill()
            process.wait()
        run("ip", "link", "add", left, "type", "veth")
    [error] = [line for line in parse(log.read_text()) if line["event"] == "error"]
    assert "Invalid argument: the interface no longer exists; ip link lists" in error["message"]
