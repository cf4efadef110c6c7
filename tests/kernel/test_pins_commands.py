# SPDX-License-Identifier: Apache-2.0
"""Pins: what a restart reuses, what the commands of ebpf-pins show, and how they remove it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from labs.kernel import bpf_file_system
from labs.loader import PREFIX, Lab, Result, is_clean, parse
from labs.net import flood, veth
from labs.pins import CGROUP, NAME, RAW, XDP, Releases
from labs.privileges import AS_USER, USER
from labs.run import let_others_read, wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--", "/bin/true")


@pytest.fixture
def traced(lab: Lab, tmp_path: Path) -> Iterator[Releases]:
    """Yield releases of an object whose links the kernel cannot update."""
    with bpf_file_system(tmp_path) as mount:
        yield Releases(lab, tmp_path, mount / "pins", RAW)


def start(releases: Releases, *arguments: str) -> Result:
    """Run the loader on the releases' directory until it ends."""
    return releases.lab.run(releases.directory, *arguments)


def listed(releases: Releases, word: str = "list") -> dict[str, Any]:
    """Return the one object that the command *word* lists."""
    (found,) = json.loads(releases.command(word, "--json").stdout)
    return dict(found)


def events(result: Result) -> list[str]:
    """Return the event of each line."""
    return [line["event"] for line in result.lines]


def pinned_programs(releases: Releases) -> int:
    """Return the id of the object's currently pinned program."""
    (pin,) = (releases.home / "current/programs").iterdir()
    argv = ["bpftool", "-j", "prog", "show", "pinned", pin]
    return int(json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)["id"])


def test_restart_finds_programs_maps_and_links(place: tuple[Releases, str, str]) -> None:
    """A restart with the same object loads nothing, keeps the link, and the map counts on."""
    releases, left, right = place
    releases.put(1)
    options = releases.options(f"xdp={left}")
    assert events(start(releases, *options, *TRUE)) == ["verify", "load", "attach", "ready", "exec"]
    since = listed(releases)["since"]
    time.sleep(1)
    with flood(right) as sent:
        assert events(start(releases, *options, *TRUE)) == ["verify", "reuse", "keep", "ready", "exec"]
    assert listed(releases)["since"] == since
    assert wait_until(lambda: releases.counts() == [sent[0], sent[0], 0])


def test_stop_leaves_what_is_pinned(place: tuple[Releases, str, str]) -> None:
    """SIGTERM leaves a pinned program attached."""
    releases, left, _ = place
    releases.put(1)
    with releases.lab.started(releases.directory, *releases.options(f"xdp={left}")) as (_, stop):
        assert events(stop()) == ["verify", "load", "attach", "ready"]
    assert releases.link(f"{PREFIX}_xdp@{left}")["prog_id"] == pinned_programs(releases)


def test_list_and_status_and_detach(place: tuple[Releases, str, str]) -> None:
    """`list` shows digest, key, policy, time and target of an object; `detach` removes everything."""
    releases, left, _ = place
    releases.put(7)
    result = start(releases, *releases.options(f"xdp={left}"), *TRUE)
    (verified,) = result.events("verify")
    found = listed(releases)
    assert found["object"] == NAME
    assert found["version"] == 7
    assert found["digest"] == verified["digest"]
    assert found["keyIds"] == verified["keyIds"]
    assert found["policy"] == verified["policy"]
    assert found["since"][:16] <= result.lines[-1]["time"][:16]
    (link,) = found["links"].values()
    assert (link["program"], link["target"], link["attached"]) == (f"{PREFIX}_xdp", left, True)
    table = releases.command("list").stdout.splitlines()
    assert table[0] == table[0].upper()
    assert table[1].split()[:3] == [NAME, "7", verified["digest"][:12]]
    assert table[1].split()[-1] == "attached"
    assert releases.command("status").code == 0
    gone = releases.command("detach")
    assert (gone.code, events(gone)) == (0, ["detach"])
    assert not releases.root.exists()
    assert is_clean()


@pytest.mark.parametrize(
    ("word", "arguments", "words"),
    [
        ("rollback", ["--state=/"], "--state: not an option of rollback"),
        ("rollback", ["--share=/sys/fs/bpf/x"], "rollback is for --pin-root"),
        ("detach", ["--json"], "--json: not an option of detach"),
        ("status", ["--", "true"], "status accepts no workload"),
        ("list", ["--objects=/"], "--objects: not an option of list"),
    ],
)
def test_commands_refuse_options_that_they_ignore(
    place: tuple[Releases, str, str], word: str, arguments: list[str], words: str
) -> None:
    """An option that a command does not use is exit code 2."""
    releases, _, _ = place
    result = releases.command(word, *arguments)
    assert (result.code, words in result.message) == (2, True), result.message


def test_list_escapes_control_characters(traced: Releases) -> None:
    """`list` prints ASCII only, even for a file name with a terminal control character."""
    traced.put(1)
    (traced.directory / "objects" / NAME).rename(traced.directory / "objects/\u009b31m.o")
    assert start(traced, *traced.options(), *TRUE).code == 0
    for more in ([], ["--json"]):
        said = traced.command("list", *more).stdout
        assert said.isascii()
        assert said.replace("\n", "").isprintable()
    assert json.loads(said)[0]["file"] == "\u009b31m.o"


def test_list_shows_what_is_pinned_and_not_attached(traced: Releases) -> None:
    """A program with the target none has a row too, and nothing is missing."""
    traced.put(1)
    assert start(traced, *traced.options("raw=none"), *TRUE).code == 0
    for word in ("list", "status"):
        result = traced.command(word)
        (row,) = result.stdout.splitlines()[1:]
        assert result.code == 0
        assert (row.split()[0], row.split()[-3:]) == (NAME, [f"{PREFIX}_raw", "-", "loaded"])
    assert traced.command("detach").code == 0


def test_start_right_after_detach(place: tuple[Releases, str, str]) -> None:
    """The hook is free as soon as `detach` ends."""
    releases, left, _ = place
    releases.put(1)
    for _ in range(10):
        result = start(releases, *releases.options(f"xdp={left}"), *TRUE)
        assert result.code == 0, result.lines
        assert releases.command("detach").code == 0


def test_status_notices_what_is_missing(place: tuple[Releases, str, str]) -> None:
    """`status` is 1 after an interface with its program was removed, and the row says MISSING."""
    releases, left, _ = place
    releases.put(1)
    with veth() as (other, _):
        options = releases.options(f"xdp={left}", f"xdp={other}")
        assert start(releases, *options, *TRUE).code == 0
        assert releases.command("status").code == 0
    result = releases.command("status")
    assert result.code == 1
    assert "not everything is attached" in result.message
    assert sorted(line.split()[-1] for line in result.stdout.splitlines()[1:]) == ["MISSING", "attached"]
    assert releases.command("list").code == 0


def test_interface_made_anew_gets_the_program(lab: Lab, tmp_path: Path) -> None:
    """The link of a removed interface is replaced after an interface of the same name appears."""
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        releases.put(1)
        name = f"{PREFIX}again"
        for expected in ("load", "reuse"):
            subprocess.run(["ip", "link", "add", name, "type", "veth"], check=True)
            try:
                result = start(releases, *releases.options(f"xdp={name}"), *TRUE)
                assert events(result) == ["verify", expected, "attach", "ready", "exec"]

                assert releases.command("status").code == 0
            finally:
                subprocess.run(["ip", "link", "del", name], check=True)


def test_cgroup_that_was_made_anew(lab: Lab, tmp_path: Path) -> None:
    """A cgroup's link is kept and updated; a new cgroup with the same path gets a new link."""
    mount = tmp_path / "cgroup"
    mount.mkdir()
    with bpf_file_system(tmp_path) as pins:
        subprocess.run(["mount", "-t", "cgroup2", "none", mount], check=True)
        group = mount / f"{PREFIX}pins"
        group.mkdir()
        try:
            releases = Releases(lab, tmp_path, pins / "pins", CGROUP)
            options = releases.options(f"cg={group}")
            releases.put(1)
            assert start(releases, *options, *TRUE).code == 0
            assert events(start(releases, *options, *TRUE)) == ["verify", "reuse", "keep", "ready", "exec"]
            releases.put(2, release=2)
            assert events(start(releases, *options, *TRUE)) == ["verify", "load", "update", "ready", "exec"]
            group.rmdir()
            assert wait_until(lambda: releases.command("status").code == 1)
            group.mkdir()
            assert events(start(releases, *options, *TRUE)) == ["verify", "reuse", "attach", "ready", "exec"]
            assert releases.command("rollback").code == 0
            assert listed(releases, "status")["version"] == 1
        finally:
            group.rmdir()
            subprocess.run(["umount", mount], check=True)


def test_link_without_update_is_replaced(traced: Releases) -> None:
    """For a link without update, the new program is attached before the old one is detached."""
    traced.put(1)
    assert start(traced, *traced.options(), *TRUE).code == 0
    traced.put(2, release=2)
    result = start(traced, *traced.options(), *TRUE)
    assert events(result) == ["verify", "load", "attach", "ready", "exec"]
    assert "both run for a moment" in result.events("attach")[0]["message"]
    assert [pin.name for pin in (traced.home / "links").iterdir()] == [f"{PREFIX}_raw@raw_tp%2Fsys_enter"]
    assert min(traced.counts()[1:]) > 0


def test_target_that_is_no_longer_wanted(place: tuple[Releases, str, str]) -> None:
    """The next start attaches to its own targets and detaches from the earlier ones."""
    releases, left, right = place
    releases.put(1)
    assert start(releases, *releases.options(f"xdp={left}"), *TRUE).code == 0
    result = start(releases, *releases.options(f"xdp={right}"), *TRUE)
    assert events(result) == ["verify", "reuse", "attach", "detach", "ready", "exec"]
    assert [pin.name for pin in (releases.home / "links").iterdir()] == [f"{PREFIX}_xdp@{right}"]


def test_program_of_another_name_is_another_program(place: tuple[Releases, str, str]) -> None:
    """A hook for one program keeps the old one, and the message names it; --replace detaches it."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, *releases.options(f"xdp={left}"), *TRUE).code == 0
    renamed = Releases(releases.lab, releases.directory, releases.root, XDP.replace("@_xdp", "@_new"))
    renamed.put(2, release=2)
    options = renamed.options(f"new={left}")
    result = start(renamed, *options, *TRUE)
    assert (result.code, f"program {PREFIX}_xdp (id" in result.message) == (1, True), result.message
    assert "--replace detaches it" in result.message
    assert releases.command("status").code == 0
    assert listed(releases)["version"] == 1
    assert start(renamed, *options, "--replace", *TRUE).code == 0
    assert list(listed(renamed, "status")["links"]) == [f"{PREFIX}_new@{left}"]
    assert [path.name for path in (renamed.home / "links").iterdir()] == [f"{PREFIX}_new@{left}"]


def test_older_version_is_refused(place: tuple[Releases, str, str]) -> None:
    """Pins record the version: a lower one is refused without a state directory."""
    releases, left, _ = place
    options = releases.options(f"xdp={left}")
    releases.put(5)
    assert start(releases, *options, *TRUE).code == 0
    releases.put(4, release=2)
    result = start(releases, *options, *TRUE)
    assert (result.code, result.reasons) == (3, ["rolled-back"])
    assert listed(releases)["version"] == 5


def test_rollback_puts_the_previous_program_back(place: tuple[Releases, str, str]) -> None:
    """`rollback` attaches the previous program with its version; a second one reverts the first."""
    releases, left, right = place
    options = releases.options(f"xdp={left}")
    releases.put(1)
    assert start(releases, *options, *TRUE).code == 0
    first = pinned_programs(releases)
    nothing = releases.command("rollback")
    assert (nothing.code, "no previous release is pinned" in nothing.message) == (1, True)
    releases.put(2, release=2)
    assert start(releases, *options, *TRUE).code == 0
    assert listed(releases)["previousVersion"] == 1
    with flood(right) as sent:
        result = releases.command("rollback")
    assert (result.code, events(result)) == (0, ["rollback"])
    assert (pinned_programs(releases), listed(releases)["version"]) == (first, 1)
    assert wait_until(lambda: releases.counts()[0] == sent[0])
    assert releases.link(f"{PREFIX}_xdp@{left}")["prog_id"] == first
    assert releases.command("rollback").code == 0
    assert listed(releases)["version"] == 2
    assert releases.command("status").code == 0


def test_rollback_of_a_link_without_update(traced: Releases) -> None:
    """`rollback` attaches the previous tracing program from its pin."""
    for version in (1, 2):
        traced.put(version, release=version)
        assert start(traced, *traced.options(), *TRUE).code == 0
    assert traced.command("rollback").code == 0
    assert listed(traced, "status")["version"] == 1
    before = traced.counts()
    os.getpid()
    after = traced.counts()
    assert after[1] > before[1]
    assert after[2] == before[2]


@pytest.mark.parametrize("healthy", ["/bin/true", "/usr/bin/env true"])
def test_healthy_update_stays(place: tuple[Releases, str, str], healthy: str) -> None:
    """A health command that exits with 0 confirms the new release."""
    releases, left, _ = place
    options = [*releases.options(f"xdp={left}"), f"--health-command={healthy}"]
    for version in (1, 2):
        releases.put(version, release=version)
        result = start(releases, *options, *TRUE)
        assert (result.code, len(result.events("health"))) == (0, 1)
    assert listed(releases)["version"] == 2


@pytest.mark.parametrize(
    ("command_line", "said"),
    [("/bin/false", "ended with exit code 1"), ("/bin/sleep 60", "still running after 1 s")],
)
def test_update_that_fails_its_check_is_put_back(
    place: tuple[Releases, str, str], command_line: str, said: str
) -> None:
    """A failed health check attaches the old program again, misses no frame, and records no version."""
    releases, left, right = place
    options = releases.options(f"xdp={left}")
    releases.put(1)
    assert start(releases, *options, *TRUE).code == 0
    first = pinned_programs(releases)
    releases.put(2, release=2)
    with flood(right) as sent:
        checks = [f"--health-command={command_line}", "--health-wait=1"]
        result = start(releases, *options, *checks, *TRUE)
    assert (result.code, said in result.message) == (1, True)
    assert events(result) == ["verify", "load", "update", "rollback", "error"]
    assert wait_until(lambda: releases.counts()[0] == sent[0])
    assert (listed(releases, "status")["version"], pinned_programs(releases)) == (1, first)
    assert not (releases.home / "next").exists()
    assert releases.link(f"{PREFIX}_xdp@{left}")["prog_id"] == first


def test_first_start_that_fails_its_check_leaves_nothing(place: tuple[Releases, str, str]) -> None:
    """A first start with a failed health check removes its pins."""
    releases, left, _ = place
    releases.put(1)
    result = start(releases, *releases.options(f"xdp={left}"), "--health-command=/bin/false", *TRUE)
    assert (result.code, events(result)[-2:]) == (1, ["detach", "error"])
    assert is_clean()


def test_health_command_of_the_most_words(place: tuple[Releases, str, str], tmp_path: Path) -> None:
    """A program and 31 arguments run as they were given; one more is a usage error before any load."""
    releases, left, _ = place
    releases.put(1)
    script = tmp_path / "count"
    script.write_text('#!/bin/sh\n[ "$#-${31}" = 31-31 ]\n')
    script.chmod(0o755)
    words = " ".join(map(str, range(1, 32)))
    options = releases.options(f"xdp={left}")
    assert start(releases, *options, f"--health-command={script}  {words} ", *TRUE).code == 0
    result = start(releases, *options, f"--health-command={script} {words} 32", *TRUE)
    assert (result.code, result.events("load")) == (2, [])
    assert result.message.endswith("not an absolute path with at most 31 arguments")


def test_health_command_has_no_capability(place: tuple[Releases, str, str]) -> None:
    """A health command runs without capabilities, with seccomp, and cannot list the pins."""
    releases, left, _ = place
    script = releases.directory / "health"
    ours = "echo not a decision line >&2"
    show = f"ls {releases.root}; exec grep -E '^(Cap|NoNew|Seccomp)' /proc/self/status"
    script.write_text(f"#!/bin/sh\n{ours}\n{show}\n")
    script.chmod(0o755)
    releases.put(1)
    options = [*releases.options(f"xdp={left}"), f"--health-command={script}"]
    result = start(releases, *options, *TRUE)
    assert result.code == 0, result.lines
    said = dict(line.split(":", 1) for line in result.stdout.splitlines() if ":" in line)
    assert (said["CapEff"], said["CapPrm"]) == ("\t" + "0" * 16,) * 2
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("\t1", "\t2")
    assert "Permission denied" in said["ls"]


@contextmanager
def locked(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Let a process of another user hold the lock of *directory*, as a container's user can."""
    directory.mkdir(mode=0o700)
    os.chown(directory, USER, USER)
    program = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
    argv = [*AS_USER, sys.executable, "-c", program + "print(flush=True); sys.stdin.read()", directory]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        yield holder
        holder.kill()


def test_lock_that_never_comes_free(traced: Releases) -> None:
    """A command names the process that holds the lock, and ends without it."""
    let_others_read(traced.root.parent)
    with locked(traced.root) as holder:
        result = traced.command("detach")
    process = f"process {holder.pid} (python"
    wait, error = result.lines
    assert (result.code, wait["event"], wait["target"]) == (1, "wait", str(traced.root))
    assert wait["message"].startswith(process)
    assert wait["message"].endswith(") holds the lock")
    assert error["message"].startswith(f"{traced.root}: cannot lock: {process}")
    assert error["message"].endswith("still holds the lock after 20 seconds; end that process, or try again")


def test_lock_that_comes_free(traced: Releases) -> None:
    """A command that waits for another process goes on after it."""
    let_others_read(traced.root.parent)
    argv = [traced.lab.pins, "list", f"--pin-root={traced.root}", "--json"]
    with (
        locked(traced.root) as holder,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command,
    ):
        assert command.stderr is not None
        line = command.stderr.readline()
        holder.kill()
        stdout, _ = command.communicate(timeout=60)
    assert parse(line)[0]["event"] == "wait"
    assert (command.returncode, stdout) == (0, "[]\n")
