# SPDX-License-Identifier: Apache-2.0
"""
Read the entries of maps at full speed: in batches, or from the memory of an array that can be mapped.

A reading is no snapshot. Programs change values while a map is read; an entry that is deleted or added
meanwhile may be missed. Each value of 8 bytes is whole on 64-bit machines.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from buildtool.metrics.bpfcall import (
    F_MMAPABLE,
    MAP_LOOKUP_BATCH,
    MapFacts,
    attributes_of,
    call,
    count_possible_cpus,
    open_pin,
    read_map_facts,
)

BATCH_ENTRIES = 16384
_BUFFER_BYTES = 16 * 1024 * 1024
_BATCH = struct.Struct("=QQQQIIQQ")
_COUNT_AT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """
    *count* entries: *keys* one after the other, and *values*, each *stride* bytes after the former.

    The memory is overwritten when the next block is read.
    """

    count: int
    keys: memoryview
    values: memoryview
    stride: int


class Map:
    """
    A map behind *descriptor*, which this object closes.

    *cut* is true after a reading that left entries out. Raises OSError, as all methods do.
    """

    def __init__(self, descriptor: int, *, cpus: int = 0) -> None:
        self.descriptor = descriptor
        self.cut = False
        try:
            self.facts: MapFacts = read_map_facts(descriptor)
            self.cpus = (cpus or count_possible_cpus()) if self.facts.is_per_cpu else 1
        except OSError:
            os.close(descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    @property
    def cpu_stride(self) -> int:
        """The bytes from one CPU's value to the next one's. The kernel rounds up to 8."""
        return _round(self.facts.value_size) if self.facts.is_per_cpu else self.facts.value_size

    def blocks(self, limit: int) -> Iterator[Block]:
        """
        Yield at most *limit* entries, in the kernel's order.

        Raises: OSError.
        """
        self.cut = False
        facts = self.facts
        memory = self._map_memory() if facts.is_array and facts.flags & F_MMAPABLE else None
        for block in self._batches(limit) if memory is None else self._mapped(memory, limit):
            if block.count <= limit:
                limit -= block.count
                yield block
                continue
            self.cut = True
            if limit:
                yield Block(count=limit, keys=block.keys, values=block.values, stride=block.stride)
            return

    def _batches(self, limit: int) -> Iterator[Block]:
        facts, stride = self.facts, self.cpu_stride * self.cpus
        room = min(BATCH_ENTRIES, facts.max_entries, max(1, _BUFFER_BYTES // (facts.key_size + stride)))
        keys, values = _buffers(room, facts.key_size, stride)
        # Hash maps write a bucket's number here, others a key.
        before, after = (ctypes.create_string_buffer(max(facts.key_size, 4)) for _ in range(2))
        is_first = True
        while limit >= 0:
            attributes = attributes_of(
                _BATCH.pack(
                    0 if is_first else ctypes.addressof(before),
                    ctypes.addressof(after),
                    ctypes.addressof(keys),
                    ctypes.addressof(values),
                    room,
                    self.descriptor,
                    0,
                    0,
                )
            )
            is_last = False
            try:
                call(MAP_LOOKUP_BATCH, attributes)
            except OSError as error:
                if error.errno == errno.ENOSPC and room < facts.max_entries:
                    # A bucket has more entries than the buffer, and none of them was copied.
                    room = min(2 * room, facts.max_entries)
                    keys, values = _buffers(room, facts.key_size, stride)
                    continue
                if error.errno != errno.ENOENT:
                    raise
                is_last = True
            count = struct.unpack_from("=I", attributes, _COUNT_AT)[0]
            if count:
                limit -= count
                yield Block(count=count, keys=_view(keys), values=_view(values), stride=stride)
            if is_last:
                return
            before, after, is_first = after, before, False

    def _map_memory(self) -> mmap.mmap | None:
        """Return the memory of the array, or None if the descriptor is for reading only. Raises: OSError."""
        size = self.facts.max_entries * _round(self.facts.value_size)
        try:
            return mmap.mmap(self.descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
        except OSError as error:
            # Linux shares no memory of a descriptor that is opened for reading only, not even for reading.
            if error.errno != errno.EINVAL:
                raise
            return None

    def _mapped(self, memory: mmap.mmap, limit: int) -> Iterator[Block]:
        """Yield the elements of an array from its memory, which costs no system call for each batch."""
        count, stride = self.facts.max_entries, _round(self.facts.value_size)
        with memory:
            for first in range(0, min(count, limit + 1), BATCH_ENTRIES):
                last = min(first + BATCH_ENTRIES, count)
                keys = struct.pack(f"={last - first}I", *range(first, last))
                # Copy first: unpacking reads single bytes, between which a program may count on.
                values = memory[first * stride : last * stride]
                yield Block(
                    count=last - first, keys=memoryview(keys), values=memoryview(values), stride=stride
                )


def open_map(path: str | Path) -> Map:
    """
    Return the map pinned at *path*: for reading only, unless its memory can be mapped.

    Raises: OSError.
    """
    descriptor = open_pin(path)
    # Facts of a program have another layout, and the kernel would give them for a pin of one.
    if os.readlink(f"/proc/self/fd/{descriptor}") != "anon_inode:bpf-map":  # noqa: PTH115 - no path
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a map")
    found = Map(descriptor)
    if not (found.facts.is_array and found.facts.flags & F_MMAPABLE):
        return found
    try:
        whole = Map(open_pin(path, flags=0))
    except OSError:
        return found  # batches read it, too
    found.close()
    return whole


def _buffers(
    room: int, key_size: int, stride: int
) -> tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]:
    return ctypes.create_string_buffer(room * key_size), ctypes.create_string_buffer(room * stride)


def _view(buffer: ctypes.Array[ctypes.c_char]) -> memoryview:
    return memoryview(buffer).cast("B")


def _round(size: int) -> int:
    return size + 7 & ~7
