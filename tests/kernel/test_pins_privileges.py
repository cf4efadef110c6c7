# SPDX-License-Identifier: Apache-2.0
"""Pins with only a container's capabilities, as root and as another user; pins with policies and state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from labs.handsig import policy
from labs.kernel import bpf_file_system
from labs.loader import PREFIX, Lab, is_clean
from labs.pins import RAW, Releases
from labs.privileges import USER, root_with, user_with
from labs.run import wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--capabilities=NET_ADMIN,PERFMON", "--", "/bin/true")
CAPABILITIES = ("bpf", "net_admin", "perfmon")
AS_ROOT, AS_USER = root_with(*CAPABILITIES), user_with(*CAPABILITIES)


@pytest.mark.parametrize(("before", "user"), [(AS_ROOT, 0), (AS_USER, USER)], ids=["root", "user"])
def test_capabilities_of_a_container_are_enough(
    place: tuple[Releases, str, str], before: list[str], user: int
) -> None:
    """CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are enough to pin, update, roll back, show and detach."""
    releases, left, _ = place
    releases.root.mkdir(mode=0o700)
    os.chown(releases.root, user, user)

    for version in (1, 2):
        releases.put(version, release=version)
        options = releases.options(f"xdp={left}")
        result = releases.lab.run(releases.directory, *options, *TRUE, before=before)
        assert result.code == 0, result.lines
    assert [line["event"] for line in result.lines] == ["verify", "load", "update", "ready", "exec"]
    for word in ("rollback", "status", "detach"):
        assert releases.command(word, before=before).code == 0
    assert is_clean()


def test_root_of_the_host_manages_the_pins_of_a_container(place: tuple[Releases, str, str]) -> None:
    """
    Root lists, checks and detaches the pins of a container's user; the directory stays for its next start.

    A rollback attaches what the directory holds, so it is for the directory's owner.
    """
    releases, left, _ = place
    releases.root.mkdir(mode=0o700)
    os.chown(releases.root, USER, USER)
    for version in (1, 2):
        releases.put(version, release=version)
        options = releases.options(f"xdp={left}")
        assert releases.lab.run(releases.directory, *options, *TRUE, before=AS_USER).code == 0
    releases.root.parent.chmod(0o700)  # as systemd mounts the file system: only root passes

    listed = releases.command("list", "--json")
    assert (listed.code, json.loads(listed.stdout)[0]["version"]) == (0, 2)
    assert releases.command("status").code == 0
    refused = releases.command("rollback")
    assert refused.code == 1
    assert (
        f"belongs to user {USER}, and this process is user 0; run as its owner (docker: --user {USER})"
        in (refused.message)
    )
    assert releases.command("detach").code == 0
    assert is_clean()
    status = releases.root.stat()
    assert (status.st_uid, list(releases.root.iterdir())) == (USER, [])


def test_root_of_the_host_manages_what_containers_share(lab: Lab, tmp_path: Path) -> None:
    """Root lists the entries of another user's shared directory, and removes those without users."""
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "share", RAW)
        releases.root.mkdir(mode=0o700)
        os.chown(releases.root, USER, USER)
        releases.put(1)
        assert lab.run(tmp_path, f"--share={releases.root}", *TRUE, before=AS_USER).code == 0
        argv = [str(lab.pins), "list", "--json", f"--share={releases.root}"]
        listed = subprocess.run(argv, check=True, capture_output=True, text=True)
        assert [item["used"] for item in json.loads(listed.stdout)] == [False]
        subprocess.run([lab.pins, "detach", f"--share={releases.root}"], check=True, capture_output=True)
        assert list(releases.root.iterdir()) == []


def test_no_other_user_manages_the_pins_of_a_container(place: tuple[Releases, str, str]) -> None:
    """Only root passes: another user could be given a directory of pins that its owner made for it."""
    releases, _, _ = place
    releases.root.mkdir(mode=0o700)
    other = [word.replace(str(USER), "1000") for word in user_with(*CAPABILITIES, "dac_override")]
    os.chown(releases.root, USER, USER)
    for word in ("list", "status", "detach"):
        result = releases.command(word, before=other)
        assert result.code == 1
        assert f"belongs to user {USER}, and this process is user 1000" in result.message


def test_share_of_another_user(lab: Lab, tmp_path: Path) -> None:
    """Loaders of another user share a program; root's loader refuses that user's directory."""
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "share", RAW)
        releases.root.mkdir(mode=0o700)
        os.chown(releases.root, USER, USER)
        releases.put(1)
        for event in ("load", "reuse"):
            result = lab.run(tmp_path, f"--share={releases.root}", *TRUE, before=AS_USER)
            assert (result.code, len(result.events(event))) == (0, 1), result.lines
        result = lab.run(tmp_path, f"--share={releases.root}", *TRUE)
        assert (result.code, f"belongs to user {USER}" in result.message) == (1, True)


def test_policy_may_allow_rollback(place: tuple[Releases, str, str]) -> None:
    """A lower version replaces the pinned one if the policy has allowRollback."""
    releases, left, _ = place
    rules = policy(releases.lab.key, allowRollback=True)
    options = releases.options(f"xdp={left}")
    for version in (2, 1):
        releases.put(version, release=version)
        (releases.directory / "trust/policy.json").write_text(rules)
        result = releases.lab.run(releases.directory, *options, *TRUE)
        assert result.code == 0, result.lines
    assert len(result.events("update")) == 1


def test_unhealthy_version_is_not_remembered(place: tuple[Releases, str, str]) -> None:
    """The state directory records a version only after its health check."""
    releases, left, _ = place
    state = releases.directory / "state"
    state.mkdir()
    options = [*releases.options(f"xdp={left}"), f"--state={state}"]
    for version, health, code in ((1, "/bin/true", 0), (2, "/bin/false", 1), (1, "/bin/true", 0)):
        releases.put(version, release=version)
        result = releases.lab.run(releases.directory, *options, f"--health-command={health}", *TRUE)
        assert result.code == code, result.lines


def spoil(directory: Path) -> str:
    """Return the option of a health command that removes the file of the next state, once `spoil` exists."""
    command = directory / "spoil.sh"
    command.write_text(
        f"#!/bin/sh\n[ ! -e {directory}/spoil ] || exec rm {directory}/state/.versions.json.new\n"
    )
    command.chmod(0o755)
    return f"--health-command={command}"


def test_update_that_cannot_be_remembered_is_taken_back(place: tuple[Releases, str, str]) -> None:
    """A state that is spoilt after the attachment: the old program is back, and so is its record."""
    releases, left, _ = place
    state, trigger = releases.directory / "state", releases.directory / "spoil"
    state.mkdir()
    options = [*releases.options(f"xdp={left}"), f"--state={state}", spoil(releases.directory)]
    releases.put(1)
    assert releases.lab.run(releases.directory, *options, *TRUE).code == 0
    first = releases.link(f"{PREFIX}_xdp@{left}")["prog_id"]
    trigger.touch()
    releases.put(2, release=2)
    result = releases.lab.run(releases.directory, *options, *TRUE)
    expected = ["verify", "load", "update", "health", "rollback", "error"]
    assert [line["event"] for line in result.lines] == expected
    assert (result.code, "cannot write versions.json" in result.message) == (1, True)
    assert releases.link(f"{PREFIX}_xdp@{left}")["prog_id"] == first
    trigger.unlink()
    releases.put(1)
    result = releases.lab.run(releases.directory, *options, *TRUE)
    assert [line["event"] for line in result.lines] == ["verify", "reuse", "keep", "health", "ready", "exec"]


@pytest.mark.parametrize("early", [True, False])
def test_reload_that_cannot_be_remembered_is_taken_back(lab: Lab, tmp_path: Path, *, early: bool) -> None:
    """The running release goes on, and the line says why; once there is room the next reload is good."""
    state, trigger = tmp_path / "state", tmp_path / "spoil"
    state.mkdir()
    releases = Releases(lab, tmp_path, tmp_path, RAW)
    releases.put(1)
    # Without room for the file nothing is loaded; without the file that was made, all is taken back.
    obstacle = state / ".versions.json.new" if early else trigger
    with lab.started(tmp_path, "--reload", f"--state={state}", spoil(tmp_path)) as (process, stop):
        releases.put(2, release=2)
        obstacle.mkdir()
        (log,) = tmp_path.glob("stderr*")
        for count in (1, 2):
            process.send_signal(signal.SIGHUP)
            assert wait_until(lambda: log.read_text().count('"event":"reload"') == count)  # noqa: B023
            if count == 1:
                assert "2" not in (state / "versions.json").read_text()
                obstacle.rmdir()
        result = stop()
    assert [line["outcome"] for line in result.events("reload")] == ["kept", "updated"]
    message = result.events("reload")[0]["message"]
    assert ("cannot write: " if early else "cannot write versions.json: ") in message
    assert len(result.events("load")) == (2 if early else 3)


def test_health_command_at_a_reload_has_no_map(lab: Lab, tmp_path: Path) -> None:
    """A health command inherits no map: only the workload may write to it."""
    releases = Releases(lab, tmp_path, tmp_path, RAW)
    releases.put(1)
    script, seen = tmp_path / "health", tmp_path / "seen"
    script.write_text(
        f"#!/bin/sh\n(env | grep BUILDTOOL_FD; readlink /proc/$$/fd/*) >{seen}.new\nmv {seen}.new {seen}\n"
    )
    script.chmod(0o755)
    options = ("--reload", f"--health-command={script}", "--", "sleep", "1000")
    with lab.started(tmp_path, *options) as (process, stop):
        assert seen.exists()
        seen.unlink()
        assert wait_until(lambda: "bpf-map" in _open_files(process.pid))
        releases.put(2, release=2)
        process.send_signal(signal.SIGHUP)
        assert wait_until(seen.exists)
        assert stop().code in (0, 128 + signal.SIGTERM)
    assert not [line for line in seen.read_text().splitlines() if "bpf" in line or "BUILDTOOL" in line]
    assert is_clean()


def _open_files(pid: int) -> str:
    """Return the targets of all descriptors of a process's children, without those closed meanwhile."""
    found: list[str] = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError):
            found.extend(str(link.readlink()) for link in Path(f"/proc/{child}/fd").iterdir())
    return " ".join(found)


def test_reload_of_what_is_shared(lab: Lab, tmp_path: Path) -> None:
    """A reload moves to the shared entry of the new release, and removes the old one."""
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "share", RAW)
        releases.put(1)
        with lab.started(tmp_path, "--reload", f"--share={releases.root}") as (process, stop):
            (old,) = releases.root.iterdir()
            releases.put(2, release=2)
            process.send_signal(signal.SIGHUP)
            assert wait_until(lambda: not old.exists() and len(list(releases.root.iterdir())) == 1)
            result = stop()
        assert [line["outcome"] for line in result.events("reload")] == ["updated"]
        assert list(releases.root.iterdir()) == []


def test_workload_has_the_pinned_maps(place: tuple[Releases, str, str]) -> None:
    """BUILDTOOL_FD_<MAP> is set for loaded and for reused programs."""
    releases, left, _ = place
    releases.put(1)
    script = f"exec readlink /proc/self/fd/$BUILDTOOL_FD_{PREFIX}_map"
    for _ in range(2):
        result = releases.lab.run(
            releases.directory, *releases.options(f"xdp={left}"), "--", "/bin/sh", "-c", script
        )
        assert result.stdout == "anon_inode:bpf-map\n"


def test_directory_mounted_alone(lab: Lab, tmp_path: Path) -> None:
    """A bind mount of the container's own directory is enough, under any path."""
    inside = tmp_path / "inside"
    inside.mkdir()
    with bpf_file_system(tmp_path) as mount:
        mount.chmod(0o700)
        (mount / "agent").mkdir(mode=0o700)
        os.chown(mount / "agent", USER, USER)
        subprocess.run(["mount", "--bind", mount / "agent", inside], check=True)
        try:
            releases = Releases(lab, tmp_path, inside, RAW)
            releases.put(1)
            result = lab.run(tmp_path, *releases.options(), *TRUE, before=AS_USER)
            assert result.code == 0, result.lines
            argv = [*AS_USER, lab.pins, "detach", f"--pin-root={inside}"]
            assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
            assert list(inside.iterdir()) == []
        finally:
            subprocess.run(["umount", inside], check=True)
