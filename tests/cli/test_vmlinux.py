# SPDX-License-Identifier: Apache-2.0
"""`buildtool vmlinux`: types of a package or of BTF, with a record that compiling compares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from labs.mirror import Mirror

from buildtool.cli.main import run
from buildtool.core.errors import FileAccessError, ToolFailedError
from buildtool.core.platforms import PLATFORMS
from buildtool.core.process import Runner
from buildtool.runtime.vmlinux import PackageRequest, types_of_package

pytestmark = pytest.mark.tools

SOURCE = """\
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
SEC("socket") int types(struct __sk_buff *c) { return sizeof(struct task_struct) > 0; }
char LICENSE[] SEC("license") = "GPL";
"""
HEADER = b"struct task_struct { int pid; };\nstruct __sk_buff { int len; };\ntypedef unsigned int __u32;\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path) -> Path:
    """Give a project with a source that includes vmlinux.h, as the working directory."""
    root = tmp_path / "project"
    (root / "bpf").mkdir(parents=True)
    (root / "bpf/types.bpf.c").write_text(SOURCE)
    (root / "buildtool.toml").write_text('[compile.amd64]\ninclude = ["vmlinux/amd64"]\n')
    monkeypatch.chdir(root)
    monkeypatch.setenv("BUILDTOOL_CLANG", str(clang))
    return root


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    (error,) = [line for line in lines if line.startswith("buildtool: error: ")]
    return error.removeprefix("buildtool: error: ")


def test_types_of_a_package(mirror: Mirror, tmp_path: Path) -> None:
    """The header of the architecture's package, its version and digest; without a header, an error."""
    place = "usr/include/aarch64-linux-gnu/linux/bpf/vmlinux.h"
    deb = mirror.add("linux-bpf-dev", "6.12.117-1", "arm64", {place: HEADER})
    mirror.publish(deb, arch="arm64")
    request = PackageRequest(cache=tmp_path, mirror=mirror.uri, keyring=mirror.keys.keyring)
    types = types_of_package(PLATFORMS["arm64"], request, runner=Runner())
    assert (types.data, types.source, types.source_sha256) == (HEADER, "linux-bpf-dev 6.12.117-1", deb.digest)
    mirror.publish(mirror.add("linux-bpf-dev", "7.2-1", "arm64", {"usr/include/x.h": b""}), arch="arm64")
    with pytest.raises(ToolFailedError, match=r"linux-bpf-dev for arm64: has no vmlinux\.h"):
        types_of_package(PLATFORMS["arm64"], request, runner=Runner())


def test_types_of_a_kernel_compile_and_are_locked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """BTF of an object stands for a kernel's: made, compiled with, changed, made again."""
    if shutil.which("bpftool") is None:
        pytest.skip("needs-tool: bpftool")
    kernel = Path("/sys/kernel/btf/vmlinux")
    if not kernel.exists():
        pytest.skip("needs-kernel-feature: /sys/kernel/btf/vmlinux")
    assert run(["compile", "--arch", "amd64"]) == 1
    assert "hint: buildtool vmlinux --arch amd64 makes it" in capsys.readouterr().err
    assert run(["vmlinux", "--arch", "amd64", "--kernel", str(kernel)]) == 0
    output = capsys.readouterr()
    assert output.out == "vmlinux/amd64/vmlinux.h\n"
    assert output.err == 'buildtool: [compile.amd64] finds it by include = ["vmlinux/amd64"]\n'
    header = project / "vmlinux/amd64/vmlinux.h"
    record = json.loads((project / "vmlinux/amd64/vmlinux.json").read_text())
    assert (record["arch"], record["source"], len(record["sha256"])) == ("amd64", "vmlinux", 64)
    made = header.read_bytes()
    assert run(["compile", "--arch", "amd64"]) == 0
    capsys.readouterr()
    header.write_bytes(made + b"/* changed */\n")
    assert run(["compile", "--arch", "amd64"]) == 1
    assert _error(capsys) == "vmlinux/amd64/vmlinux.h: not the header that vmlinux.json records"
    assert run(["vmlinux", "--arch", "amd64", "--btf", str(kernel)]) == 0
    assert header.read_bytes() == made
    assert run(["compile", "--arch", "amd64"]) == 0
    # The same directory for another architecture.
    capsys.readouterr()
    assert run(["compile", "--arch", "arm64", "--include", "vmlinux/amd64"]) == 1
    assert _error(capsys) == "vmlinux/amd64/vmlinux.h: the types of a kernel for amd64, included for arm64"


def test_other_types_replace_a_record_only_when_asked(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names both sources, and nothing changes without --update."""
    if shutil.which("bpftool") is None:
        pytest.skip("needs-tool: bpftool")
    (project / "buildtool.toml").write_text("")
    text = "#include <linux/bpf.h>\nstruct one { int i; } one;\n"
    (project / "bpf/types.bpf.c").write_text(text)
    assert run(["compile", "--arch", "amd64", "--output", "a"]) == 0
    (project / "bpf/types.bpf.c").write_text(text.replace("int i", "long i"))
    assert run(["compile", "--arch", "amd64", "--output", "b"]) == 0
    for name in ("a", "b"):
        btf = ["llvm-objcopy-19", f"--dump-section=.BTF={name}.btf", f"{name}/types.bpf.o", "/dev/null"]
        Runner().run(btf)
    assert run(["vmlinux", "--arch", "amd64", "--btf", "a.btf"]) == 0
    before = {path.name: path.read_bytes() for path in (project / "vmlinux/amd64").iterdir()}
    assert b"struct one" in before["vmlinux.h"]
    capsys.readouterr()
    assert run(["vmlinux", "--arch", "amd64", "--btf", "b.btf"]) == 1
    assert _error(capsys) == "vmlinux/amd64/vmlinux.json: records other types: a.btf, and these are of b.btf"
    assert {path.name: path.read_bytes() for path in (project / "vmlinux/amd64").iterdir()} == before
    assert run(["vmlinux", "--arch", "amd64", "--btf", "b.btf", "--update"]) == 0
    assert json.loads((project / "vmlinux/amd64/vmlinux.json").read_text())["source"] == "b.btf"
    capsys.readouterr()
    assert run(["vmlinux", "--arch", "s390x", "--btf", "b.btf"]) == 2
    assert _error(capsys) == "b.btf: BTF of the other byte order than s390x"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--btf", "missing"], 1, "missing: cannot read: no such file or directory"),
        (["--btf", "buildtool.toml"], 2, "buildtool.toml: neither BTF nor an uncompressed kernel (vmlinux)"),
        (["--btf", "arm"], 2, "arm: a file for another machine than amd64: ELF machine 183"),
        (["--btf", "empty"], 1, "empty: bpftool reads no BTF in it"),
        (["--btf", "x", "--arch", "arm64"], 2, "--btf requires exactly one --arch"),
        (["--arch", "vax"], 2, "unknown architecture 'vax'"),
    ],
)
def test_bad_input_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    """The file and what is wrong with it; nothing is written."""
    if shutil.which("bpftool") is None:
        pytest.skip("needs-tool: bpftool")
    (project / "arm").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\x00" + bytes(44))
    (project / "empty").write_bytes(b"\x9f\xeb\x01" + bytes(40))
    assert run(["vmlinux", "--arch", "amd64", *arguments]) == code
    assert _error(capsys) == message
    assert not (project / "vmlinux").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": 1, "arch": 3}', "[" * 9999])
def test_a_damaged_record_is_one_error(project: Path, text: str) -> None:
    """Whatever is in the record, compiling with the header beside it ends in one kind of error."""
    from buildtool.compile.kerneltypes import check_types

    place = project / "vmlinux/amd64"
    place.mkdir(parents=True)
    (place / "vmlinux.json").write_text(text)
    (place / "vmlinux.h").write_bytes(HEADER)
    with pytest.raises(FileAccessError, match="not a record of kernel types"):
        check_types(project, ["vmlinux/amd64/vmlinux.h"], PLATFORMS["amd64"])
