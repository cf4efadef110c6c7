# SPDX-License-Identifier: Apache-2.0
"""`buildtool btf`: the types that objects need of a kernel, as bpftool finds them."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from labs.compile import find_tool
from labs.readelf import read_with_llvm

from buildtool.cli.main import run
from buildtool.core.errors import ObjectFormatError
from buildtool.core.platforms import this_platform
from buildtool.objects.elf import parse_object
from buildtool.objects.kernelbtf import minimize, read_types

pytestmark = [pytest.mark.tools, pytest.mark.network]

Capture = pytest.CaptureFixture[str]
KERNEL = Path("/sys/kernel/btf/vmlinux")
# Each kind of relocation, and members behind pointers, arrays, bit fields and unnamed structs.
SOURCE = """\
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
struct task_struct___old { int state; } __attribute__((preserve_access_index));
struct no_such_struct { int x; } __attribute__((preserve_access_index));
__u64 out[16];
SEC("raw_tp/sys_enter") int core(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct___old *old = (void *)task;
	struct tcphdr *tcp = (void *)task;
	struct sk_buff *skb = (void *)task;
	struct no_such_struct *none = (void *)task;

	out[0] = (__u64)BPF_CORE_READ(task, mm, pgd);
	out[1] = BPF_CORE_READ(task, signal, rlim[3].rlim_cur);
	out[2] = bpf_core_field_exists(old->state) + bpf_core_field_exists(none->x);
	out[3] = bpf_core_type_exists(struct sock);
	out[4] = bpf_core_type_size(struct file);
	out[5] = bpf_core_enum_value(enum zone_type, ZONE_NORMAL);
	out[6] = bpf_core_enum_value_exists(enum zone_type, ZONE_NORMAL);
	out[7] = BPF_CORE_READ_BITFIELD_PROBED(tcp, syn);
	out[8] = (__u64)BPF_CORE_READ(skb, dev);
	out[9] = bpf_core_field_offset(struct sock, __sk_common.skc_daddr);
	out[10] = bpf_core_type_matches(struct list_head);
	out[11] = bpf_core_field_size(struct task_struct, comm);
	out[12] = bpf_core_type_exists(btf_trace_sched_switch) + bpf_core_type_size(pid_t);
	out[13] = BPF_CORE_READ(task, se.vruntime) + bpf_core_type_id_local(struct file);
	return 0;
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path, carried_headers: Path, capsys: Capture
) -> Path:
    """Give a project with an object of this machine's architecture, as the working directory."""
    if not KERNEL.exists():
        pytest.skip("needs-kernel-feature: /sys/kernel/btf/vmlinux")
    command = [find_tool("bpftool"), "btf", "dump", "file", KERNEL, "format", "c"]
    (tmp_path / "bpf").mkdir()
    with (tmp_path / "bpf/vmlinux.h").open("wb") as file:
        subprocess.run(command, stdout=file, check=True)
    (tmp_path / "bpf/core.bpf.c").write_text(SOURCE)
    (tmp_path / "buildtool.toml").write_text('[sign]\nkey = "keys/dev.pem"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUILDTOOL_CLANG", str(clang))
    monkeypatch.setenv("BUILDTOOL_HEADERS", str(carried_headers))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert run(["keygen", "dev"]) == 0
    assert run(["compile"]) == 0
    capsys.readouterr()
    return tmp_path


def _dump(path: Path) -> str:
    argv = [find_tool("bpftool"), "btf", "dump", "file", path]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _error(capsys: Capture) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "buildtool: error: " in line]
    return line.removeprefix("buildtool: error: ")


def test_types_are_those_of_bpftool(project: Path, capsys: Capture) -> None:
    """Bpftool gen min_core_btf finds the same types with the same members for each kind of relocation."""
    arch = this_platform().arch
    assert run(["btf", str(KERNEL), "--release", "5.4.0-1"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [f"btf/{arch}/5.4.0-1.btf.o"]
    assert f"buildtool sign --arch {arch} btf/{arch}/*.btf.o" in captured.err
    path = project / f"btf/{arch}/5.4.0-1.btf.o"
    obj = parse_object(path.read_bytes())
    assert [section.name for section in obj.sections] == [b"", b".strtab", b".BTF"]
    assert read_with_llvm(path).section(".BTF").size == len(obj.contents(obj.sections[2]))
    theirs = project / "theirs.btf"
    objects = [project / f"build/{arch}/core.bpf.o"]
    subprocess.run([find_tool("bpftool"), "gen", "min_core_btf", KERNEL, theirs, *objects], check=True)
    assert _dump(path) == _dump(theirs)
    first = path.read_bytes()
    assert run(["btf", str(KERNEL), "--release", "5.4.0-1"]) == 0
    assert path.read_bytes() == first


def test_types_are_signed_and_verified_as_objects(project: Path, capsys: Capture) -> None:
    """With the project and version of the objects; --whole keeps the kernel's BTF as it is."""
    arch = this_platform().arch
    assert run(["btf", str(KERNEL), "--whole", "--output", "types"]) == 0
    (path,) = (project / "types").iterdir()
    obj = parse_object(path.read_bytes())
    assert obj.contents(obj.sections[2]) == KERNEL.read_bytes()
    assert run(["btf", str(KERNEL), "--object", f"build/{arch}/core.bpf.o", "--output", "types"]) == 0
    assert path.stat().st_size < 4000
    assert run(["sign", "--arch", arch, str(path)]) == 0
    assert run(["verify", "--arch", arch, "--trust", "keys/dev.pub", str(path)]) == 0
    assert f"{path}: accepted" in capsys.readouterr().out
    path.write_bytes(path.read_bytes().replace(b"task_struct", b"task_strukt"))
    assert run(["verify", "--arch", arch, "--trust", "keys/dev.pub", str(path)]) == 3


def test_wrong_files_and_options_are_one_line(project: Path, capsys: Capture) -> None:
    """Files that are no BTF, no objects, names that no statement can have; nothing is written."""
    arch = this_platform().arch
    (project / "5.4.btf").write_bytes(b"\x9f\xeb\x01\x00garbage")
    (project / "5.9.btf").write_bytes(b"text")
    (project / "sub").mkdir()
    (project / "sub/5.9.btf").write_bytes(b"text")
    (project / "bad.bpf.o").write_bytes(b"\x7fELF")
    for argv, code, message in (
        (["5.4.btf"], 1, f"5.4.btf: not the types of a kernel for {arch}: damaged BTF"),
        (["5.9.btf"], 1, f"5.9.btf: not the types of a kernel for {arch}: damaged BTF"),
        (["5.8.btf"], 1, "5.8.btf: cannot read: no such file or directory"),
        (["5.9.btf", "--object", "bad.bpf.o"], 1, "bad.bpf.o: truncated ELF file"),
        (["5.9.btf", "--arch", "arm64"], 2, "build/arm64: no objects with types"),
        (["5.9.btf", "--arch", "s390x", "--object", f"build/{arch}/core.bpf.o"], 2, "of another byte order"),
        (["5.9.btf", "--release", "a b"], 2, "'a b.btf.o' is not an object name"),
        (["5.9.btf", "5.4.btf", "--release", "x"], 2, "--release requires exactly one BTF"),
        (["vmlinux"], 2, "vmlinux: 'vmlinux' is not the release of a kernel"),
        (["vmlinux.btf"], 2, "vmlinux.btf: 'vmlinux' is not the release of a kernel"),
        (["5.9.btf", "--release", "generic"], 2, "'generic' is not the release of a kernel"),
        ([str(KERNEL), str(KERNEL)], 2, "two files for"),
        (["5.9.btf", "--whole", "--object", "bad.bpf.o"], 2, "--whole and --object exclude each other"),
        (["5.9.btf", "--arch", "amd64,arm64"], 2, "btf requires exactly one --arch"),
    ):
        assert run(["btf", *argv]) == code, argv
        assert message in _error(capsys), argv
    assert not (project / "btf").exists()


def test_check_has_no_rules_for_types(project: Path, capsys: Capture) -> None:
    """Such a file, which libbpf does not open, is left out beside objects, and an error alone."""
    arch = this_platform().arch
    assert run(["btf", str(KERNEL)]) == 0
    (made,) = (project / f"btf/{arch}").iterdir()
    assert run(["sign", "--arch", arch, str(made)]) == 0
    for place in (str(made), f"btf/{arch}"):
        capsys.readouterr()
        assert run(["check", place]) == 2
        assert "holds types of a kernel, and no program to check" in _error(capsys)
    (project / f"build/{arch}" / made.name).write_bytes(made.read_bytes())
    assert run(["check", f"build/{arch}", "--json"]) == 0
    assert made.name not in capsys.readouterr().out


def test_damaged_types_and_relocations_are_one_kind_of_error(project: Path) -> None:
    """Any byte of an object's types or of the kernel's may be another one: a result, or ObjectFormatError."""
    arch = this_platform().arch
    assert run(["btf", str(KERNEL)]) == 0
    obj = parse_object((project / f"build/{arch}/core.bpf.o").read_bytes())
    (path,) = (project / f"btf/{arch}").iterdir()
    kernel = parse_object(path.read_bytes())
    places = [section for section in obj.sections if section.name in (b".BTF", b".BTF.ext")]
    numbers = random.Random(7)  # noqa: S311 - not a secret
    outcomes = set()
    for turn in range(1500):
        mine, theirs = bytearray(obj.data), bytearray(kernel.data)
        target, section = (mine, numbers.choice(places)) if turn % 2 else (theirs, kernel.sections[2])
        for _ in range(numbers.randint(1, 3)):
            target[section.offset + numbers.randrange(section.size)] = numbers.randrange(256)
        try:
            changed, other = parse_object(bytes(mine)), parse_object(bytes(theirs))
            types, graph = read_types(changed), read_types(other)
            assert types is not None
            assert graph is not None
            minimize(graph, [(changed, types)])
            outcomes.add("made")
        except ObjectFormatError:
            outcomes.add("refused")
    assert outcomes == {"made", "refused"}
