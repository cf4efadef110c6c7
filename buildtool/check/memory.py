# SPDX-License-Identifier: Apache-2.0
"""
Estimate the kernel memory of full maps.

Source: Linux 6.18, kernel/bpf, the map_mem_usage function of each type. Flags are ignored: a hash
map without preallocation uses this memory only when it is full.
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
    """The memory of maps in bytes: *fixed*, and *per_cpu* for each possible CPU."""

    fixed: int
    per_cpu: int

    def at(self, cpus: int) -> int:
        """Return the bytes on a machine with *cpus* CPUs."""
        return self.fixed + cpus * self.per_cpu


def estimate_maps(obj: ElfObject, maps: tuple[MapInfo, ...]) -> MapMemory:
    """Return the memory of *maps* of *obj* together with its global variables."""
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
    # These maps store a kernel pointer for each value, independent of the declared value size.
    own = _POINTER_BYTES if is_per_cpu or kind in _POINTERS else value
    per_cpu = entries * value if is_per_cpu and kind not in _LOCAL else 0
    if kind in _LOCAL or kind == "arena":
        return 0, 0  # unknown: the memory depends on the sockets, tasks or pages in use
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
