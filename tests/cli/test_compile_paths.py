# SPDX-License-Identifier: Apache-2.0
"""The same bytes in directories of every length, with the types of a kernel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from labs.readelf import read_with_llvm

from buildtool.compile.sources import CompileOptions, compile_sources
from buildtool.compile.toolchain import find_toolchain
from buildtool.config.project import make_units
from buildtool.core.platforms import PLATFORMS
from buildtool.core.process import Runner
from buildtool.runtime.headers import provide_headers

pytestmark = [pytest.mark.tools, pytest.mark.network]

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")
# clang's memory moves with the length: these lengths gave two orders of types with clang 19.
LENGTHS = (1, 57, 121, 200)
SOURCE = """\
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct sock *);
	__type(value, __u64);
} seen SEC(".maps");
SEC("tp_btf/tcp_probe") int probe(__u64 *context)
{
	struct sock *sock = (void *)context[0];
	__u64 now = bpf_ktime_get_ns();
	if (BPF_CORE_READ(sock, __sk_common.skc_family) == 2)
		bpf_map_update_elem(&seen, &sock, &now, 0);
	return 0;
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def kernel_types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give vmlinux.h of this machine's kernel."""
    if not KERNEL_BTF.exists():
        pytest.skip("needs-kernel-feature: /sys/kernel/btf/vmlinux")
    if shutil.which("bpftool") is None:
        pytest.skip("needs-tool: bpftool")
    path = tmp_path_factory.mktemp("types") / "vmlinux.h"
    with path.open("wb") as file:
        command = ["bpftool", "btf", "dump", "file", KERNEL_BTF, "format", "c"]
        subprocess.run(command, stdout=file, check=True)
    return path


@pytest.mark.parametrize("clang", ["", "ziglang"])
def test_objects_do_not_depend_on_lengths_of_paths(tmp_path: Path, kernel_types: Path, clang: str) -> None:
    """Each length, for a little-endian and a big-endian machine: one object, and its declarations sorted."""
    headers = provide_headers({}, report=print, runner=Runner())
    toolchain = find_toolchain(clang)
    arches = [PLATFORMS[arch] for arch in (("amd64", "s390x") if clang else ("amd64",))]
    objects: dict[str, set[bytes]] = {platform.arch: set() for platform in arches}
    for length in LENGTHS:
        root = tmp_path / ("d" * length)
        (root / "bpf").mkdir(parents=True)
        (root / "bpf/vmlinux.h").symlink_to(kernel_types)
        (root / "bpf/v.bpf.c").write_text(SOURCE)
        units = make_units(["bpf/v.bpf.c"])
        outputs = [(platform, root / "build" / platform.arch, units) for platform in arches]
        options = CompileOptions(root=root, headers=headers)
        done = compile_sources(toolchain, outputs, options)
        for entry in done.objects:
            objects[entry.path.parent.name].add(entry.path.read_bytes())
    assert {arch: len(found) for arch, found in objects.items()} == {platform.arch: 1 for platform in arches}
    for platform in arches:
        path = tmp_path / f"d/build/{platform.arch}/v.bpf.o"
        assert read_with_llvm(path).section(".BTF").size > 0
        text = subprocess.run(
            ["bpftool", "btf", "dump", "file", path], capture_output=True, text=True, check=True
        ).stdout
        lines = [line for line in text.splitlines() if line.startswith("[")]
        tail = [line.split("'")[1] for line in lines if "] FWD " in line]
        assert len(tail) > 3
        assert all("] FWD " in line for line in lines[-len(tail) :])
        assert tail == sorted(tail)


def test_all_architectures_in_directories_of_every_length(tmp_path: Path) -> None:
    """Lengths from 1 to 200: one object for each architecture."""
    headers = provide_headers({}, report=print, runner=Runner())
    toolchain = find_toolchain()
    names = [f"{letter}{number}" for letter in "zyxcba" for number in (3, 1, 2)]
    members = " ".join(f"struct {name} *{name};" for name in names)
    types = f"struct every {{ {members} }};\n" + "".join(f"struct {name} {{ int i; }};\n" for name in names)
    source = (
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n" + types + "struct every every;\n"
        'SEC("socket") int f(void *c) { return every.a1 == 0; }\nchar LICENSE[] SEC("license") = "GPL";\n'
    )
    objects: dict[str, set[bytes]] = {arch: set() for arch in PLATFORMS}
    for length in range(1, 201, 10):
        root = tmp_path / ("d" * length)
        (root / "bpf").mkdir(parents=True)
        (root / "bpf/x.bpf.c").write_text(source)
        units = make_units(["bpf/x.bpf.c"])
        outputs = [(platform, root / "build" / platform.arch, units) for platform in PLATFORMS.values()]
        options = CompileOptions(root=root, headers=headers)
        done = compile_sources(toolchain, outputs, options)
        for entry in done.objects:
            objects[entry.path.parent.name].add(entry.path.read_bytes())
    assert {arch: len(found) for arch, found in objects.items()} == dict.fromkeys(PLATFORMS, 1)
