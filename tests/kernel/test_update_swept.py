# SPDX-License-Identifier: Apache-2.0
"""
SIGKILL along an update, a rollback and a detach: nothing that stays blocks the next command.

The points are boundaries of system calls, one in every 43; SWEEP_STEP=1 tries each of them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from labs.kernel import bpf_file_system
from labs.loader import Lab, in_kernel, is_clean
from labs.net import veth
from labs.pins import RAW, TCX, XDP, Releases
from labs.step import kill_at_boundary

pytestmark = pytest.mark.usefixtures("as_root")

# A workload of another user: Landlock rules would need one call for each entry of the parent directories.
TRUE = ("--workload-user=65532", "--", "/bin/true")
STEP = int(os.environ.get("SWEEP_STEP", "43"))
FIRST = 200  # the loader reads and verifies files before this boundary
FIRST_OF_A_COMMAND = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The changes from the first release to the second: the targets on a pair, and the map's *value*."""

    programs: str = XDP
    first: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    value: str = "__u64"


CASES = {
    "another target": Case(first=("xdp={0}",), second=("xdp={0}", "xdp={1}")),
    "a target less": Case(first=("xdp={0}", "xdp={1}"), second=("xdp={0}",)),
    "elsewhere": Case(first=("xdp={0}",), second=("xdp={1}",)),
    "another map": Case(first=("xdp={0}",), second=("xdp={0}",), value="unsigned __int128"),
    "another text": Case(first=("xdp={0}",), second=("xdp={0}:driver",)),
    "tcx": Case(programs=TCX, first=("tcx={0}",), second=("tcx={0}", "tcx={1}")),
    "no update in place": Case(programs=RAW),
}


class Sweep:
    """Two releases, and the commands for their pins."""

    def __init__(self, releases: Releases, case: Case, pair: tuple[str, str]) -> None:
        self.releases, self._case = releases, case
        self.targets = {
            1: [target.format(*pair) for target in case.first],
            2: [target.format(*pair) for target in case.second],
        }

    def argv(self, release: int) -> list[str]:
        """Write the object of a release and return the command line of its start."""
        self.releases.put(release, release=release, value=self._case.value if release == 2 else "__u64")
        options = self.releases.options(*self.targets[release])
        return self.releases.lab.argv(self.releases.directory, *options, *TRUE)

    def start(self, release: int) -> None:
        """Start a release, and check that it works and attaches everything."""
        done = subprocess.run(self.argv(release), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert self.run("status") == 0
        links = list((self.releases.home / "links").iterdir())
        assert len(links) == max(1, len(self.targets[release]))

    def command(self, word: str) -> list[str]:
        """Return the command line of a command of ebpf-pins."""
        return [str(self.releases.lab.pins), word, f"--pin-root={self.releases.root}"]

    def run(self, word: str) -> int:
        """Return the exit code of a command."""
        return subprocess.run(self.command(word), capture_output=True, check=False).returncode

    def clear(self) -> None:
        """Detach, and check that nothing stays."""
        if self.releases.root.exists():
            assert self.run("detach") == 0
        assert not self.releases.root.exists()
        assert is_clean(), in_kernel()


@pytest.fixture(params=CASES)
def sweep(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[Sweep]:
    """Yield two releases and a directory for their pins."""
    case = CASES[request.param]
    with veth() as pair, bpf_file_system(tmp_path) as mount:
        yield Sweep(Releases(lab, tmp_path, mount / "pins", case.programs), case, pair)


def test_killed_anywhere_in_an_update(sweep: Sweep, tmp_path: Path) -> None:
    """After a killed update the next start works, and so does `detach` at once."""
    boundary, came = FIRST, True
    while came:
        sweep.start(1)
        came = kill_at_boundary(sweep.argv(2), boundary, tmp_path / "log")
        if boundary % 2:
            sweep.start(2)
            assert sorted(path.name for path in sweep.releases.home.iterdir()) == [
                "current",
                "links",
                "previous",
            ]
        sweep.clear()
        boundary += STEP
    assert boundary > FIRST + STEP


@pytest.mark.parametrize("word", ["rollback", "detach"])
def test_killed_anywhere_in_a_command(sweep: Sweep, tmp_path: Path, word: str) -> None:
    """After a killed `rollback` or `detach` the next start works, and so does the same command again."""
    boundary, came = FIRST_OF_A_COMMAND, True
    while came:
        sweep.start(1)
        sweep.start(2)
        came = kill_at_boundary(sweep.command(word), boundary, tmp_path / "log")
        if boundary % 2:
            sweep.start(2)
        elif word == "rollback":
            assert sweep.run(word) == 0
            assert sweep.run("status") == 0
        sweep.clear()
        boundary += STEP
    assert boundary > FIRST_OF_A_COMMAND + STEP
