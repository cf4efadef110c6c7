# SPDX-License-Identifier: Apache-2.0
"""All files that a start writes are opened and tried before it loads anything."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from labs.kernel import bpf_file_system
from labs.loader import Lab, Result
from labs.pins import RAW, Releases

from buildtool.core.errors import FileAccessError
from buildtool.trust.versions import open_state

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--", "/bin/true")
USERS = ("--capabilities=NET_ADMIN,PERFMON", *TRUE)
USER = 65532
CAPABILITIES = "-all,+bpf,+net_admin,+perfmon"
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
AS_USER += [f"--bounding-set={CAPABILITIES}", f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}"]


def events(result: Result) -> list[str]:
    """Return the words of all lines."""
    return [line["event"] for line in result.lines]


@pytest.fixture
def releases(lab: Lab, tmp_path: Path) -> Iterator[Releases]:
    """Give a release of an object, and a BPF file system for it."""
    with bpf_file_system(tmp_path) as mount:
        made = Releases(lab, tmp_path, mount / "pins", RAW)
        made.put(1)
        yield made


@contextmanager
def read_only(mount: Path) -> Iterator[None]:
    """Remount a file system read-only during the block."""
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", mount], check=True)


def test_state_of_another_user(lab: Lab, tmp_path: Path) -> None:
    """A volume whose owner was forgotten: the line names the user, and nothing was attached."""
    lab.put(tmp_path, "raw_tp")
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    result = lab.run(tmp_path, "--state", str(state), *USERS, before=AS_USER)
    assert (result.code, events(result)) == (1, ["error"])
    expected = (
        f"state {state}/versions.json: cannot write: Permission denied; run chown 65532 on the directory"
    )
    assert result.message == expected
    os.chown(state, USER, USER)
    assert lab.run(tmp_path, "--state", str(state), *USERS, before=AS_USER).code == 0
    assert [entry.name for entry in state.iterdir()] == ["versions.json"]


def test_state_on_a_read_only_mount(lab: Lab, tmp_path: Path) -> None:
    """A volume that is mounted with :ro: the line names the cure, and nothing was attached."""
    lab.put(tmp_path, "raw_tp")
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", state], check=True)
    try:
        result = lab.run(tmp_path, "--state", str(state), *TRUE)
        with open_state(state) as versions:
            versions.raise_version("tests", "raw_tp.bpf.o", 1)
            with pytest.raises(FileAccessError) as caught:
                versions.save()
    finally:
        subprocess.run(["umount", state], check=True)
    assert caught.value.hint == "mount the directory for writing"
    assert (result.code, events(result)) == (1, ["error"])
    hint = "mount the directory for writing, without :ro"
    assert result.message == f"state {state}/versions.json: cannot write: Read-only file system; {hint}"


def test_state_file_of_a_refused_or_failed_start_is_removed(lab: Lab, tmp_path: Path) -> None:
    """The next state was begun; a start that ends before it is written leaves the directory as it was."""
    state = tmp_path / "state"
    state.mkdir()
    lab.put(tmp_path, "refused")
    assert lab.run(tmp_path, "--state", str(state)).code == 1
    lab.put(tmp_path, "raw_tp")
    assert lab.run(tmp_path, "--state", str(state), "--attach=none=none").code == 2
    (tmp_path / "trust/dev.pub").write_bytes(type(lab.key)().pem)
    assert lab.run(tmp_path, "--state", str(state)).code == 3
    assert list(state.iterdir()) == []


def test_state_file_of_a_killed_start_is_replaced(lab: Lab, tmp_path: Path) -> None:
    """A file that is left is never opened: another user may have made it, or a link in its place."""
    state, other = tmp_path / "state", tmp_path / "other"
    state.mkdir()
    other.write_text("kept")
    (state / ".versions.json.new").symlink_to(other)
    lab.put(tmp_path, "raw_tp")
    assert lab.run(tmp_path, "--state", str(state), *TRUE).code == 0
    assert [entry.name for entry in state.iterdir()] == ["versions.json"]
    assert other.read_text() == "kept"


def test_metrics_in_the_directory_of_another_user(lab: Lab, tmp_path: Path) -> None:
    """Root may write there with CAP_DAC_OVERRIDE, which it drops before the file is written again."""
    lab.put(tmp_path, "raw_tp")
    place = tmp_path / "metrics"
    place.mkdir(mode=0o755)
    os.chown(place, USER, USER)
    path = place / "loader.prom"
    result = lab.run(tmp_path, f"--metrics-file={path}", *TRUE)
    assert (result.code, events(result)) == (1, ["error"])
    assert result.message == f"metrics {path}: Permission denied; run chown 0 on its directory"
    assert list(place.iterdir()) == []


def test_metrics_with_a_capability_that_stays(lab: Lab, tmp_path: Path) -> None:
    """With --reload the loader keeps what --capabilities names, and writes with it until the end."""
    lab.put(tmp_path, "raw_tp")
    place = tmp_path / "metrics"
    place.mkdir(mode=0o755)
    os.chown(place, USER, USER)
    options = (f"--metrics-file={place / 'loader.prom'}", "--reload", "--capabilities=DAC_OVERRIDE")
    with lab.started(tmp_path, *options) as (_, stop):
        assert stop().code == 0
    assert "buildtool_ready 0" in (place / "loader.prom").read_text()


def test_metrics_directory_is_opened_once(lab: Lab, tmp_path: Path) -> None:
    """The file goes where the path led at the start, whatever the path names later."""
    lab.put(tmp_path, "raw_tp")
    place, moved = tmp_path / "metrics", tmp_path / "moved"
    place.mkdir()
    with lab.started(tmp_path, f"--metrics-file={place / 'loader.prom'}") as (_, stop):
        place.rename(moved)
        place.symlink_to("/")
        assert stop().code == 0
    assert "buildtool_ready 0" in (moved / "loader.prom").read_text()


@pytest.mark.parametrize("option", ["--pin-root", "--share"])
def test_pins_on_a_read_only_mount(releases: Releases, option: str) -> None:
    """A directory that is mounted with :ro: one line, before anything is loaded."""
    releases.root.mkdir(mode=0o700)
    with read_only(releases.root.parent):
        result = releases.lab.run(releases.directory, f"{option}={releases.root}", *TRUE)
    assert (result.code, result.events("load")) == (1, [])
    assert result.message == f"{releases.root}: mounted read-only; mount it for writing, without :ro"


def test_commands_on_a_read_only_mount(releases: Releases) -> None:
    """The kernel opens programs and links for writing only; no command changes anything before it says so."""
    for release in (1, 2):
        releases.put(release, release=release)
        assert releases.lab.run(releases.directory, *releases.options(), *TRUE).code == 0
    with read_only(releases.root.parent):
        for word in ("detach", "rollback", "list", "status"):
            result = releases.command(word)
            assert (result.code, events(result)) == (1, ["error"])
            assert "mounted read-only; mount it for writing" in result.message
    assert releases.command("status").code == 0
    assert releases.command("detach").code == 0


def test_limit_of_file_sizes_is_an_error(lab: Lab, tmp_path: Path) -> None:
    """By default the kernel kills a process that exceeds RLIMIT_FSIZE: no line, and files stay."""
    lab.put(tmp_path, "raw_tp")
    state = tmp_path / "state"
    state.mkdir()
    limit = ("prlimit", "--fsize=0")
    result = lab.run(tmp_path, f"--state={state}", *TRUE, before=limit)
    assert (result.code, result.message) == (1, "state: cannot write versions.json: File too large")
    assert list(state.iterdir()) == []
    result = lab.run(tmp_path, f"--metrics-file={tmp_path}/loader.prom", *TRUE, before=limit)
    assert (result.code, "File too large" in result.message) == (1, True)
    assert list(tmp_path.glob("*.prom*")) == []
    result = lab.run(tmp_path, "--hand-over", *TRUE, before=limit)
    assert (result.code, result.message) == (1, "raw_tp.bpf.o: cannot hand over: File too large")
    shown = ("--", "/bin/grep", "SigIgn", "/proc/self/status")
    name, ignored = lab.run(tmp_path, "--hand-over", *shown).stdout.split()
    # Others may be ignored already where the tests run; this one is the loader's own to give back.
    assert (name, int(ignored, 16) >> (signal.SIGXFSZ - 1) & 1) == ("SigIgn:", 0)
