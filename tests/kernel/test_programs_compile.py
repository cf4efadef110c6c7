# SPDX-License-Identifier: Apache-2.0
"""The programs compile for either byte order without a warning, and load here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from labs import TOP, kernel
from labs.compile import compile_shipped
from labs.run import run

# Instructions that the kernel verifier may look at: every container's start waits for them.
MOST_VERIFIED = 5000
PROGRAMS = {
    "opcua_monitor": {"opcua_monitor"},
    "tx_latency": {"tx_queue", "tx_start", "tx_drop"},
    "cgroup_traffic": {"cgroup_ingress", "cgroup_egress"},
}


def test_every_source_is_known() -> None:
    """No program is shipped that the tests do not load."""
    sources = {path.name.removesuffix(".bpf.c") for path in (TOP / "bpf").glob("*.bpf.c")}
    assert sources == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("arch", ["amd64", "arm64", "s390x"])
def test_there_are_no_warnings(tmp_path: Path, name: str, arch: str) -> None:
    """-Wextra finds nothing, little-endian or big-endian."""
    path = compile_shipped(name, tmp_path, "--arch", arch, "--flag=-Wall", "--flag=-Wextra", "--flag=-Werror")
    assert path.read_bytes()[5] == (2 if arch == "s390x" else 1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_all_programs_load(tmp_path: Path, name: str) -> None:
    """The kernel verifier accepts every program of the object, under the documented name."""
    with kernel.loaded(compile_shipped(name, tmp_path)) as objects:
        assert {pin.name for pin in objects.programs.iterdir()} == PROGRAMS[name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_verifier_is_soon_done(tmp_path: Path, name: str) -> None:
    """A start waits for the kernel verifier: no program sends it through every order of headers."""
    path = compile_shipped(name, tmp_path)
    done = run(sys.executable, "-m", "buildtool", "check", "--kernel", "host", "--json", path.parent)
    verdicts = {run["program"]: run["verdict"] for run in json.loads(done)["runs"]}
    assert verdicts.keys() == PROGRAMS[name]
    assert max(verdict["instructions"] for verdict in verdicts.values()) <= MOST_VERIFIED
