# SPDX-License-Identifier: Apache-2.0
"""Capabilities that programs require, their encoding in a file, and the estimate from sources."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from buildtool.config.file import Config, load_config
from buildtool.core.errors import ConfigError, FileAccessError, UsageError
from buildtool.image.filecaps import check_capabilities, copy_program, needed_capabilities, read_contents
from buildtool.image.scan import choose_capabilities
from buildtool.objects.capabilities import (
    CAPABILITY_NUMBERS,
    check_capability,
    file_attribute,
    find_capabilities,
    program_capabilities,
    run_options,
)
from buildtool.objects.describe import ObjectContents, ProgramInfo
from buildtool.objects.elf import MAX_OBJECT_BYTES
from buildtool.objects.helpers import HELPER_NUMBERS
from buildtool.objects.optional import Selection


@pytest.mark.parametrize(
    ("section", "needed"),
    [
        ("socket", "BPF"),
        ("sk_lookup", "BPF"),
        ("xdp", "BPF NET_ADMIN"),
        ("?tcx/ingress", "BPF NET_ADMIN"),
        ("cgroup_skb/egress", "BPF NET_ADMIN"),
        ("tp_btf/sys_enter", "BPF PERFMON"),
        ("kprobe/do_exit", "BPF PERFMON"),
        ("lsm/file_open", "BPF PERFMON"),
        ("struct_ops/init", "BPF PERFMON"),
        ("freplace/f", "BPF NET_ADMIN PERFMON"),
    ],
)
def test_by_section(section: str, needed: str) -> None:
    """The program type determines the capabilities, as in the kernel (see tests/kernel)."""
    assert find_capabilities([section]) == tuple(needed.split())


def test_helpers_and_maps_count_too() -> None:
    """Helpers that read memory of others require PERFMON. Maps of sockets and devices require NET_ADMIN."""
    helper = HELPER_NUMBERS
    assert find_capabilities(["socket"], helpers=[helper["bpf_trace_printk"]]) == ("BPF", "PERFMON")
    assert find_capabilities([], helpers=[helper["bpf_probe_write_user"]]) == ("BPF", "SYS_ADMIN")
    assert find_capabilities(["socket"], maps=["hash", "sockhash"]) == ("BPF", "NET_ADMIN")


def test_names_and_numbers_are_linux(tmp_path: Path) -> None:
    """The table is that of the kernel's headers, as far as this machine's have it."""
    header = Path("/usr/include/linux/capability.h")
    if header.exists():
        words = [line.split() for line in header.read_text().splitlines() if line.startswith("#define CAP_")]
        numbers = {w[1][4:]: int(w[2]) for w in words if len(w) == 3 and w[2].isdigit()}
        assert numbers.items() <= CAPABILITY_NUMBERS.items()
    assert (CAPABILITY_NUMBERS["NET_ADMIN"], CAPABILITY_NUMBERS["BPF"]) == (12, 39)
    assert check_capability("cap_bpf") == "BPF"
    with pytest.raises(UsageError, match="not a capability"):
        check_capability("ROOT")


def test_the_file_attribute_permits_and_nothing_is_effective() -> None:
    """Revision 2 of the kernel's struct vfs_cap_data, without the bit that makes capabilities effective."""
    value = file_attribute(["BPF", "NET_ADMIN"])
    assert struct.unpack("<5I", value) == (0x02000000, 1 << 12, 0, 1 << 7, 0)
    assert run_options(["NET_ADMIN", "BPF"]) == (
        *("--cap-drop", "ALL"),
        *("--cap-add", "BPF", "--cap-add", "NET_ADMIN"),
    )


def project(tmp_path: Path, source: str, toml: str = "", **headers: str) -> Config:
    """Write a project of one source."""
    (tmp_path / "bpf").mkdir(exist_ok=True)
    (tmp_path / "bpf/a.bpf.c").write_text(source)
    for name, text in headers.items():
        (tmp_path / f"bpf/{name}.h").write_text(text)
    (tmp_path / "buildtool.toml").write_text(toml)
    return load_config(tmp_path / "buildtool.toml")


@pytest.mark.parametrize(
    ("source", "needed"),
    [
        ('SEC("xdp") int f(void *c) { return 2; }', "BPF NET_ADMIN"),
        ('/* SEC("xdp") */ SEC("socket") // SEC("kprobe/x")\nint f;', "BPF"),
        ('SEC("tp_btf/" "sys_enter") int f;', "BPF PERFMON"),
        ('__attribute__((section ("xdp"))) int f;', "BPF NET_ADMIN"),
        ('SEC("socket") int f() { bpf_printk("SEC(\\"xdp\\")"); }', "BPF PERFMON"),
        ('SEC("socket") int f() { BPF_CORE_READ(a, b); }', "BPF PERFMON"),
        ('SEC(".maps") struct { __uint(type, BPF_MAP_TYPE_SOCKMAP); } m;', "BPF NET_ADMIN"),
        ('#include "more.h"\nSEC("socket") int f;', "BPF NET_ADMIN"),
        ('#include <more.h>\n#include "vmlinux.h"\n#include "missing.h"\nSEC("socket") int f;', "BPF"),
    ],
)
def test_what_sources_say(tmp_path: Path, source: str, needed: str) -> None:
    """Sections, calls and maps are found in sources and the project's headers, not in comments."""
    config = project(tmp_path, source, more='SEC("tc") int g;\n#include "more.h"', vmlinux='SEC("xdp")')
    assert choose_capabilities(config, ["bpf/a.bpf.c"]) == tuple(needed.split())


def test_the_configuration_says_it_instead(tmp_path: Path) -> None:
    """image.capabilities is taken as it is, sorted; a word that is none is an error with its place."""
    config = project(tmp_path, "", '[image]\ncapabilities = ["cap_perfmon", "BPF"]\n')
    assert choose_capabilities(config, ["bpf/a.bpf.c"]) == ("BPF", "PERFMON")
    with pytest.raises(ConfigError, match=r"buildtool.toml:2: image.capabilities: 'ALL' is not a capability"):
        project(tmp_path, "", '[image]\ncapabilities = ["ALL"]\n')


def contents(*sections: str) -> tuple[str, ObjectContents]:
    """Make the name and the contents of an object with programs in *sections*."""
    programs = tuple(ProgramInfo(name="f", section=name, type="") for name in sections)
    return "x.bpf.o", ObjectContents(programs=programs, maps=(), helpers=(), kfuncs=(), license="GPL")


def test_objects_decide() -> None:
    """Missing capabilities are an error, surplus ones only if estimated. The hint has the right line."""
    check_capabilities([contents("xdp")], ["NET_ADMIN", "BPF"], exactly=True)
    check_capabilities([contents("xdp")], ["NET_ADMIN", "BPF", "SETPCAP"], exactly=False)
    for given, exactly, words in (
        (["BPF"], False, "the programs require NET_ADMIN"),
        (["BPF", "NET_ADMIN", "PERFMON"], True, "appear to require PERFMON"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            check_capabilities([contents("xdp")], given, exactly=exactly)
        assert caught.value.hint == 'in buildtool.toml: image.capabilities = ["BPF", "NET_ADMIN"]'


def test_optional_programs_count_if_they_are_loaded() -> None:
    """A program that the image does not load requires nothing; one that a setting names does."""
    objects = [contents("xdp", "?kprobe/x")]
    assert needed_capabilities(objects) == ("BPF", "NET_ADMIN", "PERFMON")
    assert needed_capabilities(objects, Selection()) == ("BPF", "NET_ADMIN")
    for selection in (Selection(load=("f",)), Selection(load=("x.bpf.o:f",)), Selection(attach=("f=none",))):
        assert needed_capabilities(objects, selection) == ("BPF", "NET_ADMIN", "PERFMON")
    assert needed_capabilities(objects, Selection(load=("y.bpf.o:f",))) == ("BPF", "NET_ADMIN")
    check_capabilities(objects, ["BPF", "NET_ADMIN"], exactly=True, selection=Selection())


def test_a_too_large_object_is_named(tmp_path: Path) -> None:
    """A file above the limit is reported as too large instead of as a damaged object."""
    path = tmp_path / "large.bpf.o"
    with path.open("wb") as file:
        file.truncate(MAX_OBJECT_BYTES + 1)
    with pytest.raises(FileAccessError, match=rf"large.bpf.o: larger than {MAX_OBJECT_BYTES} bytes"):
        read_contents([path])


def test_a_file_system_without_attributes_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A builder that cannot set the attribute leaves no half-made loader."""
    (tmp_path / "loader").write_bytes(b"x")
    copy_program(tmp_path / "loader", tmp_path / "plain", ())
    assert os.listxattr(tmp_path / "plain") == []

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(FileAccessError, match="operation not permitted") as caught:
        copy_program(tmp_path / "loader", tmp_path / "out", ("BPF",))
    assert "file-capabilities = false" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_ebpf_pins_gets_only_the_capabilities_that_it_requires() -> None:
    """The loader gets all capabilities of the image, ebpf-pins none that is for a workload."""
    given = ("SYS_ADMIN", "PERFMON", "NET_RAW", "BPF")
    assert program_capabilities("ebpf-pins", given) == ("BPF", "PERFMON")
    assert program_capabilities("verify-and-load", given) == tuple(sorted(given))
    assert program_capabilities("ebpf-pins", ()) == ()
