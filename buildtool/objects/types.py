# SPDX-License-Identifier: Apache-2.0
"""
libbpf's names of program types, by section, and of map types.

Sources: libbpf.c (section_defs, prog_type_name, map_type_name); Linux
include/uapi/linux/bpf.h (enum bpf_map_type). Tests read the sections from the libbpf of the loader and
from the newest one in packages.lock, and compare.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

UNKNOWN_PROGRAM = "unspec"

# A name that ends in + matches itself, and itself followed by / and any text, as in libbpf.
_SECTIONS_OF_TYPE = {
    "socket_filter": "socket",
    "sk_reuseport": "sk_reuseport/migrate sk_reuseport",
    "kprobe": (
        "kprobe+ kretprobe+ uprobe+ uprobe.s+ uretprobe+ uretprobe.s+ kprobe.multi+ kretprobe.multi+"
        " kprobe.session+ uprobe.multi+ uretprobe.multi+ uprobe.session+ uprobe.multi.s+ uretprobe.multi.s+"
        " uprobe.session.s+ ksyscall+ kretsyscall+ usdt+ usdt.s+"
    ),
    "sched_cls": ("tc/ingress tc/egress tcx/ingress tcx/egress tc classifier netkit/primary netkit/peer"),
    "sched_act": "action",
    "tracepoint": "tracepoint+ tp+",
    "raw_tracepoint": "raw_tracepoint+ raw_tp+",
    "raw_tracepoint_writable": "raw_tracepoint.w+ raw_tp.w+",
    "tracing": (
        "tp_btf+ fentry+ fmod_ret+ fexit+ fentry.s+ fmod_ret.s+ fexit.s+ fsession+ fsession.s+ iter+ iter.s+"
    ),
    "ext": "freplace+",
    "lsm": "lsm+ lsm.s+ lsm_cgroup+",
    "syscall": "syscall",
    "xdp": "xdp.frags/devmap xdp/devmap xdp.frags/cpumap xdp/cpumap xdp.frags xdp",
    "perf_event": "perf_event",
    "lwt_in": "lwt_in",
    "lwt_out": "lwt_out",
    "lwt_xmit": "lwt_xmit",
    "lwt_seg6local": "lwt_seg6local",
    "sock_ops": "sockops",
    "sk_skb": "sk_skb/stream_parser sk_skb/stream_verdict sk_skb/verdict sk_skb",
    "sk_msg": "sk_msg",
    "lirc_mode2": "lirc_mode2",
    "flow_dissector": "flow_dissector",
    "cgroup_skb": "cgroup_skb/ingress cgroup_skb/egress cgroup/skb",
    "cgroup_sock": ("cgroup/sock_create cgroup/sock_release cgroup/sock cgroup/post_bind4 cgroup/post_bind6"),
    "cgroup_sock_addr": (
        "cgroup/bind4 cgroup/bind6 cgroup/connect4 cgroup/connect6 cgroup/connect_unix cgroup/sendmsg4"
        " cgroup/sendmsg6 cgroup/sendmsg_unix cgroup/recvmsg4 cgroup/recvmsg6 cgroup/recvmsg_unix"
        " cgroup/getpeername4 cgroup/getpeername6 cgroup/getpeername_unix cgroup/getsockname4"
        " cgroup/getsockname6 cgroup/getsockname_unix"
    ),
    "cgroup_sysctl": "cgroup/sysctl",
    "cgroup_sockopt": "cgroup/getsockopt cgroup/setsockopt",
    "cgroup_device": "cgroup/dev",
    "struct_ops": "struct_ops+ struct_ops.s+",
    "sk_lookup": "sk_lookup",
    "netfilter": "netfilter",
}
SECTION_TYPES = {name: kind for kind, names in _SECTIONS_OF_TYPE.items() for name in names.split()}

# In the order of enum bpf_map_type.
_MAP_NAMES = (
    "unspec hash array prog_array perf_event_array percpu_hash percpu_array stack_trace cgroup_array"
    " lru_hash lru_percpu_hash lpm_trie array_of_maps hash_of_maps devmap sockmap cpumap xskmap sockhash"
    " cgroup_storage reuseport_sockarray percpu_cgroup_storage queue stack sk_storage devmap_hash"
    " struct_ops ringbuf inode_storage task_storage bloom_filter user_ringbuf cgrp_storage arena"
    " insn_array"
)
MAP_TYPES = tuple(_MAP_NAMES.split())


def program_type(section: str) -> str:
    """Return libbpf's type of a program in ELF *section*, or `unspec` if libbpf lacks the section."""
    return section_type(section.removeprefix("?"))  # libbpf does not load such a program by default


def section_type(name: str) -> str:
    """Return libbpf's type of section *name*, from which a `?` at its beginning has been removed."""
    if name in SECTION_TYPES and not name.endswith("+"):
        return SECTION_TYPES[name]
    head = name.partition("/")[0] + "+"
    return SECTION_TYPES.get(head, UNKNOWN_PROGRAM)


def declared_type(section: str) -> str | None:
    """Return the type that *section* declares, or None if no program can be declared so."""
    return None if section.endswith("+") else SECTION_TYPES.get(section)


class Declaration(NamedTuple):
    """
    Programs of ELF sections that match *section* are loaded as programs of section *loaded_as*.

    *section* is a name without the `?` of an optional program, or ends in `*`.
    """

    section: str
    loaded_as: str


def find_declaration(section: str, declared: Iterable[Declaration]) -> str:
    """
    Return the section name by which programs of ELF *section* are loaded, or nothing if its own decides.

    The first of *declared* that matches counts. libbpf's own sections are never declared to be others.
    """
    name = section.removeprefix("?")
    if section_type(name) != UNKNOWN_PROGRAM:
        return ""
    return next((found for pattern, found in declared if _matches(pattern, name)), "")


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def nearest_type(name: str) -> str:
    """Return the type of programs in section *name*, or in sections that begin with it; else nothing."""
    kind = program_type(name)
    if kind != UNKNOWN_PROGRAM:
        return kind
    return next((kind for section, kind in SECTION_TYPES.items() if section.startswith(f"{name}/")), "")


def map_type(number: int) -> str:
    """Return libbpf's name of map type *number*, or type_NUMBER if it is unknown."""
    return MAP_TYPES[number] if 0 <= number < len(MAP_TYPES) else f"type_{number}"
