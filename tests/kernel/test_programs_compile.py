# SPDX-License-Identifier: Apache-2.0
"""The shipped programs compile for either byte order without a warning, and load here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from labs import TOP, kernel
from labs.compile import compile_shipped
from labs.run import run

# Limit of verified instructions: the start of every container waits for the kernel verifier.
MOST_VERIFIED = 5000
PROGRAMS = {
    "opcua_monitor": {"opcua_monitor"},
    "tx_latency": {"tx_queue", "tx_start", "tx_drop"},
    "cgroup_traffic": {"cgroup_ingress", "cgroup_egress"},
}


def test_every_source_is_known() -> None:
    """The tests load every shipped program."""
    sources = {path.name.removesuffix(".bpf.c") for path in (TOP / "bpf").glob("*.bpf.c")}
    assert sources == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("arch", ["amd64", "arm64", "s390x"])
def test_there_are_no_warnings(tmp_path: Path, name: str, arch: str) -> None:
    """-Wall and -Wextra report nothing, little-endian or big-endian."""
    path = compile_shipped(name, tmp_path, "--arch", arch, "--flag=-Wall", "--flag=-Wextra", "--flag=-Werror")
    assert path.read_bytes()[5] == (2 if arch == "s390x" else 1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_all_programs_load(tmp_path: Path, name: str) -> None:
    """The kernel verifier accepts every program of the object, under the documented name."""
    with kernel.loaded(compile_shipped(name, tmp_path)) as objects:
        assert {pin.name for pin in objects.programs.iterdir()} == PROGRAMS[name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_few_instructions_are_verified(tmp_path: Path, name: str) -> None:
    """No program needs more than 5000 verified instructions."""
    path = compile_shipped(name, tmp_path)
    done = run(sys.executable, "-m", "buildtool", "check", "--kernel", "host", "--json", path.parent)
    verdicts = {run["program"]: run["verdict"] for run in json.loads(done)["runs"]}
    assert verdicts.keys() == PROGRAMS[name]
    assert max(verdict["instructions"] for verdict in verdicts.values()) <= MOST_VERIFIED
