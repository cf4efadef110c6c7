# SPDX-License-Identifier: Apache-2.0
"""The reader of code for policies: for objects of a real compiler, it agrees with the statement."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from labs import TOP
from labs.compile import compile_sample
from labs.libbpf import read_sections

from buildtool.objects import elf as elfobj
from buildtool.objects import types as bpfnames
from buildtool.objects.calls import read_code
from buildtool.objects.describe import describe_object
from buildtool.objects.helpers import HELPER_NUMBERS, helper_name


@pytest.mark.tools
@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
@pytest.mark.parametrize("strip", [True, False], ids=["stripped", "with-dwarf"])
def test_code_of_a_compiled_object(tmp_path: Path, target: str, *, strip: bool) -> None:
    """The strict reader and the one that describes find the same calls and sections."""
    obj = elfobj.parse_object(compile_sample(tmp_path, target=target, strip=strip).read_bytes())
    code, contents = read_code(obj), describe_object(obj)
    assert tuple(sorted(code.helpers)) == contents.helpers == (1, 3, 131, 132)
    assert tuple(sorted(name.decode() for name in code.kfuncs)) == contents.kfuncs
    assert {name.decode() for name in code.sections} == {program.section for program in contents.programs}


def test_three_tables_of_section_names_agree() -> None:
    """The specification, the loader and the Python side give each section name one type."""
    spec = (TOP / "spec/trust-policy.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (`[^|]*`) \|$", spec, re.MULTILINE)
    in_spec = {name: kind for kind, names in rows for name in re.findall(r"`([^`]+)`", names)}
    source = (TOP / "loader/verify/section_types.c").read_text()
    table = re.findall(r'\{ "(\w+)",((?:\s*"[^"]*")+) \}', source)
    in_c = {name: kind for kind, text in table for name in "".join(re.findall(r'"([^"]*)"', text)).split()}
    assert in_spec == in_c == bpfnames.SECTION_TYPES


def test_section_types_are_those_of_the_carried_libbpf() -> None:
    """The table is that of the libbpf in the loader, with the same names and types."""
    assert read_sections() == bpfnames.SECTION_TYPES


def test_helper_numbers_are_libbpfs(sysroot: Path) -> None:
    """The table of names is that of libbpf's headers."""
    text = (sysroot / "usr/include/bpf/bpf_helper_defs.h").read_text()
    found = re.findall(r"\(\*\s*(?:const\s+)?(bpf_\w+)\)\([^;]*?=\s*\(void \*\)\s*(\d+)", text)
    assert {name: int(number) for name, number in found} == HELPER_NUMBERS
    assert [helper_name(number) for number in (36, 212)] == ["bpf_probe_write_user", "212"]
