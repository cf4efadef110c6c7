# SPDX-License-Identifier: Apache-2.0
"""
About how much kernel memory maps take when they are full.

Source: Linux kernel/bpf, the map_mem_usage functions of each type (6.18), without what depends
on flags: a hash that does not preallocate takes this much only when it is full.
"""

from __future__ import annotations

from dataclasses import dataclass

from buildtool.objects.describe import MapInfo
from buildtool.objects.elf import ElfObject

_ELEMENT_BYTES = 48  # struct htab_elem before the key
_BUCKET_BYTES = 16
_TRIE_NODE_BYTES = 48
_POINTER_BYTES = 8
_POINTERS = frozenset(
    (
        "prog_array",
        "perf_event_array",
        "cgroup_array",
        "array_of_maps",
        "devmap",
        "sockmap",
        "cpumap",
        "xskmap",
        "reuseport_sockarray",
    )
)
_LOCAL = frozenset(
    (
        "sk_storage",
        "inode_storage",
        "task_storage",
        "cgrp_storage",
        "cgroup_storage",
        "percpu_cgroup_storage",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapMemory:
    """Bytes that maps take: *fixed*, and *per_cpu* for each possible CPU."""

    fixed: int
    per_cpu: int

    def at(self, cpus: int) -> int:
        """Return all bytes on a machine with *cpus* CPUs."""
        return self.fixed + cpus * self.per_cpu


def estimate_maps(obj: ElfObject, maps: tuple[MapInfo, ...]) -> MapMemory:
    """Return what *maps* of *obj* take, its global variables among them."""
    fixed = sum(s.size for s in obj.sections if s.name.startswith((b".data", b".bss", b".rodata")))
    per_cpu = 0
    for item in maps:
        own, each = _estimate(item)
        fixed, per_cpu = fixed + own, per_cpu + each
    return MapMemory(fixed=fixed, per_cpu=per_cpu)


def _estimate(item: MapInfo) -> tuple[int, int]:
    entries, key, value = item.max_entries, _round(item.key_size), _round(item.value_size)
    kind = item.type
    is_per_cpu = "percpu" in kind
    # A descriptor of the kernel's is a pointer, whatever the map's own value is.
    own = _POINTER_BYTES if is_per_cpu or kind in _POINTERS else value
    per_cpu = entries * value if is_per_cpu and kind not in _LOCAL else 0
    if kind in _LOCAL or kind == "arena":
        return 0, 0  # as much as there are sockets, tasks or pages in use
    if kind in ("ringbuf", "user_ringbuf"):
        return entries, 0
    if "hash" in kind:
        buckets = _BUCKET_BYTES * (1 << max(entries - 1, 0).bit_length())
        return entries * (_ELEMENT_BYTES + key + own) + buckets, per_cpu
    if kind == "lpm_trie":
        return entries * (_TRIE_NODE_BYTES + key + value), 0
    return entries * own, per_cpu


def _round(size: int) -> int:
    return -(-size // 8) * 8
