# SPDX-License-Identifier: Apache-2.0
"""Objects that disagree between architectures are named with object, part, member and architectures."""

from __future__ import annotations

from pathlib import Path

import pytest
from labs.compile import compile_sample

from buildtool.core.errors import CompileError, ConfigError, ObjectFormatError, UsageError
from buildtool.core.validate import check_difference
from buildtool.objects.agreement import check_agreement

SOURCE = """
#define SEC(name) __attribute__((section(name), used))
typedef unsigned int u32; typedef unsigned long long u64; typedef unsigned short u16;
struct inner { u16 port; u16 flags : 3; u16 rest : 13; };
struct value { u32 pid; u64 time; struct inner pair[2]; union { u32 v4; u32 v6[4]; }; };
struct {
    int (*type)[1]; int (*max_entries)[16]; u32 *key; struct value *value;
} events SEC(".maps");
struct { int (*type)[12]; int (*max_entries)[2]; u32 *key; struct {
    int (*type)[1]; int (*max_entries)[4]; u32 *key; struct inner *value;
} *values[]; } outer SEC(".maps");
u64 total, seen;
struct { u32 low, high; } limits SEC(".data.limits") = { 1, 2 };
SEC("xdp") int count(void *ctx) { total++; seen++; return 2; }
SEC("tc") int other(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
NAME = "x.bpf.o"


MEMBER = ("u64 time;", "u64 cpu; u64 time;")
GLOBAL = ("seen;", "seen, fresh;")
APART = ("seen;", "seen __attribute__((aligned(64)));")


def build(directory: Path, *changes: tuple[str, str], target: str = "bpfel") -> bytes:
    """Compile SOURCE with the first place of each text of *changes* replaced by the other."""
    source = SOURCE
    for old, new in changes:
        assert old in source
        source = source.replace(old, new, 1)
    return compile_sample(directory, target=target, source=source).read_bytes()


def disagreement(tmp_path: Path, change: tuple[str, str]) -> CompileError:
    """Return the error for amd64 as it is and arm64 with *change*."""
    objects = {"amd64": {NAME: build(tmp_path)}, "arm64": {NAME: build(tmp_path, change)}}
    with pytest.raises(CompileError) as caught:
        check_agreement(objects)
    return caught.value


@pytest.mark.tools
def test_same_source_agrees_in_both_byte_orders(tmp_path: Path) -> None:
    """Bit fields, arrays, unions without a name and global variables are at the same places."""
    little, big = build(tmp_path), build(tmp_path, target="bpfeb")
    check_agreement({"amd64": {NAME: little}, "arm64": {NAME: little}, "s390x": {NAME: big}})


@pytest.mark.tools
def test_member_at_another_place_is_named(tmp_path: Path) -> None:
    """The error names object, map, member, and its offset on each architecture."""
    error = disagreement(tmp_path, MEMBER)
    assert error.detail is not None
    assert (
        "x.bpf.o:events (map): value.time is at byte 8 (integer of 8 bytes) on amd64"
        " and at byte 16 (integer of 8 bytes) on arm64"
    ) in error.detail
    assert "x.bpf.o:events (map): value.cpu is missing on amd64 and at byte 8" in error.detail
    assert "size of the value is 40 on amd64 and 48 on arm64" in error.message
    assert error.hint == 'to allow this: allow-differences = ["x.bpf.o:events"] in [build] of buildtool.toml'


@pytest.mark.tools
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[16]", "[32]"), "x.bpf.o:events (map): max_entries is 16 on amd64 and 32 on arm64"),
        (('"xdp"', '"tc/x"'), "x.bpf.o:count (program): section is xdp on amd64 and tc/x on arm64"),
        (("int count", "int more"), "x.bpf.o:more (program) is there on arm64 but not on amd64"),
        (("flags : 3", "flags : 4"), "value.pair[2].flags is at byte 18 (3 bits) on amd64"),
        (GLOBAL, ".bss (variables): fresh is missing on amd64"),
        (APART, ".bss (variables): seen is at byte 8 (integer of 8 bytes) on amd64 and at byte 64"),
        (("low, high", "high, low"), ".data.limits (variables): limits.low is at byte 0"),
        (("[4]; u32 *key", "[8]; u32 *key"), "outer (map): inner max_entries is 4 on amd64 and 8 on arm64"),
        (("[4]; u32 *key", "[4]; u64 *key"), "outer (map): inner size of the key is 4 on amd64 and 8 on"),
    ],
)
def test_difference_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """Definitions of maps, sections of programs, bit fields and global variables are compared, too."""
    error = disagreement(tmp_path, change)
    assert message in f"{error.message}\n{error.detail}"


@pytest.mark.tools
def test_object_of_one_architecture_only(tmp_path: Path) -> None:
    """An object that an architecture has not is a difference."""
    data = build(tmp_path)
    with pytest.raises(CompileError, match=r"y\.bpf\.o: there is one for arm64 but not for amd64"):
        check_agreement({"amd64": {NAME: data}, "arm64": {NAME: data, "y.bpf.o": data}})


@pytest.mark.tools
@pytest.mark.parametrize("allowed", [NAME, f"{NAME}:events"])
def test_declared_difference_is_let_be(tmp_path: Path, allowed: str) -> None:
    """Only declared parts may differ."""
    objects = {"amd64": {NAME: build(tmp_path)}, "arm64": {NAME: build(tmp_path, MEMBER)}}
    check_agreement(objects, [allowed])
    objects["arm"] = {NAME: build(tmp_path, GLOBAL)}
    if ":" in allowed:
        with pytest.raises(CompileError, match=r"\.bss .* on amd64 .* on arm$"):
            check_agreement(objects, [allowed])


@pytest.mark.tools
def test_declaration_of_nothing_is_an_error(tmp_path: Path) -> None:
    """A name that is written wrongly would allow nothing, or one day the wrong thing."""
    objects = {arch: {NAME: build(tmp_path)} for arch in ("amd64", "arm64")}
    with pytest.raises(ConfigError, match=r"nothing is called x\.bpf\.o:event$"):
        check_agreement(objects, [f"{NAME}:event"])


@pytest.mark.tools
def test_many_differences_are_cut(tmp_path: Path) -> None:
    """Twenty lines are enough."""
    members = "".join(f"u32 m{number};" for number in range(40))
    error = disagreement(tmp_path, ("u64 time;", f"{members} u64 time;"))
    assert error.detail is not None
    lines = error.detail.splitlines()
    assert len(lines) == 21
    assert lines[-1].startswith("and ")


def test_damaged_object_is_named() -> None:
    """The error for an unreadable object names the object and its architecture."""
    with pytest.raises(ObjectFormatError, match=r"x\.bpf\.o \(arm64\): not an ELF file"):
        check_agreement({"arm64": {NAME: b"no"}})


@pytest.mark.parametrize("value", ["x.bpf.o", "x.bpf.o:events", "x.bpf.o:.bss", "x.bpf.o:.data.limits"])
def test_names_of_differences(value: str) -> None:
    """Objects, programs, maps and the sections of variables can be named."""
    assert check_difference(value) == value


@pytest.mark.parametrize(
    "value", ["", "a b", "x.bpf.o:", "x.bpf.o:a:b", "x.bpf.o:.", "x.bpf.o:.data.", "x:$(id)", "../x"]
)
def test_bad_names_of_differences(value: str) -> None:
    """A wrong name in allow-differences is refused, because the Dockerfile would contain it."""
    with pytest.raises(UsageError):
        check_difference(value)
