# SPDX-License-Identifier: Apache-2.0
"""The `docker run` command that build and inspect print: targets, mounts, users and platforms."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildtool.config.file import load_config
from buildtool.deploy.plan import LoadedProgram, RunPlan, host_name, note_platforms, plan_run, wanted_target
from buildtool.image.metadata import Entrypoint, parse_entrypoint
from buildtool.image.scan import scan_programs

ENTRYPOINT = ("/sbin/tini", "-g", "--", "/usr/bin/verify-and-load")
USER = "65532:65532"


def plan(
    *sections: str, options: tuple[str, ...] = (), capabilities: str = "BPF", user: str = USER
) -> RunPlan:
    """Return the plan for programs p0, p1, … of *sections*."""
    programs = [LoadedProgram(name=f"p{at}", section=text) for at, text in enumerate(sections)]
    return plan_run(
        name="agent",
        entrypoint=parse_entrypoint([*ENTRYPOINT, *options]),
        programs=programs,
        capabilities=capabilities.split(),
        user=user,
    )


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("xdp", "INTERFACE"),
        ("xdp.frags/devmap", None),
        ("?xdp", None),
        ("tcx/egress", "INTERFACE"),
        ("tc", "INTERFACE:ingress"),
        ("cgroup/connect4", "/PATH/OF/CGROUP"),
        ("lsm_cgroup/socket_create", "/PATH/OF/CGROUP"),
        ("sk_lookup", None),
        ("sk_msg", None),
        ("tracepoint/sched/sched_switch", None),
        ("tp", "CATEGORY/NAME"),
        ("raw_tp", "NAME"),
        ("fentry", "FUNCTION"),
        ("lsm/file_open", None),
        ("kprobe", "FUNCTION"),
        ("uprobe", "/PATH:SYMBOL"),
        ("uprobe//bin/x:f", None),
        ("usdt", "/PATH:PROVIDER:NAME"),
        ("usdt//bin/x:p:n", None),
        ("perf_event", "cpu-clock:FREQUENCY"),
        ("netfilter", "ipv4:HOOK:PRIORITY"),
        ("socket", "none"),
        ("syscall", None),
        ("struct_ops/init", None),
        ("iter/task", None),
    ],
)
def test_sections_that_name_no_target(section: str, target: str | None) -> None:
    """As the table in docs/reference/loader.md says."""
    assert wanted_target(section) == target


def test_programs_without_a_target_get_a_placeholder() -> None:
    """A note names the placeholders. A target of the image, of the file or of the statement is one."""
    bare = plan("xdp", "socket", "fentry/f")
    assert bare.arguments == ["--attach", "p0=INTERFACE", "--attach", "p1=none"]
    assert bare.command("agent:1").endswith("agent:1 --attach p0=INTERFACE --attach p1=none")
    (note,) = bare.notes
    assert note.startswith("replace INTERFACE by a target, or by none to load only")
    assert plan("xdp", options=("--image-attach", "p0=eth0")).arguments == []
    assert plan("xdp", options=("--image-attach", "x.bpf.o:p0=eth0")).arguments == [
        "--attach",
        "p0=INTERFACE",
    ]
    assert plan("xdp", options=("--", "agent", "--image-attach", "p0=eth0")).arguments != []
    twice = [LoadedProgram(name="p", section="xdp", owner=owner) for owner in ("a.bpf.o", "b.bpf.o")]
    two = plan_run(name="a", entrypoint=Entrypoint(attach=("a.bpf.o:p=eth0",)), programs=twice,
        capabilities=(), user=USER)  # fmt: skip
    assert two.arguments == ["--attach", "b.bpf.o:p=INTERFACE"]
    signed = [LoadedProgram(name="p", section="xdp", has_target=True)]
    assert not plan_run(
        name="a", entrypoint=Entrypoint(), programs=signed, capabilities=(), user=USER
    ).arguments


def test_tracepoints_need_tracefs() -> None:
    """Tracefs belongs to root, so the container's user is root, unless it may read everything."""
    found = plan("tp/sched/sched_switch")
    assert found.options[-4:] == ["--user", "0:0", "-v", "/sys/kernel/tracing:/sys/kernel/tracing:ro"]
    assert found.before == [
        "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing"
    ]
    assert "p0 reads tracefs" in found.notes[0]
    for free in (plan("tp/a/b", capabilities="BPF DAC_READ_SEARCH"), plan("tp/a/b", user="0:0")):
        assert "--user" not in free.options
        assert not free.notes
    assert "-v" not in plan("raw_tp/sys_enter", "tp_btf/sched_switch", "kprobe/f").options


def test_places_of_the_loader_are_mounted_for_the_user_of_the_container() -> None:
    """Each place is a directory of the host that is made first."""
    found = plan(options=("--pin-root", "/run/pins", "--state", "/state", "--metrics-file", "/m/x.prom"))
    assert found.options[-6:] == [
        *("-v", "/sys/fs/bpf/agent:/run/pins"),
        *("-v", "/var/lib/agent:/state"),
        *("-v", "/var/lib/node_exporter/textfile:/m"),
    ]
    assert found.before == [
        "mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf",
        "install -d -m 0700 -o 65532 -g 65532 /sys/fs/bpf/agent",
        "install -d -m 0700 -o 65532 -g 65532 /var/lib/agent",
        "install -d -o 65532 -g 65532 /var/lib/node_exporter/textfile",
    ]
    as_root = plan("tp/a/b", options=("--share", "/run/shared"))
    assert as_root.before[-1] == "install -d -m 0700 -o 0 -g 0 /sys/fs/bpf/agent"
    given = plan("xdp", options=("--attach-file", "/attach"))
    assert given.options[-2:] == ["-v", "/etc/agent/attach:/attach:ro"]
    assert (given.arguments, len(given.notes)) == ([], 1)
    with_types = plan("xdp", options=("--btf", "/btf"))
    assert with_types.options[-2:] == ["-v", "/etc/agent/btf:/btf:ro"]
    assert with_types.before == ["install -d /etc/agent/btf"]
    assert "a kernel without BTF needs RELEASE.btf.o in /etc/agent/btf" in with_types.notes


def test_files_of_probes_are_mounted() -> None:
    """The path in a section is that in the container."""
    library = "/usr/lib/libssl.so.3"
    sections = (f"uprobe/{library}:SSL_write", f"uretprobe.multi/{library}:SSL*", "usdt.s//bin/agent:p:n")
    options = plan(*sections).options
    assert options[-4:] == ["-v", "/bin/agent:/bin/agent:ro", "-v", f"{library}:{library}:ro"]


def test_an_image_of_another_platform_has_a_note() -> None:
    """The command itself is right on a machine of that platform."""
    assert not list(note_platforms(["linux/arm64", "linux/amd64"], "linux/amd64"))
    (note,) = note_platforms(["linux/arm64"], "linux/amd64")
    assert note == "the image is for linux/arm64: run it there, because this machine is linux/amd64"


@pytest.mark.parametrize("reference", ["agent", "agent:7", "r.example:5000/plant/agent:7@sha256:00"])
def test_directories_of_the_host_are_called_after_the_image(reference: str) -> None:
    """Neither registry nor tag is part of the name."""
    assert host_name(reference) == "agent"


def test_programs_are_found_in_sources(tmp_path: Path) -> None:
    """Functions after a section, and libbpf's macros; neither maps nor licences."""
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf/x.bpf.c").write_text(
        """
        struct { int a; } map SEC(".maps");
        SEC("xdp")
        static __attribute__((noinline)) int first(struct xdp_md *c) { return 0; }
        SEC("lsm/file_open") int BPF_PROG(second, struct file *file) { return helper(file); }
        __attribute__((section("tc"), used)) int third(void *c);
        // SEC("tc") int comment(void *c);
        SEC("kprobe/" "do_exit") __attribute__((noinline)) int fourth(void *c) { return 0; }
        const volatile int x SEC(".rodata.x") = f(1);
        char LICENSE[] SEC("license") = "GPL";
        int helper(void) { return 0; }
        """
    )
    found = scan_programs(load_config(tmp_path / "buildtool.toml"), ["bpf/x.bpf.c"])
    assert found == [
        ("first", "xdp"),
        ("second", "lsm/file_open"),
        ("third", "tc"),
        ("fourth", "kprobe/do_exit"),
    ]


@pytest.mark.parametrize(
    "path", ["//", "/bin/../etc/shadow", "/bin//sh", "/proc/1/mem", "/run/engine.sock", "/dev/sda", "/sys/x"]
)
def test_probe_in_what_is_no_program(path: str) -> None:
    """An image must not choose a device, a socket or the root of the host."""
    found = plan(f"uprobe/{path}:f")
    assert not found.mounts
    assert "no program or library is at" in found.faults[0]


def test_probed_file_is_named() -> None:
    """Whoever starts the image sees which files of the host its container reads."""
    found = plan("uprobe//etc/shadow:f", "usdt//bin/x:p:n")
    assert [mount.source for mount in found.mounts] == ["/bin/x", "/etc/shadow"]
    assert [note for note in found.notes if "/etc/shadow of the host" in note]
    assert not found.faults
