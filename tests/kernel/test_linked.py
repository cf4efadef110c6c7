# SPDX-License-Identifier: Apache-2.0
"""An object of several sources on this kernel: signed, verified, loaded, and in a skeleton."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from labs.compile import find_tool
from labs.kernel import list_bpf
from labs.linked import MARK, write_linked
from labs.run import run, wait_until

from buildtool.cli.main import run as buildtool
from buildtool.core.platforms import this_platform
from buildtool.runtime.probe import PROBES_VARIABLE

pytestmark = pytest.mark.usefixtures("as_root")

AGENT = f"""
#include "agent.skel.h"
#include <stdio.h>
int main(void)
{{
	struct agent *skel = agent__open();
	unsigned long long value = 0;
	int zero = 0;

	if (!skel || skel->rodata->base != 40)
		return 3;
	skel->rodata->base = 998;
	if (agent__load(skel) || agent__attach(skel))
		return 1;
	fputs("", stderr);
	if (bpf_map__lookup_elem(skel->maps.{MARK}_counts, &zero, sizeof(zero), &value, sizeof(value), 0))
		return 1;
	agent__destroy(skel);
	printf("%llu\\n", value);
	return 0;
}}
"""


@pytest.fixture
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probes: Path, carried_headers: Path) -> Path:
    """Give a directory with the signed objects of the project, of two sources each."""
    root = write_linked(tmp_path / "project")
    monkeypatch.setenv("BUILDTOOL_HEADERS", str(carried_headers))
    monkeypatch.setenv(PROBES_VARIABLE, str(probes))
    monkeypatch.chdir(root)
    assert buildtool(["keygen", "dev"]) == 0
    assert buildtool(["compile", "bpf/agent/entry.bpf.c"]) == 0
    made = root / "build" / this_platform().arch
    argv = ["sign", str(made / "agent.bpf.o"), str(made / "agent-3.bpf.o")]
    assert buildtool([*argv, "--key", "keys/dev.pem", "--output", "signed"]) == 0
    return root / "signed"


def _counted() -> list[int]:
    """Return the values of the maps of this process's objects."""
    values = []
    for found in list_bpf("map"):
        if found.get("name") == f"{MARK}_counts":
            argv = ["bpftool", "-j", "map", "lookup", "id", str(found["id"]), "key", "0", "0", "0", "0"]
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
            value = json.loads(done.stdout)["value"]
            values.append(int.from_bytes(bytes(int(byte, 16) for byte in value), "little"))
    return values


def test_linked_objects_are_verified_loaded_and_run(objects: Path, loader_binary: Path) -> None:
    """A program counts in the map of another source by its functions, of which the strong one is called."""
    argv = [loader_binary, "--objects", objects, "--trust", objects.parent / "keys", "--reload"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as loader:
        try:
            # sys_enter runs with each call of this process: 40 and STEP, 2 or 3, for each object.
            assert wait_until(lambda: sorted(value > 0 for value in _counted()) == [True, True])
            one, other = _counted()
        finally:
            loader.terminate()
            _, errors = loader.communicate(timeout=30)
    assert loader.returncode == 0, errors
    assert (one % 42, other % 43) == (0, 0) or (one % 43, other % 42) == (0, 0), (one, other)
    lines = [json.loads(line) for line in errors.splitlines()]
    verified = [line for line in lines if line["event"] == "verify"]
    assert [line["decision"] for line in verified] == ["accepted", "accepted"]


def test_changed_linked_object_is_refused(objects: Path, loader_binary: Path) -> None:
    """The signature covers what the linker wrote: the code of each source."""
    path = objects / "agent.bpf.o"
    data = bytearray(path.read_bytes())
    data[data.index(b"GPL\0")] ^= 1
    path.write_bytes(data)
    argv = [loader_binary, "--objects", objects, "--trust", objects.parent / "keys", "--verify-only"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert '"reason":"digest-mismatch"' in done.stderr


def test_skeleton_of_a_linked_object(objects: Path, clang: Path, tmp_path: Path) -> None:
    """A skeleton of bpftool has the map and the constant of one source and the program of the other."""
    argv = [find_tool("bpftool"), "gen", "skeleton", objects / "agent.bpf.o", "name", "agent"]
    skeleton = subprocess.run(argv, capture_output=True, check=True).stdout
    (tmp_path / "agent.skel.h").write_bytes(skeleton)
    (tmp_path / "agent.c").write_text(AGENT)
    run(clang, "-Wall", "-O1", tmp_path / "agent.c", "-lbpf", "-o", tmp_path / "agent")
    done = subprocess.run([tmp_path / "agent"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    assert int(done.stdout) % 1000 == 0
