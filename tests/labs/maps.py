# SPDX-License-Identifier: Apache-2.0
"""Make and fill maps of this kernel, and let the loader pin those of objects."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from buildtool.metrics.bpfcall import attributes_of, call
from labs import net
from labs.kernel import BPF_MAP_CREATE, bpf_file_system
from labs.loader import PREFIX, Lab

UPDATE_BATCH = 26


def make_map(kind: int, entries: int, *, value_size: int = 16, flags: int = 0, key_size: int = 4) -> int:
    """Return the descriptor of a new map."""
    facts = struct.pack("=IIIII", kind, key_size, value_size, entries, flags)
    return call(BPF_MAP_CREATE, attributes_of(facts))


def fill(descriptor: int, count: int, *, cpus: int = 1, value: Callable[[int, int], bytes]) -> None:
    """Write *count* entries: key n has *value* (n, cpu) for each CPU."""
    for first in range(0, count, 100_000):
        numbers = range(first, min(first + 100_000, count))
        keys = ctypes.create_string_buffer(struct.pack(f"={len(numbers)}I", *numbers))
        values = ctypes.create_string_buffer(b"".join(value(n, c) for n in numbers for c in range(cpus)))
        places = (ctypes.addressof(keys), ctypes.addressof(values))
        batch = struct.pack("=QQQQIIQQ", 0, 0, *places, len(numbers), descriptor, 0, 0)
        call(UPDATE_BATCH, attributes_of(batch))


@contextmanager
def pin_places(directory: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield a directory for pins, and the ends of a veth pair."""
    with net.veth() as (left, right), bpf_file_system(directory) as mount:
        yield mount / "pins", left, right


def start_pinned(
    lab: Lab, directory: Path, root: Path, interface: str, *, of: str = "", others: Sequence[str] = ()
) -> None:
    """
    Let the loader pin the objects of *directory* below *root*, and attach PREFIX_xdp, of object *of*.

    The same program of *others* is loaded only.
    """
    program = f"{of}:{PREFIX}_xdp" if of else f"{PREFIX}_xdp"
    options = [f"--pin-root={root}", f"--attach={program}={interface}"]
    options += [f"--attach={other}:{PREFIX}_xdp=none" for other in others]
    result = lab.run(directory, *options, "--", "/bin/true")
    assert result.code == 0, result.lines
