# SPDX-License-Identifier: Apache-2.0
"""Error lines for a program that the kernel verifier rejects: objection, line of C, instruction."""

from __future__ import annotations

import subprocess
from pathlib import Path

import labs.attach  # noqa: F401 - adds its objects
import pytest
from labs.loader import PREFIX, Lab

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

CASES = {
    "scalar": ["R1 invalid mem access 'scalar'", ": return *(__u64 *)(long)c[0];", "(79) r0 = *(u64 *)(r1"],
    "unchecked": ["R0 invalid mem access 'map_value_or_null'", ": return *(__u64 *)bpf_map_lookup_elem("],
    "loops": ["infinite loop detected", ": for (volatile int i"],
    "core": ["failed to resolve CO-RE relocation", "no_such_member"],
    "helper": ["bpf_redirect#23", ": return bpf_redirect(1, 0);"],
}


@pytest.mark.parametrize("kind", CASES)
def test_refused_program_is_explained(lab: Lab, tmp_path: Path, kind: str) -> None:
    """One line has the kernel's objection, the line of C and the instruction."""
    lab.put(tmp_path, kind)
    result = lab.run(tmp_path)
    assert result.code == 1
    assert result.message.startswith(f"{kind}.bpf.o: cannot load: program {PREFIX}_prog: ")
    assert ", at source.bpf.c:" in result.message
    assert all(word in result.message for word in CASES[kind]), result.message
    assert result.events("load") == []


def test_human_log_shows_the_end_of_the_kernel_log(lab: Lab, tmp_path: Path) -> None:
    """--log human prints the last lines of the kernel's log before the error."""
    lab.put(tmp_path, "scalar")
    argv = lab.argv(tmp_path, "--log", "human")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    shown = [line for line in lines if line.startswith("verify-and-load: kernel scalar.bpf.o: ")]
    assert 2 <= len(shown) <= 8
    assert shown[-1].endswith("R1 invalid mem access 'scalar'")
    assert any("; return *(__u64 *)" in line for line in shown)
    assert lines[-1].startswith("verify-and-load: error")


def test_trace_of_a_long_program_does_not_hide_the_reason(lab: Lab, tmp_path: Path) -> None:
    """A log of thousands of instructions does not push out the objection."""
    lab.put(tmp_path, "long")
    result = lab.run(tmp_path)
    assert result.code == 1
    assert "invalid mem access 'scalar', at source.bpf.c:" in result.message
    assert "return *(__u64 *)(long)(c[0] + x);" in result.message
