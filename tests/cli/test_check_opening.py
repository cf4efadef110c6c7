# SPDX-License-Identifier: Apache-2.0
"""`buildtool check` lets the carried libbpf open each object, without a kernel and without privileges."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from labs.check import NEVER, NEVER_HEAD, loadable, read_junit, run_check
from labs.compile import compile_object, find_tool
from labs.vectors.builder import SHT_NOBITS, build
from labs.vectors.code import code, makes

from buildtool.core.platforms import host_platform
from buildtool.objects.elf import parse_object


def findings(probes: Path, *arguments: str | Path, code: int) -> list[tuple[str, str, str]]:
    """Run a check and return rule, level and message of each finding."""
    report = json.loads(run_check(probes, *arguments, "--json", code=code).stdout)
    return [(f["rule"], f["level"], f["message"]) for f in report["findings"]]


@pytest.mark.parametrize("name", NEVER)
def test_what_never_loads_fails(probes: Path, clang: Path, sysroot: Path, tmp_path: Path, name: str) -> None:
    """Each source has exactly one error, with its rule and reason. The mended copy passes."""
    never = NEVER[name]
    broken = compile_object(tmp_path, clang, sysroot, NEVER_HEAD + never.source)
    found = findings(probes, broken, code=1)
    errors = [(rule, message) for rule, level, message in found if level == "error"]
    if name == "undefined-function":  # a static rule says the same, before libbpf
        assert errors.pop(0)[0] == "BT016"
    assert [rule for rule, _ in errors] == [never.rule]
    assert never.says in errors[0][1]
    mended = compile_object(tmp_path, clang, sysroot, NEVER_HEAD + never.mended, "mended")
    assert findings(probes, mended, code=0) == []


def test_a_function_in_another_section(probes: Path, clang: Path, sysroot: Path, tmp_path: Path) -> None:
    """A function in a section of unknown type is one error, and a call of it is another."""
    source = 'SEC("mine") __attribute__((noinline)) int sub(int x) { asm volatile(""); return x; } '
    source += 'SEC("xdp") int p(int *c) { return sub(*c); }'
    path = compile_object(tmp_path, clang, sysroot, NEVER_HEAD + source)
    found = {rule: message for rule, _, message in findings(probes, path, code=1)}
    assert found.keys() == {"BT005", "BT007"}
    words = "prog 'p': bad call relo against 'sub' in section 'mine'"
    assert found["BT007"] == f"{words} (remove the section of sub, which is called)"


def test_an_object_without_symbols(probes: Path, clang: Path, sysroot: Path, tmp_path: Path) -> None:
    """The error of a stripped symbol table has a hint about strip."""
    path = compile_object(tmp_path, clang, sysroot, NEVER_HEAD + "GOOD")
    objcopy = find_tool("llvm-objcopy", "llvm-objcopy-19", "llvm-objcopy-22")
    subprocess.run([objcopy, "--strip-all", path], check=True)
    found = {rule: message for rule, _, message in findings(probes, path, code=1)}
    assert found["BT007"].startswith("elf: couldn't find symbol table, stripped object file? (strip with ")


def test_optional_programs_may_be_unloadable(
    probes: Path, clang: Path, sysroot: Path, tmp_path: Path
) -> None:
    """Unloadable optional programs (SEC("?...")) are warnings, because only an option loads them."""
    path = compile_object(
        tmp_path, clang, sysroot, NEVER_HEAD + 'SEC("?freplace") int b(void *c) { return 0; } GOOD'
    )
    found = [(rule, level) for rule, level, _ in findings(probes, path, code=0)]
    assert found == [("BT014", "warning")]


def test_a_replaced_function_is_not_tried(probes: Path, clang: Path, sysroot: Path, tmp_path: Path) -> None:
    """A note says that only the start names the program with the function, and kernels try the others."""
    source = 'SEC("freplace/main") int b(void *c) { return 0; } GOOD'
    path = compile_object(tmp_path, clang, sysroot, NEVER_HEAD + source)
    ((rule, level, message),) = findings(probes, path, code=0)
    assert (rule, level) == ("BT014", "note")
    assert message.startswith("section 'freplace/main' replaces a function of a program that the start names")


@pytest.mark.parametrize(("section", "level"), [("fsession/f", "error"), ("?fsession/f", "warning")])
def test_a_probe_of_an_older_libbpf(
    clang: Path, sysroot: Path, tmp_path: Path, section: str, level: str
) -> None:
    """A section of this buildtool that the probe's libbpf does not know is a finding about the probe."""
    source = f'SEC("{section}") int f(void *c) {{ return 0; }}'
    path = compile_object(tmp_path, clang, sysroot, NEVER_HEAD + source)
    own = host_platform(os.uname().machine)
    assert own is not None
    probe = tmp_path / own.arch / "bpf-probe"
    probe.parent.mkdir()
    opened = {"event": "opened", "object": str(path), "program": "f", "section": "fsession/f"}
    lines = [
        {"event": "kernel", "release": "6.1", "machine": "x86_64", "libbpf": "v1.5"},
        opened | {"type": "unspec"},
        {"event": "end"},
    ]
    text = "".join(f"echo '{json.dumps(line)}'\n" for line in lines)
    probe.write_text(f"#!/bin/sh\n{text}")
    probe.chmod(0o755)
    found = findings(tmp_path, path, code=1 if level == "error" else 0)
    assert ("BT009", level, "the loader's libbpf 1.5 does not know section 'fsession/f'") in found


def test_objects_of_the_other_byte_order_are_not_opened(probes: Path, tmp_path: Path) -> None:
    """A note has the number of objects that libbpf did not open."""
    (tmp_path / "little.bpf.o").write_bytes(loadable())
    (tmp_path / "big.bpf.o").write_bytes(build(makes(code(), order=">")))
    found = [item for item in findings(probes, tmp_path, code=0) if item[0] == "BT008"]
    assert found == [("BT008", "note", "1 of 2 objects are big-endian, and this machine is not")]


def test_without_a_probe_a_note_says_so(tmp_path: Path) -> None:
    """Without bpf-probe, a note reports that libbpf opened no object, and the rules are checked."""
    (tmp_path / "x.bpf.o").write_bytes(loadable())
    done = run_check(tmp_path / "empty", tmp_path / "x.bpf.o", code=0)
    assert "note BT008 libbpf: this installation has no bpf-probe to open objects with\n" in done.stdout
    assert done.stderr.endswith("1 object, 1 warning, 1 note: passed\n")


@pytest.mark.parametrize(
    ("script", "is_crash"),
    [("kill -SEGV $$", True), ("echo nothing", False), ("exit 3", False)],
    ids=["crash", "cut-off", "error"],
)
def test_a_probe_that_does_not_answer(tmp_path: Path, script: str, *, is_crash: bool) -> None:
    """A crash of the probe is a finding about the object. Another failure of the probe ends the check."""
    (tmp_path / "x.bpf.o").write_bytes(loadable())
    for arch in ("amd64", "arm64"):
        (tmp_path / arch).mkdir()
        (tmp_path / arch / "bpf-probe").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / arch / "bpf-probe").chmod(0o755)
    done = run_check(tmp_path, tmp_path / "x.bpf.o", code=1)
    assert ("error BT007 x.bpf.o: libbpf crashes on this object" in done.stdout) == is_crash
    assert ("buildtool: error: bpf-probe: " in done.stderr) != is_crash


def test_reports_have_what_libbpf_says(probes: Path, clang: Path, sysroot: Path, tmp_path: Path) -> None:
    """The JUnit report has the finding as a failed case with libbpf's error."""
    path = compile_object(tmp_path, clang, sysroot, NEVER_HEAD + NEVER["misspelt-field"].source)
    run_check(probes, path, "--junit", tmp_path / "check.xml", code=1)
    failures = read_junit(tmp_path / "check.xml").findall("testsuite/testcase/failure")
    assert ["unknown field 'max_entry'" in failure.attrib["message"] for failure in failures] == [True]


ARENA = """
struct { __uint(type, BPF_MAP_TYPE_ARENA); __uint(map_flags, BPF_F_MMAPABLE); __uint(max_entries, 4); }
    arena SEC(".maps");
int __attribute__((address_space(1))) zeroes[100];
SEC("socket") int p(void *c) { bpf_map_lookup_elem(&arena, c); return zeroes[3]; }
"""


def test_zeroes_of_an_arena_are_bytes_of_the_file(
    probes: Path, clang: Path, sysroot: Path, tmp_path: Path
) -> None:
    """The form that clang writes is opened, and the one without bytes is not: so the zeroes count."""
    path = compile_object(tmp_path, clang, sysroot, NEVER_HEAD + ARENA)
    assert findings(probes, path, code=0) == []
    data = bytearray(path.read_bytes())
    obj = parse_object(bytes(data))
    (number,) = (n for n, item in enumerate(obj.sections) if item.name == b".addr_space.1")
    assert bytes(obj.contents(obj.sections[number])) == bytes(400)
    at = int.from_bytes(data[40:48], "little") + 64 * number + 4
    data[at : at + 4] = SHT_NOBITS.to_bytes(4, "little")
    path.write_bytes(data)
    found = {rule: message for rule, _, message in findings(probes, path, code=1)}
    assert "zeroes" in found["BT007"]
