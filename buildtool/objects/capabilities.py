# SPDX-License-Identifier: Apache-2.0
"""
The Linux capabilities that programs require for loading and attaching, and their encoding in a file.

Source: Linux 6.1 to 6.18, kernel/bpf/syscall.c (is_net_admin_prog_type, is_perfmon_prog_type, map_create,
bpf_prog_attach_check_attach_type), helpers.c and bpf_trace.c (helpers that require a capability). A test
loads a program of each kind with these capabilities, and shows that each smaller set fails.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from buildtool.core.errors import UsageError
from buildtool.objects.helpers import helper_name
from buildtool.objects.types import program_type

# In the order of Linux include/uapi/linux/capability.h.
_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE"
    " NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT"
    " SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE"
    " AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ"
    " PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITY_NUMBERS = {name: number for number, name in enumerate(_NAMES.split())}

# Every program requires BPF: distributions set kernel.unprivileged_bpf_disabled.
_ALWAYS = "BPF"
_NET_ADMIN_TYPES = (
    "sched_cls sched_act xdp lwt_in lwt_out lwt_xmit lwt_seg6local sk_skb sk_msg flow_dissector cgroup_device"
    " cgroup_sock cgroup_sock_addr cgroup_sockopt cgroup_sysctl sock_ops ext netfilter"
    # cgroup_skb programs require NET_ADMIN for attaching only.
    " cgroup_skb"
)
_PERFMON_TYPES = (
    "kprobe tracepoint perf_event raw_tracepoint raw_tracepoint_writable tracing lsm struct_ops ext"
)
_NET_ADMIN_MAPS = "sockmap sockhash devmap devmap_hash xskmap"
# Helpers that read the memory or tasks of others require PERFMON in each program type.
_PERFMON_HELPERS = (
    "probe_read probe_read_str probe_read_user probe_read_user_str probe_read_kernel probe_read_kernel_str"
    " trace_printk trace_vprintk get_current_task get_current_task_btf snprintf snprintf_btf task_pt_regs"
    " sys_bpf"
)
_SYS_ADMIN_HELPERS = "probe_write_user"

# ebpf-pins loads no program, so it gets only the capabilities of a rollback. A rollback creates a map (BPF),
# and links of cgroup_skb programs (NET_ADMIN) and of tracepoints (PERFMON).
PINS_NAME = "ebpf-pins"
_PINS = frozenset(("BPF", "NET_ADMIN", "PERFMON"))

CAPABILITY_LABEL = "buildtool.capabilities"
FILE_ATTRIBUTE = "security.capability"
_REVISION_2 = 0x02000000


def find_capabilities(
    sections: Iterable[str], *, helpers: Iterable[int] = (), maps: Iterable[str] = ()
) -> tuple[str, ...]:
    """
    Return the sorted capabilities for programs of ELF *sections* with calls of *helpers* and types of *maps*.

    The kernel requires these by type. Arithmetic on packet pointers may require PERFMON as
    well, which only the kernel verifier can decide.
    """
    types = {program_type(section) for section in sections}
    called = {helper_name(number).removeprefix("bpf_") for number in helpers}
    needed = {_ALWAYS}
    if types & {*_NET_ADMIN_TYPES.split()} or {*maps} & {*_NET_ADMIN_MAPS.split()}:
        needed.add("NET_ADMIN")
    if types & {*_PERFMON_TYPES.split()} or called & {*_PERFMON_HELPERS.split()}:
        needed.add("PERFMON")
    if called & {*_SYS_ADMIN_HELPERS.split()}:
        needed.add("SYS_ADMIN")
    return tuple(sorted(needed))


def capabilities_of(mask: int) -> tuple[str, ...]:
    """Return the names of the capabilities of *mask*, sorted, without bits that have no name."""
    return tuple(sorted(name for name, number in CAPABILITY_NUMBERS.items() if mask >> number & 1))


def check_capability(text: str) -> str:
    """
    Return the name of capability *text* without CAP_: BPF for BPF, bpf or CAP_BPF.

    Raises: UsageError.
    """
    name = text.upper().removeprefix("CAP_")
    if name not in CAPABILITY_NUMBERS:
        raise UsageError(f"{text!r} is not a capability", hint="for example BPF or NET_ADMIN")
    return name


def label_capabilities(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sorted capabilities in an image's *labels*, or none if the label has another word."""
    names = labels.get(CAPABILITY_LABEL, "").split(",")
    return tuple(sorted(set(names))) if set(names) <= CAPABILITY_NUMBERS.keys() else ()


def run_options(capabilities: Iterable[str]) -> tuple[str, ...]:
    """Return the options of `docker run` that give a container exactly *capabilities*."""
    return "--cap-drop", "ALL", *(word for name in sorted(capabilities) for word in ("--cap-add", name))


def program_capabilities(name: str, capabilities: Iterable[str]) -> tuple[str, ...]:
    """Return those of an image's *capabilities* that the file of its static program *name* gets, sorted."""
    given = frozenset(capabilities)
    return tuple(sorted(given & _PINS if name == PINS_NAME else given))


def file_attribute(capabilities: Iterable[str]) -> bytes:
    """
    Return the value of a file's attribute `security.capability` that permits *capabilities*.

    The capabilities are permitted, not effective. In a container that has fewer, the kernel
    refuses to start a file with effective ones, and the loader could not name the missing ones.
    The loader raises its permitted capabilities to effective ones.
    """
    permitted = sum(1 << CAPABILITY_NUMBERS[name] for name in set(capabilities))
    words = (permitted & 0xFFFFFFFF, 0, permitted >> 32, 0)
    return struct.pack("<5I", _REVISION_2, *words)
