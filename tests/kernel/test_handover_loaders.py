# SPDX-License-Identifier: Apache-2.0
"""Loaders of other projects open what --hand-over gives them, by the code of the how-to page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from labs import TOP
from labs.bindings import BUILT, find_cargo, find_go, run_with_registry
from labs.compile import find_tool
from labs.loader import PREFIX, Lab

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

PAGE = TOP / "docs/how-to/keep-your-own-loader.md"
RAW_TP = {"name": f"{PREFIX}_raw", "section": "raw_tp/sys_enter", "type": "raw_tracepoint"}
MAP = f"{PREFIX}_map"
GO_EBPF = "github.com/cilium/ebpf@v0.19.0"
AYA = "aya@0.13.1"


def example(language: str) -> str:
    """Return the page's code in *language*, for the lab's object."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(code)


def check_counts(lab: Lab, directory: Path, *workload: str) -> None:
    """Start *workload* with the verified object: it loads, attaches, and prints the value of its map."""
    lab.put(directory, "raw_tp", programs=[RAW_TP])
    result = lab.run(directory, "--hand-over", "--", *workload)
    assert result.code == 0, (result.lines, result.stdout)
    assert int(result.stdout) > 0
    # Nothing starts when the object was changed.
    path = directory / "objects/raw_tp.bpf.o"
    data = bytearray(path.read_bytes())
    data[data.index(b"GPL\0")] ^= 1
    path.write_bytes(data)
    result = lab.run(directory, "--hand-over", "--", *workload)
    assert (result.code, result.stdout, result.reasons) == (3, "", ["digest-mismatch"])


def test_skeleton_of_libbpf(lab: Lab, clang: Path, tmp_path: Path) -> None:
    """C: bpftool's skeleton of the unsigned object, opened with the verified bytes."""
    (tmp_path / "unsigned.o").write_bytes(lab.object("raw_tp"))
    argv = [find_tool("bpftool"), "gen", "skeleton", tmp_path / "unsigned.o", "name", "count"]
    (tmp_path / "count.skel.h").write_bytes(subprocess.run(argv, capture_output=True, check=True).stdout)
    code = example("c").replace("BUILDTOOL_OBJECT_FD_count", "BUILDTOOL_OBJECT_FD_raw_tp")
    main = f"""
#include <stdio.h>
#include <unistd.h>
int main(void)
{{
	struct count *skel;
	int zero = 0;
	unsigned long long value = 0;

	libbpf_set_print(NULL);
	skel = open_verified();
	if (!skel || count__load(skel) || count__attach(skel))
		return 1;
	getppid();
	if (bpf_map__lookup_elem(skel->maps.{MAP}, &zero, sizeof(zero), &value, sizeof(value), 0))
		return 1;
	printf("%llu\\n", value);
	return 0;
}}
"""
    (tmp_path / "agent.c").write_text(code + main)
    argv = [clang, "-O1", tmp_path / "agent.c", "-o", tmp_path / "agent", "-lbpf"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_counts(lab, tmp_path, str(tmp_path / "agent"))


def test_cilium_ebpf(lab: Lab, tmp_path: Path) -> None:
    """Go: the collection is read from the descriptor."""
    go = find_go()
    project = tmp_path / "agent"
    project.mkdir()
    main = f"""
func main() {{
	spec, err := loadVerified("raw_tp")
	if err != nil {{
		panic(err)
	}}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {{
		panic(err)
	}}
	options := link.RawTracepointOptions{{Name: "sys_enter", Program: collection.Programs["{PREFIX}_raw"]}}
	if _, err := link.AttachRawTracepoint(options); err != nil {{
		panic(err)
	}}
	os.Getppid()
	var value uint64
	if err := collection.Maps["{MAP}"].Lookup(uint32(0), &value); err != nil {{
		panic(err)
	}}
	fmt.Println(value)
}}
"""
    imports = '"fmt"\n"os"\n"strconv"\n"github.com/cilium/ebpf"\n"github.com/cilium/ebpf/link"\n'
    (project / "main.go").write_text(f"package main\nimport (\n{imports})\n{example('go')}{main}")
    run_with_registry([go, "mod", "init", "example.org/agent"], project)
    run_with_registry([go, "get", GO_EBPF], project)
    run_with_registry([go, "build", "-mod=mod", "-o", "agent", "."], project)
    check_counts(lab, tmp_path, str(project / "agent"))


@pytest.mark.weekly
@pytest.mark.timeout(900)
def test_aya(lab: Lab, tmp_path: Path) -> None:
    """Rust: the bytes are read from the descriptor."""
    cargo = find_cargo()
    project = tmp_path / "agent"
    main = f"""
fn main() -> Result<(), Box<dyn std::error::Error>> {{
    let mut object = load_verified("raw_tp")?;
    let program: &mut aya::programs::RawTracePoint =
        object.program_mut("{PREFIX}_raw").ok_or("no program")?.try_into()?;
    program.load()?;
    program.attach("sys_enter")?;
    std::fs::metadata("/")?;
    let map: aya::maps::Array<_, u64> = object.map("{MAP}").ok_or("no map")?.try_into()?;
    println!("{{}}", map.get(&0, 0)?);
    Ok(())
}}
"""
    run_with_registry([cargo, "new", "--vcs=none", "--name=agent", project], tmp_path)
    (project / "src/main.rs").write_text(example("rust") + main)
    run_with_registry([cargo, "add", "--quiet", "--no-default-features", AYA], project)
    run_with_registry([cargo, "build", "--quiet"], project)
    check_counts(lab, tmp_path, str(shutil.copy(BUILT / "rust/debug/agent", tmp_path)))


def test_python(lab: Lab, tmp_path: Path) -> None:
    """Python: the bytes go to libbpf by ctypes."""
    main = f"""
libbpf = ctypes.CDLL("libbpf.so.1")
libbpf.libbpf_set_print(None)
pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
for name, result, arguments in (
    ("bpf_object__open_mem", pointer, [text, size, pointer]),
    ("bpf_object__load", ctypes.c_int, [pointer]),
    ("bpf_object__find_program_by_name", pointer, [pointer, text]),
    ("bpf_program__attach", pointer, [pointer]),
    ("bpf_object__find_map_by_name", pointer, [pointer, text]),
    ("bpf_map__lookup_elem", ctypes.c_int, [pointer, pointer, size, pointer, size, ctypes.c_uint64]),
):
    function = getattr(libbpf, name)
    function.restype, function.argtypes = result, arguments
data = verified_object("raw_tp")
opened = libbpf.bpf_object__open_mem(data, len(data), None)
assert opened and not libbpf.bpf_object__load(opened)
program = libbpf.bpf_object__find_program_by_name(opened, b"{PREFIX}_raw")
assert libbpf.bpf_program__attach(program)
os.getppid()
key, value = ctypes.c_uint32(0), ctypes.c_uint64(0)
counts = libbpf.bpf_object__find_map_by_name(opened, b"{MAP}")
assert not libbpf.bpf_map__lookup_elem(counts, ctypes.byref(key), 4, ctypes.byref(value), 8, 0)
print(value.value)
"""
    imports = "import ctypes\nimport os\nfrom pathlib import Path\n\n\n"
    (tmp_path / "agent.py").write_text(imports + example("python") + main)
    check_counts(lab, tmp_path, sys.executable, str(tmp_path / "agent.py"))
