# SPDX-License-Identifier: Apache-2.0
"""Pinned maps whose definition changed: an update starts with a new map and names the difference."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.kernel import bpf_file_system, pin_number
from labs.loader import PREFIX, Lab
from labs.net import flood
from labs.pins import RAW, Releases

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--", "/bin/true")


def test_map_of_another_definition_starts_empty_and_says_why(place: tuple[Releases, str, str]) -> None:
    """A larger value gives a new map, and a line names the old and the new size."""
    releases, left, right = place
    releases.put(1)
    options = releases.options(f"xdp={left}")
    assert releases.lab.run(releases.directory, *options, *TRUE).code == 0
    with flood(right):
        pass
    releases.put(2, value="struct { __u64 count; __u64 spare; }")
    result = releases.lab.run(releases.directory, *options, *TRUE)
    (line,) = result.events("map")
    assert (line["target"], "value size was 8, is 16" in line["message"]) == (f"{PREFIX}_map", True)
    assert releases.counts() == [0, 0, 0]


def test_map_with_other_fields_starts_empty(place: tuple[Releases, str, str]) -> None:
    """Fields of the same size with other names give a new map."""
    releases, left, _ = place
    options = releases.options(f"xdp={left}")
    for version, field in enumerate(("packets", "bytes"), 1):
        releases.put(version, value=f"struct {{ __u64 {field}; }}")
        result = releases.lab.run(releases.directory, *options, *TRUE)
        assert result.code == 0
    (line,) = result.events("map")
    assert "fields" in line["message"]


def nested(levels: int, tag: str, second: str = "b") -> str:
    """Return an empty struct with two members of each inner level: each level doubles the paths."""
    inner = f"struct {tag} {{}}"
    for level in range(levels):
        name = inner.split(" {", maxsplit=1)[0]
        inner = f"struct {tag}{level} {{ {inner} a; {name} {second}; }}"
    return inner


@pytest.mark.parametrize(("second", "carried"), [("b", True), ("c", False)])
def test_map_with_too_many_fields_to_compare(
    place: tuple[Releases, str, str], second: str, *, carried: bool
) -> None:
    """Types with too many paths to compare are carried over if equal, else they give a new map."""
    releases, left, _ = place
    options = releases.options(f"xdp={left}")
    for version, name in enumerate(("b", second), 1):
        fields = f"__u64 packets; {nested(18, 'many')} many; {nested(2, 'few', name)} few;"
        releases.put(version, value=f"struct {{ {fields} }}")
        result = releases.lab.run(releases.directory, *options, *TRUE)
        assert result.code == 0
    assert (result.events("map") == []) == carried


def test_typedef_of_itself_ends(place: tuple[Releases, str, str]) -> None:
    """A typedef of itself, which no compiler makes, does not keep the start from ending."""
    releases, left, _ = place
    built = bytearray(releases.build(1, "struct { __u64 packets; __be64 other; }"))
    # The header of .BTF has 24 bytes; that of .BTF.ext is longer.
    header = built.index(struct.pack("<HBBI", 0xEB9F, 1, 0, 24))
    types, length, strings = struct.unpack_from("<III", built, header + 8)
    types, strings = header + 24 + types, header + 24 + strings

    def target(name: bytes) -> int:
        """Return the offset of the type id that the typedef *name* refers to."""
        offset = built.index(b"\0%s\0" % name, strings) + 1 - strings
        return built.index(struct.pack("<II", offset, 8 << 24), types, types + length) + 8

    inner, outer = target(b"__u64"), target(b"__be64")
    built[inner : inner + 4] = built[outer : outer + 4]
    releases.put(1, built=bytes(built))
    result = releases.lab.run(releases.directory, *releases.options(f"xdp={left}"), *TRUE)
    assert result.code in (0, 1)
    assert [line["decision"] for line in result.events("verify")] == ["accepted"]


# The kernel or libbpf makes maps of these sizes larger: to the next page, power of two, or multiple of CPUs.
ROUNDED = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_@TYPE); __uint(max_entries, @ENTRIES); @MORE } @_map SEC(".maps");
SEC("raw_tp/sys_enter") int @_raw(void *c)
{
    __u32 key = @RELEASE;
    @USE
    return 0;
}
char LICENSE[] SEC("license") = "GPL";
"""
HASH = "__type(key, __u32); __type(value, __u64); __uint(map_flags, BPF_F_NO_COMMON_LRU);"
LOOK_UP = "bpf_map_lookup_elem(&@_map, &key);"


def build_rounded(lab: Lab, directory: Path, kind: str, entries: int, release: int) -> bytes:
    """Return the unsigned object of a release with a map of *kind* and of the size *entries*."""
    more, use = ("", "") if "RINGBUF" in kind else (HASH, LOOK_UP)
    if kind == "RINGBUF":
        use = "bpf_ringbuf_output(&@_map, &key, sizeof(key), 0);"
    if kind == "USER_RINGBUF":
        use = "key += (__u64)&@_map;"
    source = ROUNDED.replace("@USE", use).replace("@MORE", more).replace("@TYPE", kind)
    source = source.replace("@ENTRIES", str(entries)).replace("@RELEASE", str(release)).replace("@", PREFIX)
    return lab.compile(directory, source)


@pytest.fixture
def traced(lab: Lab, tmp_path: Path) -> Iterator[Releases]:
    """Give releases of an object that attaches by the name of its section."""
    with bpf_file_system(tmp_path) as mount:
        yield Releases(lab, tmp_path, mount / "pins", RAW)


@pytest.mark.parametrize("kind", ["LRU_HASH", "LRU_PERCPU_HASH", "RINGBUF", "USER_RINGBUF"])
def test_map_that_the_kernel_rounds_is_carried_over(traced: Releases, kind: str) -> None:
    """An update with the same definition keeps the map, although the kernel's number of entries is larger."""
    pin = traced.home / f"current/maps/{PREFIX}_map"
    numbers = []
    for release in (1, 2):
        traced.put(release, built=build_rounded(traced.lab, traced.directory, kind, 1001, release))
        result = traced.lab.run(traced.directory, *traced.options(), *TRUE)
        assert (result.code, result.events("map")) == (0, []), result.lines
        assert pin_number(pin, "max_entries") > 1001
        numbers.append(pin_number(pin, "map_id"))
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(("kind", "sizes"), [("LRU_HASH", (1000, 1010)), ("RINGBUF", (4096, 8192))])
def test_rounded_map_of_another_size_begins_empty(
    traced: Releases, kind: str, sizes: tuple[int, int]
) -> None:
    """More entries, and fewer again, are another definition; the line has the kernel's numbers."""
    for release, (was, entries) in enumerate(((0, sizes[0]), sizes, sizes[::-1]), 1):
        traced.put(release, built=build_rounded(traced.lab, traced.directory, kind, entries, release))
        result = traced.lab.run(traced.directory, *traced.options(), *TRUE)
        assert result.code == 0, result.lines
        said = [line["message"] for line in result.events("map")]
        assert said == ([f"begins empty: its number of entries was {was}, is {entries}"] if was else [])
