# SPDX-License-Identifier: Apache-2.0
"""
A counting program of each type that the loader attaches.

Importing this module adds the sources to SOURCES of `labs.loader`.
"""

from __future__ import annotations

import os

from buildtool.core.platforms import host_platform
from labs.loader import SOURCES

_SOCKMAP = (
    "struct { __uint(type, BPF_MAP_TYPE_SOCKMAP); __uint(max_entries, 4); __type(key, __u32);"
    ' __type(value, __u64); } @_socks SEC(".maps"); '
)
_SOCKHASH = (
    "struct { __uint(type, BPF_MAP_TYPE_SOCKHASH); __uint(max_entries, 4); __type(key, __u32);"
    ' __type(value, __u64); } @_other SEC(".maps"); '
)


def _one(section: str, result: int = 0) -> str:
    return f'SEC("{section}") int @_prog(void *c) {{ count(); return {result}; }}'


# A struct_ops map: congestion control with all functions that the kernel requires.
_STRUCT_OPS = """
struct sock; struct tcp_sock;
struct tcp_congestion_ops {
    __u32 (*ssthresh)(struct sock *);
    __u32 (*undo_cwnd)(struct sock *);
    void (*cong_avoid)(struct sock *, __u32, __u32);
    char name[16];
} __attribute__((preserve_access_index));
SEC("struct_ops/ssthresh") __u32 @_ssthresh(__u64 *c) { count(); return 2; }
SEC("struct_ops/undo_cwnd") __u32 @_undo(__u64 *c) { return 2; }
SEC("struct_ops/cong_avoid") void @_avoid(__u64 *c) { count(); }
SEC("SECTION") struct tcp_congestion_ops @_ops = {
    .ssthresh = (void *)@_ssthresh, .undo_cwnd = (void *)@_undo, .cong_avoid = (void *)@_avoid,
    .name = "@" };
"""

# libbpf's maps of probes, which the header defines.
_HOST = host_platform(os.uname().machine)
assert _HOST is not None
_USDT = f"""
#define {_HOST.target_define}
#include <{_HOST.triple}/asm/ptrace.h>
typedef _Bool bool;
#define true 1
#define false 0
#include <bpf/usdt.bpf.h>
"""

SOURCES |= {
    "sock_create": _one("cgroup/sock_create", 1),
    "connect4": _one("cgroup/connect4", 1),
    "setsockopt": _one("cgroup/setsockopt", 1),
    "sysctl": _one("cgroup/sysctl", 1),
    "device": _one("cgroup/dev", 1),
    "sockops": _one("sockops", 1),
    "sk_msg": _SOCKMAP + _one("sk_msg", 1),
    "sk_msg_two": _SOCKMAP + _SOCKHASH + _one("sk_msg", 1),
    "sk_msg_none": _one("sk_msg", 1),
    "sk_skb": _SOCKMAP + _one("sk_skb/stream_verdict", 1),
    "sk_skb_bare": _SOCKMAP + _one("sk_skb", 1),
    "sk_lookup": _one("sk_lookup", 1),
    "dissector": _one("flow_dissector", 129),
    "tracepoint": _one("tracepoint/syscalls/sys_enter_getpgid"),
    "tracepoint_bare": _one("tracepoint"),
    "raw_tp_bare": _one("raw_tp"),
    "tp_btf": _one("tp_btf/sys_enter"),
    "tp_btf_bare": _one("tp_btf"),
    "fentry": _one("fentry/security_file_open"),
    "fentry_bare": _one("fentry"),
    "fentry_lost": _one("fentry/no_such_function"),
    "fexit": _one("fexit/security_file_open"),
    "lsm": _one("lsm/file_open"),
    "kprobe": _one("kprobe/security_file_open"),
    "kprobe_bare": _one("kprobe"),
    "kretprobe_bare": _one("kretprobe"),
    "kprobe_multi": _one("kprobe.multi/security_file_open"),
    "ksyscall": _one("ksyscall/unlink"),
    "uprobe": _one("uprobe//vmtest/attach_guest:victim_work"),
    "uprobe_bare": _one("uprobe"),
    "uretprobe_bare": _one("uretprobe"),
    "uprobe_multi": _one("uprobe.multi"),
    "fmod_ret": _one("fmod_ret/security_file_open"),
    "lsm_cgroup": _one("lsm_cgroup/socket_post_create", 1),
    "netkit": _one("netkit/primary", -1),
    "freplace": 'SEC("freplace/@_stub") int @_prog(int number) { count(); return 0; }',
    "freplace_lost": 'SEC("freplace/@_lost") int @_prog(int number) { count(); return 0; }',
    "freplace_bare": 'SEC("freplace") int @_prog(int number) { count(); return number; }',
    # The target of freplace, which counts nothing itself.
    "replaceable": "__attribute__((noinline)) int @_stub(int number) { volatile int r = number; return r; }"
    ' SEC("raw_tp/sys_enter") int @_disp(__u64 *c) { return @_stub(bpf_get_smp_processor_id()); }',
    "fsession": _one("fsession/security_file_open"),
    "fsession_bare": _one("fsession"),
    "uprobe_session": _one("uprobe.session//vmtest/attach_guest:victim_work"),
    "uprobe_session_bare": _one("uprobe.session"),
    "kprobe_session_bare": _one("kprobe.session"),
    "perf": _one("perf_event"),
    "netfilter": _one("netfilter", 1),
    "iterator": 'SEC("iter/bpf_map") int @_prog(void *c) { count(); return 0; }',
    "map_iterator": "struct bpf_iter__bpf_map_elem { void *meta; };"
    ' SEC("iter/bpf_map_elem") int @_prog(void *c) { return 0; }',
    "struct_ops": _STRUCT_OPS.replace("SECTION", ".struct_ops.link"),
    "struct_ops_left": _STRUCT_OPS.replace("SECTION", ".struct_ops"),
    "foreign": 'SEC("xdp") int @_foreign(struct xdp_md *c) { count(); return XDP_PASS; }',
    "devmap": _one("xdp/devmap", 2),
    "usdt": _USDT + _one("usdt//vmtest/attach_guest:guest:work"),
    "usdt_bare": _USDT + _one("usdt"),
    "usdt_without_maps": _one("usdt//vmtest/attach_guest:guest:work"),
    "socket": _one("socket", 0),
    "action": _one("action", 0),
}

SOURCES |= {
    "tc_anew": SOURCES["tc"],
    # Two ways to see one event, of which an option chooses one.
    "two_ways": 'SEC("?fentry/security_file_open") int @_fentry(void *c) { count(); return 0; }'
    ' SEC("?kprobe/security_file_open") int @_kprobe(void *c) { count(); return 0; }',
}

# Programs that the kernel verifier refuses, each for another reason. The refused code is a line of its own.
SOURCES |= {
    "scalar": 'SEC("raw_tp/sys_enter") int @_prog(__u64 *c)\n{\nreturn *(__u64 *)(long)c[0];\n}',
    "unchecked": 'SEC("raw_tp/sys_enter") int @_prog(__u32 *c)\n{\n__u32 key = bpf_get_prandom_u32();\n'
    "return *(__u64 *)bpf_map_lookup_elem(&@_map, &key);\n}",
    "loops": 'SEC("raw_tp/sys_enter") int @_prog(void *c)\n{\n'
    "for (volatile int i = 1; i; i = 1)\n;\nreturn 0;\n}",
    "core": "struct task_struct { int no_such_member; } __attribute__((preserve_access_index));"
    ' SEC("raw_tp/sys_enter") int @_prog(void *c)\n{\n'
    "struct task_struct *t = (void *)bpf_get_current_task();\nint x;\n"
    "bpf_probe_read_kernel(&x, 4, &t->no_such_member);\nreturn x;\n}",
    "helper": 'SEC("raw_tp/sys_enter") int @_prog(void *c)\n{\nreturn bpf_redirect(1, 0);\n}',
    "long": 'SEC("raw_tp/sys_enter") int @_prog(__u64 *c)\n{\n__u64 x = c[1];\n'
    + "x = x * 3 + c[1]; __sync_fetch_and_add(&x, 1);\n" * 300
    + "return *(__u64 *)(long)(c[0] + x);\n}",
}
