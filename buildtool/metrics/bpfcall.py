# SPDX-License-Identifier: Apache-2.0
"""
Call bpf(2) by ctypes: open pins, and ask for facts about programs, maps and BTF.

Source: Linux 6.1 to 6.18, include/uapi/linux/bpf.h. New members stand at the end of a structure, so the
offsets below are those of every release.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from dataclasses import dataclass
from os import strerror
from pathlib import Path

from buildtool.core.platforms import this_platform

NATIVE_ORDER = "<" if struct.pack("=H", 1) == b"\1\0" else ">"
MAP_LOOKUP_ELEM = 1
OBJ_GET = 7
OBJ_GET_INFO_BY_FD = 15
BTF_GET_FD_BY_ID = 19
MAP_LOOKUP_BATCH = 24
F_RDONLY = 1 << 3
F_MMAPABLE = 1 << 10
MAX_BTF_BYTES = 64 * 1024 * 1024
_ATTRIBUTE_BYTES = 128
_MAP_INFO_BYTES = 80
_PROG_INFO_BYTES = 136
_PROG_BTF_ID_AT = 128
_PROG_INFO_BTF = struct.Struct("=I")
_MAP_INFO = struct.Struct("=6I16s2I2Q3I")
_BTF_INFO = struct.Struct("=QII")
_MAP_TYPE_NAMES = {1: "hash", 2: "array", 5: "percpu_hash", 6: "percpu_array", 9: "lru_hash"}
_MAP_TYPE_NAMES |= {10: "lru_percpu_hash", 11: "lpm_trie"}
_PER_CPU = frozenset((5, 6, 10))
_ARRAYS = frozenset((2, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFacts:
    """
    Facts of a map in the kernel. Sizes are in bytes; *value_size* is that of one CPU's value.

    *key_type* and *value_type* are numbers of types of the BTF with id *btf_id*, or 0.
    """

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    btf_id: int
    key_type: int = 0
    value_type: int = 0

    @property
    def is_readable(self) -> bool:
        """True for the types that hold entries of keys and values."""
        return self.type in _MAP_TYPE_NAMES

    @property
    def is_per_cpu(self) -> bool:
        """True if each entry has a value for each CPU."""
        return self.type in _PER_CPU

    @property
    def is_array(self) -> bool:
        """True if keys are the indexes of an array."""
        return self.type in _ARRAYS


@functools.cache
def _syscall() -> tuple[ctypes._NamedFuncPointer, int]:
    library = ctypes.CDLL(None, use_errno=True)
    return library.syscall, this_platform().bpf_syscall


def call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """
    Call bpf(2) with *attributes*, which the kernel may change, and return its result.

    Raises: OSError.
    """
    function, number = _syscall()
    result = int(function(number, command, attributes, len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, strerror(code))
    return result


def attributes_of(data: bytes) -> ctypes.Array[ctypes.c_char]:
    """Return the attributes *data*, padded by zeros, which every kernel accepts."""
    return ctypes.create_string_buffer(data, _ATTRIBUTE_BYTES)


def open_pin(path: str | Path, *, flags: int = F_RDONLY) -> int:
    """
    Return a descriptor of what is pinned at *path*; programs have no *flags*.

    Raises: OSError.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    return call(OBJ_GET, attributes_of(struct.pack("=QII", ctypes.addressof(name), 0, flags)))


def read_map_facts(descriptor: int) -> MapFacts:
    """
    Return the facts of the map behind *descriptor*.

    Raises: OSError.
    """
    data = _read_info(descriptor, bytes(_MAP_INFO_BYTES))
    kind, number, key, value, entries, flags, name, *_, btf, of_key, of_value = _MAP_INFO.unpack_from(data)
    return MapFacts(
        type=kind,
        id=number,
        key_size=key,
        value_size=value,
        max_entries=entries,
        flags=flags,
        name=name.partition(b"\0")[0].decode("ascii", "replace"),
        btf_id=btf,
        key_type=of_key,
        value_type=of_value,
    )


def read_program_btf(descriptor: int) -> int:
    """
    Return the id of the BTF of the program behind *descriptor*, 0 without one.

    Raises: OSError, also for what is no program.
    """
    data = _read_info(descriptor, bytes(_PROG_INFO_BYTES))
    number: int = _PROG_INFO_BTF.unpack_from(data, _PROG_BTF_ID_AT)[0]
    return number


def open_btf(number: int) -> int:
    """
    Return a descriptor of the BTF with id *number*, which keeps the id from being used again.

    Raises: OSError.
    """
    return call(BTF_GET_FD_BY_ID, attributes_of(struct.pack("=I", number)))


def read_btf(descriptor: int) -> bytes:
    """
    Return the BTF behind *descriptor*, as the kernel keeps it.

    Raises: OSError.
    """
    size = _BTF_INFO.unpack_from(_read_info(descriptor, bytes(32)))[1]
    if size > MAX_BTF_BYTES:
        raise OSError(0, "BTF is too large")
    data = ctypes.create_string_buffer(size)
    _read_info(descriptor, struct.pack("=QIIQII", ctypes.addressof(data), size, 0, 0, 0, 0))
    return data.raw


def _read_info(descriptor: int, info: bytes) -> bytes:
    """Return what the kernel makes of the structure *info* for *descriptor*. Raises: OSError."""
    buffer = ctypes.create_string_buffer(info, len(info))
    call(
        OBJ_GET_INFO_BY_FD,
        attributes_of(struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(buffer))),
    )
    return buffer.raw


def count_possible_cpus() -> int:
    """
    Return the number of values that an entry of a per-CPU map has.

    Raises: OSError; ValueError.
    """
    text = Path("/sys/devices/system/cpu/possible").read_text("ascii")
    return int(text.strip().replace(",", "-").split("-")[-1]) + 1
