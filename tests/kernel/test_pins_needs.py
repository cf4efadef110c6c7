# SPDX-License-Identifier: Apache-2.0
"""The capabilities that ebpf-pins needs for each kind of link."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.kernel import TRACEFS, bpf_file_system, cgroup2
from labs.loader import Lab
from labs.pins import CGROUP, RAW, Releases
from labs.privileges import AS_USER, USER, root_with, user_with

from buildtool.objects.capabilities import FILE_ATTRIBUTE, PINS_NAME, file_attribute, program_capabilities

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--capabilities=NET_ADMIN,PERFMON", "--", "/bin/true")
TRACEPOINT = 'SEC("tracepoint/syscalls/sys_enter_getpgid") int @_tp(void *c) { count(RELEASE); return 0; }'
# Source of the program, the cgroup of each of two releases, and what a rollback needs beside BPF.
KINDS = {
    "raw_tp": (RAW, ("", ""), ()),
    "cgroup_skb, updated": (CGROUP, ("a", "a"), ()),
    "cgroup_skb, attached anew": (CGROUP, ("a", "b"), ("NET_ADMIN",)),
    "tracepoint": (TRACEPOINT, ("", ""), ("PERFMON",)),
}


def bounded(*capabilities: str) -> list[str]:
    """Return a command prefix that runs as root with only *capabilities*, with tracefs mounted."""
    return [*TRACEFS, *root_with(*capabilities)]


@pytest.fixture
def updated(
    request: pytest.FixtureRequest, lab: Lab, tmp_path: Path
) -> Iterator[tuple[Releases, tuple[str, ...]]]:
    """Yield a start and an update of one kind, and the capabilities that a rollback needs."""
    source, places, needed = KINDS[request.param]
    with bpf_file_system(tmp_path) as mount, cgroup2() as groups:
        for name in ("a", "b"):
            (groups / name).mkdir(exist_ok=True)
        releases = Releases(lab, tmp_path, mount / "pins", source)
        try:
            for version, place in zip((1, 2), places, strict=True):
                releases.put(version, release=version)
                targets = [f"cg={groups / place}"] if place else []
                result = lab.run(tmp_path, *releases.options(*targets), *TRUE, before=TRACEFS)
                assert result.code == 0, result.lines
            yield releases, needed
        finally:
            releases.command("detach")
            for name in ("a", "b"):
                (groups / name).rmdir()


@pytest.mark.parametrize("updated", KINDS, indirect=True)
def test_rollback_needs_no_more(updated: tuple[Releases, tuple[str, ...]]) -> None:
    """A rollback fails with one capability fewer, and works with those of the image's file."""
    releases, needed = updated
    for missing in ("BPF", *needed):
        rest = {"BPF", *needed} - {missing}
        result = releases.command("rollback", before=bounded(*rest))
        assert result.code == 1, missing
        assert releases.command("status").code == 0
    assert "missing CAP_BPF" in releases.command("rollback", before=bounded(*needed)).message
    given = program_capabilities(PINS_NAME, ("BPF", *needed, "SYS_ADMIN", "NET_RAW", "SYS_PTRACE"))
    assert given == tuple(sorted(("BPF", *needed)))
    result = releases.command("rollback", before=bounded(*given))
    assert result.code == 0, result.lines
    for word in ("list", "status", "detach"):
        assert releases.command(word, before=bounded("BPF")).code == 0


def test_file_capabilities_are_enough_for_a_user(lab: Lab, tmp_path: Path) -> None:
    """ebpf-pins works for a user with the capabilities of its file, which start as permitted only."""
    program = tmp_path / PINS_NAME
    shutil.copy(lab.pins, program)
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", RAW)
        releases.root.mkdir(mode=0o700)
        os.chown(releases.root, USER, USER)
        for version in (1, 2):
            releases.put(version, release=version)
            result = lab.run(tmp_path, *releases.options(), *TRUE, before=user_with("bpf", "perfmon"))
            assert result.code == 0, result.lines
        argv = [*AS_USER, "--inh-caps=-all", "--ambient-caps=-all", program]

        def command(word: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*argv, word, f"--pin-root={releases.root}"], capture_output=True, text=True, check=False
            )

        done = command("rollback")
        assert (done.returncode, "missing CAP_BPF" in done.stderr) == (1, True), done.stderr
        os.setxattr(program, FILE_ATTRIBUTE, file_attribute(program_capabilities(PINS_NAME, ("BPF",))))
        for word in ("rollback", "list", "status", "detach"):
            done = command(word)
            assert done.returncode == 0, done.stderr
