# SPDX-License-Identifier: Apache-2.0
"""--btf: programs are relocated by signed types, where the kernel has none of its own."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from labs.handsig import Key, sign
from labs.kernel import bpf_file_system
from labs.loader import PREFIX, Lab, Result, counted, in_kernel, is_clean
from labs.run import run, wait_until

from buildtool.core.platforms import this_platform
from buildtool.objects.elf import parse_object
from buildtool.objects.kernelbtf import TypeGraph, minimize, pack_types, read_types

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

KERNEL = Path("/sys/kernel/btf/vmlinux")
RELEASE = os.uname().release
# No kernel has the struct. The offset of its member in the signed types is what the program counts.
SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
struct @_made_up { char before[4]; int wanted; } __attribute__((preserve_access_index));
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); }
    @_map SEC(".maps");
SEC("raw_tp/sys_enter") int @_raw(void *c)
{
    __u32 zero = 0;
    __u64 *value = bpf_map_lookup_elem(&@_map, &zero);
    if (value)
        *value = bpf_core_field_offset(struct @_made_up, wanted);
    return 0;
}
char LICENSE[] SEC("license") = "GPL";
"""
PROGRAMS = [{"name": f"{PREFIX}_raw", "section": "raw_tp/sys_enter", "type": "raw_tracepoint"}]
# As an object of this kernel's types would be: the struct with another size.
TYPES = "struct @_made_up { char before[OFFSET]; int wanted; } made_up;"
# Hide the types of the kernel from the loader and libbpf. The mount ends with the namespace.
WITHOUT_BTF = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh")

Put = Callable[..., Path]


def make_types(lab: Lab, directory: Path, offset: int) -> bytes:
    """Return an unsigned object with the types of a kernel that has the member at *offset* of the struct."""
    text = TYPES.replace("@", PREFIX).replace("OFFSET", str(offset))
    (directory / "types").mkdir(exist_ok=True)
    obj = parse_object(lab.compile(directory / "types", text))
    (section,) = [section for section in obj.sections if section.name == b".BTF"]
    return pack_types(obj.contents(section), little_endian=True)


@pytest.fixture
def put(lab: Lab, tmp_path: Path) -> Put:
    """Write the object, its trust store and types at an offset; return the path of the types."""
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / "core.bpf.o").write_bytes(
        sign(
            lab.compile(tmp_path, SOURCE.replace("@", PREFIX)),
            [lab.key],
            name="core.bpf.o",
            programs=PROGRAMS,
            platform=this_platform().oci,
        )
    )
    lab.trust(tmp_path)

    def write(
        offset: int, *, name: str = f"{RELEASE}.btf.o", signed_name: str = "", **changes: object
    ) -> Path:
        changes.setdefault("keys", [lab.key])
        keys: Sequence[Key] = changes.pop("keys")  # type: ignore[assignment]
        data = changes.pop("data", None) or make_types(lab, tmp_path, offset)
        path = tmp_path / "btf" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(sign(data, keys, name=signed_name or name, **changes))  # type: ignore[arg-type]
        return path

    return write


def verified(result: Result) -> list[tuple[str, str]]:
    """Return object and reason (or the decision) of each decision line."""
    return [(line["object"], line.get("reason", line["decision"])) for line in result.events("verify")]


def test_programs_are_relocated_by_signed_types(lab: Lab, tmp_path: Path, put: Put) -> None:
    """A program that this kernel's types cannot relocate loads with a file of types, at their offsets."""
    result = lab.run(tmp_path, "--", "/bin/true")
    assert result.code == 1
    assert "core.bpf.o" in result.message
    for offset in (24, 40):
        path = put(offset)
        with lab.started(tmp_path, "--btf", str(path)) as (_, stop):
            assert wait_until(lambda offset=offset: counted() == offset)  # type: ignore[misc]
            result = stop()
        assert result.code == 0
        assert is_clean()
        assert verified(result) == [("core.bpf.o", "accepted"), (f"{RELEASE}.btf.o", "accepted")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("tampered", "digest-mismatch"),
        ("unsigned", "unsigned"),
        ("key", "unknown-key"),
        ("platform", "wrong-platform"),
        ("expired", "expired"),
        ("renamed", "denied-by-policy"),
        ("suffix", "denied-by-policy"),
        ("programs", "denied-by-policy"),
        ("no types", "malformed"),
    ],
)
def test_other_types_are_refused(lab: Lab, tmp_path: Path, put: Put, change: str, reason: str) -> None:
    """Types that are changed, or of another key or kernel, and an object of programs: nothing is loaded."""
    name = f"{RELEASE}.btf.o"
    if change == "key":
        path = put(24, keys=[Key()])
    elif change == "platform":
        path = put(24, platform="linux/s390x")
    elif change == "expired":
        path = put(24, notAfter="2026-01-02T00:00:00Z")
    elif change == "renamed":
        path = put(24, signed_name="5.4.0-1-generic.btf.o")
    elif change == "suffix":
        name = "core.bpf.o"
        path = put(24, name=name)
    elif change == "programs":
        # A trusted key signed it, and its statement lists no program.
        path = put(24, data=lab.object("raw_tp"))
    else:
        path = put(24)
        data = bytearray(path.read_bytes())
        if change == "tampered":
            data[data.index(b"wanted")] ^= 1
        elif change == "unsigned":
            data = bytearray(make_types(lab, tmp_path, 24))
        else:
            data = bytearray(b"\x9f\xeb\x01\0")
        path.write_bytes(data)
    for extra in ([], ["--verify-only"]):
        result = lab.run(tmp_path, "--btf", str(path), *extra)
        assert result.code == 3
        assert verified(result) == [("core.bpf.o", "accepted"), (name, reason)]
        assert [line["event"] for line in result.lines][-1] == "refuse"
    assert in_kernel() == []


def test_a_directory_has_types_for_kernels_without_any(lab: Lab, tmp_path: Path, put: Put) -> None:
    """Those of this release are used, and only if this kernel has none. --verify-only verifies all."""
    directory = put(24).parent
    put(40, name="5.4.0-1-generic.btf.o")
    # This kernel has types: those of the directory are not even read.
    result = lab.run(tmp_path, "--btf", str(directory), "--", "/bin/true")
    assert verified(result) == [("core.bpf.o", "accepted")]
    assert result.code == 1
    with lab.started(tmp_path, "--btf", str(directory), before=WITHOUT_BTF) as (_, stop):
        assert wait_until(lambda: counted() == 24)
        result = stop()
    assert verified(result) == [("core.bpf.o", "accepted"), (f"{RELEASE}.btf.o", "accepted")]
    assert lab.run(tmp_path, "--btf", str(directory), "--verify-only").code == 0
    # The types of another kernel under this one's name, with a signature of their own.
    put(40, signed_name="5.4.0-1-generic.btf.o")
    result = lab.run(tmp_path, "--btf", str(directory), before=WITHOUT_BTF)
    assert (result.code, result.reasons) == (3, ["denied-by-policy"])
    # A directory of this kernel's name, with the types of another kernel under their own signed name.
    other = (directory / f"{RELEASE}.btf.o").rename(tmp_path / "5.4.0-1-generic.btf.o")
    (directory / f"{RELEASE}.btf.o").mkdir()
    other.rename(directory / f"{RELEASE}.btf.o" / other.name)
    result = lab.run(tmp_path, "--btf", str(directory), before=WITHOUT_BTF)
    assert (result.code, "no file" in result.message) == (1, True)
    shutil.rmtree(directory / f"{RELEASE}.btf.o")
    result = lab.run(tmp_path, "--btf", str(directory), before=WITHOUT_BTF)
    assert result.code == 1
    expected = f"no file {RELEASE}.btf.o in it, and this kernel has no types of its own"
    assert result.message == f"--btf {directory}: {expected}"


@pytest.mark.parametrize("whole", [True, False])
def test_types_of_this_kernel(lab: Lab, tmp_path: Path, put: Put, *, whole: bool) -> None:
    """A copy of the kernel's own types, whole or with those that the object needs, relocates as they do."""
    text = SOURCE.replace(
        "struct @_made_up { char before[4]; int wanted; }", "struct task_struct { int pid; }"
    )
    text = text.replace("struct @_made_up, wanted", "struct task_struct, pid").replace("@", PREFIX)
    data = lab.compile(tmp_path, text)
    signed = sign(data, [lab.key], name="core.bpf.o", programs=PROGRAMS, platform=this_platform().oci)
    (tmp_path / "objects/core.bpf.o").write_bytes(signed)
    with lab.started(tmp_path) as (_, stop):
        assert wait_until(lambda: counted() > 0)
        offset = counted()
        assert stop().code == 0
    assert is_clean()
    btf = KERNEL.read_bytes()
    if not whole:
        obj = parse_object(data)
        types = read_types(obj)
        assert types is not None
        btf = minimize(TypeGraph(btf, "<"), [(obj, types)])
        assert len(btf) < 1000
    path = put(0, data=pack_types(btf, little_endian=True))
    with lab.started(tmp_path, "--btf", str(path), before=WITHOUT_BTF) as (_, stop):
        assert wait_until(lambda: counted() == offset)
        assert stop().code == 0


def test_other_types_replace_pins_and_a_running_load(lab: Lab, tmp_path: Path, put: Put) -> None:
    """Programs of other types are other programs: pins are not reused, and a reload is an update."""
    with bpf_file_system(tmp_path) as mount:
        options = [f"--pin-root={mount}/pins", "--btf", str(put(24))]
        done = ["--", "/bin/true"]
        assert [line["event"] for line in lab.run(tmp_path, *options, *done).lines].count("load") == 1
        assert counted() == 24
        result = lab.run(tmp_path, *options, *done)
        assert len(result.events("reuse")) == 1
        put(40)
        result = lab.run(tmp_path, *options, *done)
        assert (result.code, result.events("reuse")) == (0, [])
        assert counted() == 40
        run(lab.pins, "detach", f"--pin-root={mount}/pins")
    assert is_clean()
    path = put(24)
    with lab.started(tmp_path, "--btf", str(path), "--reload") as (process, stop):
        assert wait_until(lambda: counted() == 24)
        put(56)
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: counted() == 56)
        result = stop()
    assert [line["outcome"] for line in result.events("reload")] == ["updated"]


def test_older_types_are_rolled_back(lab: Lab, tmp_path: Path, put: Put) -> None:
    """The state remembers the version of types as of objects."""
    state = tmp_path / "state"
    state.mkdir()
    options = ["--state", str(state), "--btf", str(put(24, version=2)), "--", "/bin/true"]
    assert lab.run(tmp_path, *options).code == 0
    put(24, version=1)
    result = lab.run(tmp_path, *options)
    assert (result.code, result.reasons) == (3, ["rolled-back"])


def test_types_are_handed_over(lab: Lab, tmp_path: Path, put: Put) -> None:
    """A workload with its own loader gets the verified bytes, and no descriptor of an earlier start."""
    path = put(24)
    show = 'cmp "$0" /proc/self/fd/$BUILDTOOL_BTF_FD && echo same'
    script = ["--hand-over", "--", "/bin/sh", "-c", show, str(path)]
    result = lab.run(tmp_path, "--btf", str(path), *script)
    assert (result.code, result.stdout) == (0, "same\n")
    stale = ["env", "BUILDTOOL_BTF_FD=0"]
    ask = ["--", "/bin/sh", "-c", 'echo "${BUILDTOOL_BTF_FD-none}"']
    assert lab.run(tmp_path, "--hand-over", *ask, before=stale).stdout == "none\n"
    # Without --hand-over, the loader uses the types, and the workload has no descriptor of them.
    assert lab.run(tmp_path, "--btf", str(path), *ask, before=stale).stdout == "none\n"


def test_types_that_are_missing(lab: Lab, tmp_path: Path, put: Put) -> None:
    """A file that is not there ends the start, with one line."""
    result = lab.run(tmp_path, "--btf", f"{put(24)}x")
    assert result.code == 1
    assert "no such file" in result.message.lower()
    empty = tmp_path / "none"
    empty.mkdir()
    for place, said in ((f"{put(24)}x", "No such file"), (str(empty), "no object in it; check --btf and")):
        result = lab.run(tmp_path, "--verify-only", "--btf", place)
        assert result.code == 1
        assert result.message.startswith(f"--btf {place}: {said}")
