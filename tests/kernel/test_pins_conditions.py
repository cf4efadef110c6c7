# SPDX-License-Identifier: Apache-2.0
"""Pins under bad conditions: one clear reason each, and the earlier state stays."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from labs.handsig import sign
from labs.loader import PREFIX, Lab, Result, is_clean, parse
from labs.pins import NAME, XDP, Releases
from labs.run import wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--", "/bin/true")


def start(releases: Releases, left: str, *more: str) -> Result:
    """Start with pins, attached to *left*."""
    return releases.lab.run(releases.directory, *releases.options(f"xdp={left}"), *more, *TRUE)


@pytest.mark.parametrize("option", ["--pin-root", "--share"])
@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("{tmp}/pins", 1, "no BPF file system there"),
        ("{tmp}", 1, "not in a BPF file system"),
        ("{mount}", 1, "mode 1777 lets others in"),
        ("{mount}/a/b", 1, "No such file"),
        ("{mount}/file", 1, "Not a directory"),
        ("{mount}/link", 1, ""),
        ("pins", 2, "not an absolute path"),
    ],
)
def test_directory_that_is_no_place_for_pins(
    place: tuple[Releases, str, str], tmp_path: Path, option: str, path: str, code: int, said: str
) -> None:
    """A directory outside a BPF file system, one open to everybody or a file is an error before any load."""
    releases, left, _ = place
    releases.put(1)
    tmp_path.chmod(0o700)
    mount = releases.root.parent
    argv = ["bpftool", "map", "create", mount / "file", "type", "array", "key", "4", "value", "8"]
    subprocess.run([*argv, "entries", "1", "name", "foreign"], check=True)
    (mount / "link").symlink_to(tmp_path)
    where = f"{option}={path.format(tmp=tmp_path, mount=mount)}"
    result = releases.lab.run(tmp_path, where, f"--attach={PREFIX}_xdp={left}", *TRUE)
    assert (result.code, said in result.message) == (code, True), result.message
    assert result.events("load") == []
    assert not (tmp_path / "pins").exists()


def test_directory_of_somebody_else(place: tuple[Releases, str, str]) -> None:
    """A directory of another user is an error: its owner could place other programs under our names."""
    releases, left, _ = place
    releases.put(1)
    releases.root.mkdir(mode=0o700)
    os.chown(releases.root, 1000, 1000)
    result = start(releases, left)
    assert (result.code, "belongs to user 1000" in result.message) == (1, True)


def test_more_entries_than_a_loader_makes(place: tuple[Releases, str, str]) -> None:
    """A root full of directories of somebody else is an error that says what to remove."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    for number in range(1100):
        (releases.root / f"x{number}").mkdir()
    for word in ("list", "status", "detach"):
        result = releases.command(word)
        assert result.code == 1
        assert "more than 1024 entries, which no loader makes" in result.message
    for number in range(1100):
        (releases.root / f"x{number}").rmdir()
    assert releases.command("detach").code == 0


@pytest.mark.parametrize("option", ["--pin-root", "--share"])
@pytest.mark.parametrize("way", ["of another user", "open to all", "a link of another user"])
def test_path_that_others_may_change(place: tuple[Releases, str, str], option: str, way: str) -> None:
    """A parent directory that another user may rename is an error before any load."""
    releases, left, _ = place
    releases.put(1)
    above, named = releases.root.parent / "above", releases.root.parent / "above"
    (above / "pins").mkdir(parents=True, mode=0o700)
    if way == "of another user":
        os.chown(above, 1000, 1000)
    elif way == "open to all":
        above.chmod(0o777)
    else:
        named = releases.root.parent / "link"
        named.symlink_to("above")
        os.lchown(named, 1000, 1000)
    argv = (f"{option}={named}/pins", f"--attach={PREFIX}_xdp={left}", *TRUE)
    result = releases.lab.run(releases.directory, *argv)
    assert (result.code, result.events("load")) == (1, [])
    assert result.message.endswith(f"others may exchange it, as {named} lets them"), result.message
    if named != above:
        named.unlink()
    else:
        os.chown(above, 0, 0)
        above.chmod(0o755)
        assert releases.lab.run(releases.directory, *argv).code == 0
        argv = (releases.lab.pins, "detach", f"{option}={named}/pins")
        subprocess.run(argv, check=True)


@pytest.mark.parametrize("option", ["--pin-root", "--share"])
def test_symbolic_link_in_the_path(place: tuple[Releases, str, str], option: str) -> None:
    """A symbolic link in the path is an error: the directory of its target may be open to others."""
    releases, left, _ = place
    releases.put(1)
    above, link = releases.root.parent / "above", releases.root.parent / "link"
    (above / "pins").mkdir(parents=True, mode=0o700)
    link.symlink_to("above")
    argv = (f"{option}={link}/pins", f"--attach={PREFIX}_xdp={left}", *TRUE)
    result = releases.lab.run(releases.directory, *argv)
    assert (result.code, result.events("load")) == (1, [])
    assert result.message.endswith(f"the path contains a symbolic link: use {above}/pins"), result.message


def _another_program(releases: Releases, pin: Path) -> None:
    pin.unlink()
    path = releases.directory / "other.o"
    path.write_bytes(releases.build(2))
    subprocess.run(["bpftool", "prog", "load", path, pin], check=True, capture_output=True)


def _a_map(releases: Releases, pin: Path) -> None:
    assert releases
    pin.unlink()
    argv = ["bpftool", "map", "create", pin, "type", "array", "key", "4", "value", "8", "entries", "1"]
    subprocess.run([*argv, "name", "foreign"], check=True)


def _a_directory(releases: Releases, pin: Path) -> None:
    assert releases
    pin.unlink()
    pin.mkdir()


def _nothing(releases: Releases, pin: Path) -> None:
    assert releases
    pin.unlink()


@pytest.mark.parametrize("swap", [_another_program, _a_map, _a_directory, _nothing])
@pytest.mark.parametrize("pin", ["current/programs/@_xdp", "current/record"])
def test_pin_that_was_exchanged_is_an_error(
    place: tuple[Releases, str, str], swap: Callable[[Releases, Path], None], pin: str
) -> None:
    """A start neither uses nor replaces a pin that it did not make; the program stays attached."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    attached = releases.link(f"{PREFIX}_xdp@{left}")["prog_id"]
    swap(releases, releases.home / pin.replace("@", PREFIX))
    result = start(releases, left)
    assert (result.code, str(releases.home) in result.message) == (1, True), result.message
    assert releases.link(f"{PREFIX}_xdp@{left}")["prog_id"] == attached


@pytest.mark.parametrize("swap", [_another_program, _a_map, _a_directory])
def test_link_that_was_exchanged_is_an_error(
    place: tuple[Releases, str, str], swap: Callable[[Releases, Path], None]
) -> None:
    """A foreign pin under the name of a link stays, and the message names it."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    swap(releases, releases.home / f"links/{PREFIX}_xdp@{left}")
    result = start(releases, left)
    assert (result.code, "links/" in result.message) == (1, True), result.message


def test_something_else_under_the_objects_name(place: tuple[Releases, str, str]) -> None:
    """A foreign directory under the object's name is not removed as the rest of a killed start."""
    releases, left, _ = place
    releases.put(1)
    (releases.home / "tables").mkdir(parents=True)
    releases.root.chmod(0o700)
    result = start(releases, left)
    assert (result.code, "something else is there" in result.message) == (1, True), result.message
    assert (releases.home / "tables").is_dir()


def test_another_project(place: tuple[Releases, str, str]) -> None:
    """An object of another project with the same name is an error."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    releases.put(2, project="others")
    result = start(releases, left)
    assert (result.code, "another project, tests" in result.message) == (1, True)


def test_two_objects_of_one_name(place: tuple[Releases, str, str]) -> None:
    """Two files with one signed name cannot share the pins of that name: exit code 2."""
    releases, _, _ = place
    releases.put(1)
    shutil.copy(releases.directory / f"objects/{NAME}", releases.directory / "objects/other.bpf.o")
    result = releases.lab.run(
        releases.directory, *releases.options(), f"--attach={NAME}:{PREFIX}_xdp=none", *TRUE
    )
    assert result.code == 2
    target = [f"--attach={name}:{PREFIX}_xdp=none" for name in (NAME, "other.bpf.o")]
    result = releases.lab.run(releases.directory, *releases.options(), *target, *TRUE)
    assert (result.code, "both signed with one name" in result.message) == (2, True)


def test_update_that_cannot_load_leaves_the_old_one(place: tuple[Releases, str, str]) -> None:
    """A new program that the kernel rejects leaves the old one attached, and its pins complete."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    bad = XDP.replace("return XDP_PASS", "return *(int *)(long)(c->data + 100000)")
    broken = Releases(releases.lab, releases.directory, releases.root, bad)
    broken.put(2)
    result = start(broken, left)
    assert (result.code, result.events("update")) == (1, [])
    argv = [releases.lab.pins, "status", f"--pin-root={releases.root}"]
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
    assert not (releases.home / "next").exists()


def test_second_attachment_that_fails_takes_the_first_back(place: tuple[Releases, str, str]) -> None:
    """A failure in the middle of an update rolls back the links that were already updated."""
    releases, left, right = place
    releases.put(1)
    assert start(releases, left).code == 0
    before = releases.link(f"{PREFIX}_xdp@{left}")["prog_id"]
    foreign = releases.directory / "foreign.o"
    foreign.write_bytes(releases.build(3 - 1))
    pin = releases.root.parent / "foreign"
    subprocess.run(["bpftool", "prog", "load", foreign, pin], check=True, capture_output=True)
    subprocess.run(["bpftool", "net", "attach", "xdp", "pinned", pin, "dev", right], check=True)
    releases.put(2, release=2)
    result = start(releases, left, f"--attach={PREFIX}_xdp={right}")
    assert [line["event"] for line in result.lines] == ["verify", "load", "update", "rollback", "error"]
    assert result.code == 1
    assert releases.link(f"{PREFIX}_xdp@{left}")["prog_id"] == before
    assert [path.name for path in (releases.home / "links").iterdir()] == [f"{PREFIX}_xdp@{left}"]


@contextmanager
def memory_limit(limit: int) -> Iterator[Path]:
    """Make a memory cgroup that allows *limit* bytes; yield its file of processes."""
    for top, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        if (Path(top) / name).exists() or (
            name == "memory.max" and (Path(top) / "cgroup.controllers").exists()
        ):
            break
    group = Path(top) / f"{PREFIX}limit"
    group.mkdir()
    try:
        (group / name).write_text(str(limit))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


@pytest.mark.parametrize("pinned", [True, False])
def test_memory_limit_that_is_hit_while_loading(
    lab: Lab,
    tmp_path: Path,
    place: tuple[Releases, str, str],
    pinned: bool,  # noqa: FBT001
) -> None:
    """A map larger than the cgroup's memory is an error that names the map, and nothing stays."""
    releases, left, _ = place
    big = XDP.replace('SEC("xdp")', BIG_MAP + 'SEC("xdp")', 1)
    large = Releases(lab, tmp_path, releases.root, big)
    large.put(1)
    argv = lab.argv(tmp_path, *(large.options() if pinned else []), f"--attach={PREFIX}_xdp={left}", *TRUE)
    with memory_limit(8 << 20) as group:
        script = f'echo $$ >{group}; exec "$@"'
        done = subprocess.run(["sh", "-c", script, "sh", *argv], capture_output=True, text=True, check=False)
    result = Result(done.returncode, parse(done.stderr), done.stdout)
    assert (result.code, f"{PREFIX}_big" in result.message) == (1, True), result.message
    assert "memory" in result.message.lower()
    assert not releases.home.exists() or not list((releases.home / "links").iterdir())


BIG_MAP = """struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4 << 20); __type(key, __u32);
    __type(value, __u64); } @_big SEC(".maps"); """


def waits_for_signals(pid: int) -> bool:
    """Return whether a loader already blocks SIGTERM, so that the signal does not simply kill it."""
    status = Path(f"/proc/{pid}/status").read_text()
    (blocked,) = re.findall(r"SigBlk:\t(\w+)", status)
    return bool(int(blocked, 16) >> (signal.SIGTERM - 1) & 1)


def test_stop_while_another_loader_has_the_pins(place: tuple[Releases, str, str]) -> None:
    """SIGTERM ends the wait for the lock with exit code 1, and ends a running health check."""
    releases, left, _ = place
    releases.put(1)
    first = releases.lab.argv(releases.directory, *releases.options(f"xdp={left}"))
    checked = [*first, "--health-command=/bin/sleep 30", "--health-wait=30"]
    with subprocess.Popen(checked, stderr=subprocess.DEVNULL) as holder:
        assert wait_until((releases.home / "next").exists)
        with subprocess.Popen(first, stderr=subprocess.PIPE, text=True) as waiter:
            try:
                assert wait_until(lambda: waits_for_signals(waiter.pid))
                waiter.terminate()
                _, stderr = waiter.communicate(timeout=10)
                assert "another loader holds the lock" in parse(stderr)[-1]["message"]
                assert waiter.returncode == 1
                holder.terminate()
                assert holder.wait(timeout=10) == 0
            finally:
                waiter.kill()
                holder.kill()
    assert is_clean()


def test_object_name_with_every_character(place: tuple[Releases, str, str]) -> None:
    """A dot in the object's name is stored as a comma, and listed as a dot."""
    releases, left, _ = place
    releases.put(1)
    name = "a-b_c.1.bpf.o"
    signed = sign(releases.build(1), [releases.lab.key], name=name)
    (releases.directory / f"objects/{NAME}").write_bytes(signed)
    assert start(releases, left).code == 0
    assert [path.name for path in releases.root.iterdir()] == ["a-b_c,1,bpf,o"]
    argv = [releases.lab.pins, "list", f"--pin-root={releases.root}"]
    assert name in subprocess.run(argv, check=True, capture_output=True, text=True).stdout
