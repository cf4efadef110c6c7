# SPDX-License-Identifier: Apache-2.0
"""
The first Linux release of each helper, map type and program type, and the helpers for GPL programs only.

Sources: the enumerations of helpers, map types and program types in include/uapi/linux/bpf.h of each
release. An enumeration only grows at its end, so the last number of each release is enough.
`gpl_only` of the kernel's helper prototypes: tests try each helper on this machine's kernel, and the
last one of Linux 6.1 on a 6.1.
"""

from __future__ import annotations

from bisect import bisect_left

from buildtool.core.errors import UsageError
from buildtool.objects.helpers import HELPER_NUMBERS

Release = tuple[int, int]

# The last helper of each release that added helpers.
_LAST_HELPERS: tuple[tuple[int, Release], ...] = (
    (3, (3, 19)),
    (11, (4, 1)),
    (16, (4, 2)),
    (22, (4, 3)),
    (25, (4, 4)),
    (26, (4, 5)),
    (30, (4, 6)),
    (36, (4, 8)),
    (41, (4, 9)),
    (44, (4, 10)),
    (45, (4, 11)),
    (47, (4, 12)),
    (50, (4, 13)),
    (53, (4, 14)),
    (57, (4, 15)),
    (59, (4, 16)),
    (64, (4, 17)),
    (80, (4, 18)),
    (83, (4, 19)),
    (90, (4, 20)),
    (92, (5, 0)),
    (98, (5, 1)),
    (108, (5, 2)),
    (110, (5, 3)),
    (116, (5, 5)),
    (118, (5, 6)),
    (124, (5, 7)),
    (135, (5, 8)),
    (141, (5, 9)),
    (155, (5, 10)),
    (162, (5, 11)),
    (163, (5, 12)),
    (165, (5, 13)),
    (168, (5, 14)),
    (175, (5, 15)),
    (179, (5, 16)),
    (185, (5, 17)),
    (193, (5, 18)),
    (203, (5, 19)),
    (207, (6, 0)),
    (209, (6, 1)),
    (211, (6, 2)),
)
_LAST_NUMBERS = [number for number, _ in _LAST_HELPERS]

# Types that are newer than Linux 4.4, the oldest release that a project may name.
_MAPS: dict[str, Release] = {
    "percpu_hash": (4, 6),
    "percpu_array": (4, 6),
    "stack_trace": (4, 6),
    "cgroup_array": (4, 8),
    "lru_hash": (4, 10),
    "lru_percpu_hash": (4, 10),
    "lpm_trie": (4, 11),
    "array_of_maps": (4, 12),
    "hash_of_maps": (4, 12),
    "devmap": (4, 14),
    "sockmap": (4, 14),
    "cpumap": (4, 15),
    "xskmap": (4, 18),
    "sockhash": (4, 18),
    "cgroup_storage": (4, 19),
    "reuseport_sockarray": (4, 19),
    "percpu_cgroup_storage": (4, 20),
    "queue": (4, 20),
    "stack": (4, 20),
    "sk_storage": (5, 2),
    "devmap_hash": (5, 4),
    "struct_ops": (5, 6),
    "ringbuf": (5, 8),
    "inode_storage": (5, 10),
    "task_storage": (5, 11),
    "bloom_filter": (5, 16),
    "user_ringbuf": (6, 1),
    "cgrp_storage": (6, 2),
    "arena": (6, 9),
}
# Sections of attach types that are newer than their program types. The kernel checks the attach type at load.
_SECTIONS: dict[str, Release] = {
    "kprobe.multi": (5, 18),
    "kretprobe.multi": (5, 18),
    "kprobe.session": (6, 10),
    "uprobe.multi": (6, 6),
    "uretprobe.multi": (6, 6),
    "uprobe.multi.s": (6, 6),
    "uretprobe.multi.s": (6, 6),
    "usdt": (6, 6),  # to be attached by one link, as the loader needs it
    "usdt.s": (6, 6),
    "uprobe.session": (6, 13),
    "uprobe.session.s": (6, 13),
    "fsession": (7, 0),
    "fsession.s": (7, 0),
    "xdp.frags": (5, 18),
    "lsm_cgroup": (6, 0),
    "iter": (5, 8),
}
_PROGRAMS: dict[str, Release] = {
    "tracepoint": (4, 7),
    "xdp": (4, 8),
    "perf_event": (4, 9),
    "cgroup_skb": (4, 10),
    "cgroup_sock": (4, 10),
    "lwt_in": (4, 10),
    "lwt_out": (4, 10),
    "lwt_xmit": (4, 10),
    "sock_ops": (4, 13),
    "sk_skb": (4, 14),
    "cgroup_device": (4, 15),
    "sk_msg": (4, 17),
    "raw_tracepoint": (4, 17),
    "cgroup_sock_addr": (4, 17),
    "lwt_seg6local": (4, 18),
    "lirc_mode2": (4, 18),
    "sk_reuseport": (4, 19),
    "flow_dissector": (4, 20),
    "cgroup_sysctl": (5, 2),
    "raw_tracepoint_writable": (5, 2),
    "cgroup_sockopt": (5, 3),
    "tracing": (5, 5),
    "struct_ops": (5, 6),
    "ext": (5, 6),
    "lsm": (5, 7),
    "sk_lookup": (5, 9),
    "syscall": (5, 14),
    "netfilter": (6, 4),
}

_GPL_NAMES = (
    "probe_read trace_printk perf_event_read perf_event_output get_stackid get_current_task probe_write_user"
    " probe_read_str perf_event_read_value perf_prog_read_value override_return get_stack fib_lookup"
    " rc_repeat rc_keydown rc_pointer_rel tcp_check_syncookie tcp_gen_syncookie skb_output probe_read_user"
    " probe_read_kernel probe_read_user_str probe_read_kernel_str read_branch_records xdp_output seq_printf"
    " seq_write seq_printf_btf get_current_task_btf check_mtu snprintf timer_init timer_set_callback"
    " timer_start timer_cancel get_func_ip task_pt_regs get_branch_snapshot trace_vprintk copy_from_user_task"
    " tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4"
    " tcp_raw_check_syncookie_ipv6"
)
GPL_HELPERS = frozenset(HELPER_NUMBERS[f"bpf_{name}"] for name in _GPL_NAMES.split())
# Linux include/linux/license.h.
GPL_LICENSES = frozenset(
    ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")
)
# The kernel loads programs of these types only with a GPL-compatible license.
GPL_PROGRAMS = frozenset(("lsm", "struct_ops"))


def helper_since(number: int) -> Release | None:
    """Return the first release with helper *number*, or None if the table lacks it."""
    at = bisect_left(_LAST_NUMBERS, number)
    return _LAST_HELPERS[at][1] if at < len(_LAST_HELPERS) else None


def map_since(kind: str) -> Release | None:
    """Return the first release with maps of type *kind*, or None if it is not newer than Linux 4.4."""
    return _MAPS.get(kind)


def map_section_since(section: str) -> Release | None:
    """Return the first release with links for struct_ops maps of *section*, or None for other sections."""
    return (6, 4) if section.endswith(".link") else None


def program_since(kind: str, section: str) -> Release | None:
    """Return the first release with programs of *kind* in ELF *section*, or None up to Linux 4.4."""
    head = section.removeprefix("?").partition("/")[0]
    return _SECTIONS.get(head) or _PROGRAMS.get(kind)


def parse_release(text: str) -> Release | None:
    """Return major and minor of *text* (6.1, 6.12.48-amd64), or None if *text* is no release."""
    major, _, rest = text.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def check_kernel_release(text: str) -> Release:
    """
    Return major and minor of the Linux release *text* (5.15).

    Raises: UsageError.
    """
    release = parse_release(text)
    if release is None:
        raise UsageError(f"{text!r}: not a Linux release", hint="for example 5.15")
    return release
