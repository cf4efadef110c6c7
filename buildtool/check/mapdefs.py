# SPDX-License-Identifier: Apache-2.0
"""
Maps that no kernel creates as they are defined.

Source: Linux kernel/bpf, the map_alloc_check functions of each type (5.10 to 6.18). libbpf opens such an
object, and BPF_MAP_CREATE ends in EINVAL without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf
from buildtool.objects.elf import ElfObject
from buildtool.objects.types import map_type

_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC
_PREFIX_BYTES = 4  # of the key of a trie
_INDEX_BYTES = 4
_LOCAL = frozenset(("sk_storage", "inode_storage", "task_storage", "cgrp_storage"))
_RINGS = frozenset(("ringbuf", "user_ringbuf"))
_WITHOUT_KEY = frozenset(("queue", "stack", "bloom_filter"))
_OF_MAPS = frozenset(("array_of_maps", "hash_of_maps"))
_HASHES = frozenset(
    ("hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "hash_of_maps", "sockhash", "devmap_hash")
)
_ARRAYS = frozenset(
    (
        *("array", "percpu_array", "prog_array", "perf_event_array", "stack_trace", "cgroup_array"),
        *("array_of_maps", "devmap", "sockmap", "cpumap", "xskmap", "reuseport_sockarray"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Definition:
    """A definition in section .maps; its *typed* members have a type in BTF."""

    kind: str
    entries: int
    flags: int
    key: int
    value: int
    typed: frozenset[str]


def find_impossible_maps(obj: ElfObject) -> list[tuple[str, str]]:
    """
    Return name and reason of each map of *obj* that no kernel creates.

    Raises: ObjectFormatError.
    """
    section = next((section for section in obj.sections if section.name == b".BTF"), None)
    if section is None:
        return []
    btf = Btf(obj.contents(section), obj.order)
    maps = ((name, _read(btf, number)) for name, number in btf.section_variables(".maps"))
    return [(name, reason) for name, item in maps for reason in islice(_find_reasons(item), 1)]


def _read(btf: Btf, number: int) -> _Definition:
    numbers: dict[str, int] = {}
    typed: dict[str, int] = {}
    for member in btf.members(number):
        if member.name in ("key", "value"):
            typed[member.name] = btf.pointed_size(member.type)
        elif member.name == "values":
            typed[member.name] = _INDEX_BYTES
        else:
            try:
                numbers[member.name] = btf.encoded_integer(member.type)
            except ObjectFormatError:
                continue  # libbpf says what is wrong with it
    return _Definition(
        kind=map_type(numbers.get("type", 0)),
        entries=numbers.get("max_entries", 0),
        flags=numbers.get("map_flags", 0),
        key=typed.get("key", numbers.get("key_size", 0)),
        value=typed.get("value", numbers.get("value_size", typed.get("values", 0))),
        typed=frozenset(typed),
    )


def _find_reasons(item: _Definition) -> Iterator[str]:
    """Yield why no kernel creates the map; nothing of a type that is not known here."""
    if item.kind in _LOCAL:
        yield from _check_local(item)
    elif item.kind in _HASHES | _ARRAYS | _WITHOUT_KEY | _RINGS | {"lpm_trie"}:
        # libbpf takes as many as there are CPUs.
        if not item.entries and item.kind != "perf_event_array":
            yield "max_entries is missing"
        yield from _check_sizes(item)


def _check_sizes(item: _Definition) -> Iterator[str]:
    kind = item.kind
    if kind in _WITHOUT_KEY | _RINGS and item.key:
        yield f"a {kind} has no key"
    if kind in _RINGS and item.value:
        yield f"a {kind} has no value"
    if kind in _OF_MAPS and "values" not in item.typed:
        yield "no inner map: __array(values, struct ...) defines it"
    if kind not in _OF_MAPS | _RINGS and not item.value:
        yield "the value has no size"
    if kind not in _WITHOUT_KEY | _RINGS and not item.key:
        yield "the key has no size"
    if kind in _ARRAYS and item.key != _INDEX_BYTES:
        yield f"the key has {item.key} bytes, not {_INDEX_BYTES}"
    if kind == "lpm_trie" and not item.flags & _NO_PREALLOC:
        yield "map_flags lacks BPF_F_NO_PREALLOC"
    if kind == "lpm_trie" and item.key <= _PREFIX_BYTES:
        yield f"the key has {item.key} bytes, and the length of the prefix takes {_PREFIX_BYTES}"


def _check_local(item: _Definition) -> Iterator[str]:
    if not item.flags & _NO_PREALLOC:
        yield "map_flags lacks BPF_F_NO_PREALLOC"
    if item.entries:
        yield f"max_entries is {item.entries}: a {item.kind} has none"
    if {"key", "value"} - item.typed:
        yield "key and value need types: __type(key, int) and __type(value, ...)"
    elif item.key != _INDEX_BYTES:
        yield f"the key has {item.key} bytes, not {_INDEX_BYTES}"
