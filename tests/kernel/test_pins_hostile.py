# SPDX-License-Identifier: Apache-2.0
"""
A process of the loader's own user writes to its pins: the loader follows, trusts and removes nothing foreign.

A workload cannot do this (test_workload_hostile.py). Another process of that user that has the directory
mounted can, so every look-up and every comparison is tested alone.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from labs.handsig import sign
from labs.kernel import (
    attach_tracing,
    bpf_file_system,
    create_array,
    freeze_map,
    lookup_map,
    open_pin,
    pin_descriptor,
    update_link,
)
from labs.loader import PREFIX, Lab, Result, is_clean
from labs.net import veth
from labs.pins import NAME, RAW, XDP, Releases
from labs.privileges import user_with

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--", "/bin/true")
COMMANDS = ("start", "list", "status", "rollback", "detach")


def start(releases: Releases, left: str, *more: str) -> Result:
    """Start with pins, attached to *left*."""
    return releases.lab.run(releases.directory, *releases.options(f"xdp={left}"), *more, *TRUE)


def join(releases: Releases) -> Result:
    """Start with a shared directory."""
    return releases.lab.run(releases.directory, f"--share={releases.root}", *TRUE)


def leave(releases: Releases) -> None:
    """Remove all shared entries."""
    argv = [str(releases.lab.pins), "detach", f"--share={releases.root}"]
    subprocess.run(argv, check=True, capture_output=True)


def run(releases: Releases, left: str, word: str) -> Result:
    """Run one of COMMANDS."""
    return start(releases, left) if word == "start" else releases.command(word)


# Symbolic links below a root


@pytest.mark.parametrize("what", [".", "current", "current/programs", "current/maps", "links"])
@pytest.mark.parametrize("word", COMMANDS)
def test_link_in_the_place_of_a_directory(lab: Lab, tmp_path: Path, what: str, word: str) -> None:
    """A symbolic link to another container's directory is an error, and that directory stays unchanged."""
    with veth() as (left, right), bpf_file_system(tmp_path) as mount, ExitStack() as stack:
        ours = Releases(lab, tmp_path, mount / "ours", XDP)
        others = Releases(lab, tmp_path, mount / "others", XDP)
        for releases, target in ((ours, left), (others, right)):
            stack.callback(releases.command, "detach")
            for version in (1, 2):
                releases.put(version, release=version)
                assert start(releases, target).code == 0
        before = others.link(f"{PREFIX}_xdp@{right}")["prog_id"]
        entry = ours.home / what
        entry.rename(mount / "away")
        entry.symlink_to(others.home / what)
        done = run(ours, left, word)
        if (what, word) != ("links", "list"):
            assert done.code == 1, done.lines
            said = "not everything is attached" if (what, word) == ("links", "status") else "a symbolic link"
            assert said in done.message, done.message
        assert others.link(f"{PREFIX}_xdp@{right}")["prog_id"] == before
        assert others.command("status").code == 0
        entry.unlink()
        (mount / "away").rename(entry)


@pytest.mark.parametrize(
    "pin", ["current/record", "current/attached", "current/programs/@_xdp", "current/maps/@_map"]
)
def test_link_in_the_place_of_a_pin(place: tuple[Releases, str, str], pin: str) -> None:
    """A symbolic link in place of a pin is an error, though BPF_OBJ_GET would follow it to the right pin."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    path = releases.home / pin.replace("@", PREFIX)
    away = releases.root.parent / "away"
    path.rename(away)
    path.symlink_to(away)
    result = start(releases, left)
    assert (result.code, path.name in result.message) == (1, True), result.message
    path.unlink()
    away.rename(path)
    assert start(releases, left).code == 0


@pytest.mark.parametrize("word", ["start", "detach"])
def test_what_a_link_leads_to_is_not_removed(place: tuple[Releases, str, str], word: str) -> None:
    """Cleaning `next` removes symbolic links in it, never their targets."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    precious = releases.directory / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    for number in range(1500):
        (releases.home / "next").mkdir(exist_ok=True)
        (releases.home / f"next/{number}").symlink_to(precious / "file")
    (releases.home / "next/inner").symlink_to(precious)
    assert run(releases, left, word).code == 0
    if word == "start":
        (releases.home / "next").symlink_to(precious)
        result = run(releases, left, word)
        assert result.code == 1
        (releases.home / "next").unlink()
    assert [path.name for path in precious.iterdir()] == ["file"]


EXCHANGER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
one, other = (path.encode() for path in sys.argv[1:])
print("ready", flush=True)
while True:
    libc.renameat2(-100, one, -100, other, 2)
"""


def fill(directory: Path) -> None:
    """Make 200 directories in *directory*, or none while it is a symbolic link."""
    with suppress(OSError):
        directory.mkdir()
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for number in range(200):
                os.mkdir(str(number), dir_fd=descriptor)
        finally:
            os.close(descriptor)


def test_directory_exchanged_while_it_is_removed(shared: Releases) -> None:
    """`next`, exchanged with a link to the state directory during `detach`, costs no state file."""
    shared.put(1)
    assert join(shared).code == 0
    state = shared.directory / "state"
    state.mkdir()
    kept = [f"versions{number}" for number in range(50)]
    for name in kept:
        (state / name).write_text("{}")
    upper, link = shared.root / "next", shared.root / "decoy"
    link.symlink_to(state)
    argv = ["/usr/bin/python3", "-c", EXCHANGER, str(upper), str(link)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as exchanger:
        assert exchanger.stdout is not None
        exchanger.stdout.readline()
        try:
            for _ in range(10):
                fill(upper)
                argv = [str(shared.lab.pins), "detach", f"--share={shared.root}"]
                subprocess.run(argv, check=False, capture_output=True)
        finally:
            exchanger.kill()
    assert sorted(path.name for path in state.iterdir()) == sorted(kept)
    for path in (upper, link):
        if path.is_symlink():
            path.unlink()
    leave(shared)
    assert is_clean()


def test_deep_directory_is_not_walked_for_ever(place: tuple[Releases, str, str]) -> None:
    """A directory nested a thousand deep is an error and no stack overflow; a loader makes three levels."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    at = os.open(releases.home, os.O_RDONLY)
    for name in ["next", *["d"] * 1000]:
        os.mkdir(name, dir_fd=at)
        inner = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    result = start(releases, left)
    assert (result.code, "clean up" in result.message) == (1, True), result.message
    subprocess.run(["rm", "-r", releases.home / "next"], check=True)


@pytest.mark.parametrize("what", [".", "current", "links"])
@pytest.mark.parametrize("no_call", [False, True], ids=["openat2", "openat"])
def test_another_file_system_below_the_root(
    place: tuple[Releases, str, str], what: str, *, no_call: bool
) -> None:
    """A mount below the root is an error, also without openat2(2), as before Linux 5.6."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    before = ["strace", "-o", "/dev/null", "-e", "inject=openat2:error=ENOSYS"] if no_call else []
    entry = releases.home / what
    subprocess.run(["mount", "-t", "bpf", "bpf", entry], check=True)
    try:
        argv = (*releases.options(f"xdp={left}"), *TRUE)
        result = releases.lab.run(releases.directory, *argv, before=before)
        assert (result.code, "another file system is mounted there" in result.message) == (1, True), (
            result.lines
        )
    finally:
        subprocess.run(["umount", entry], check=True)
    assert releases.lab.run(releases.directory, *argv, before=before).code == 0


# Records


def record_of(path: Path) -> dict[str, Any]:
    """Return the record that is pinned at *path*."""
    descriptor = open_pin(path)
    try:
        return dict(json.loads(lookup_map(descriptor, 65536).rstrip(b"\0").split(b"\0")[0]))
    finally:
        os.close(descriptor)


def forge(
    path: Path, record: dict[str, Any], *, name: str = "record", frozen: bool = True, entries: int = 1
) -> None:
    """Replace the record at *path* by a map with the text of *record* and the given properties."""
    text = json.dumps(record, separators=(",", ":"), sort_keys=True).encode() + b"\0"
    descriptor = create_array(name, text, entries=entries)
    if frozen:
        freeze_map(descriptor)
    path.unlink()
    pin_descriptor(descriptor, path)
    os.close(descriptor)


FORMS = [{"name": "another"}, {"frozen": False}, {"entries": 2}]


@pytest.mark.parametrize("form", FORMS, ids=["name", "frozen", "entries"])
@pytest.mark.parametrize("word", COMMANDS)
def test_record_that_no_loader_made(
    place: tuple[Releases, str, str], form: dict[str, Any], word: str
) -> None:
    """A record in a map with another name, with two elements, or still writable is an error."""
    releases, left, _ = place
    for version in (1, 2):
        releases.put(version, release=version)
        assert start(releases, left).code == 0
    path = releases.home / "current/record"
    good = record_of(path)
    forge(path, good, **form)
    result = run(releases, left, word)
    assert (result.code, "not a record" in result.message) == (1, True), result.lines
    forge(path, good)
    assert start(releases, left).code == 0


def test_running_release_is_not_taken_for_another(shared: Releases) -> None:
    """The entry of release 1 under the name of release 2 is an error: the record has another digest."""
    shared.put(2, release=2)
    assert join(shared).code == 0
    (second,) = shared.root.iterdir()
    leave(shared)
    shared.put(1)
    assert join(shared).code == 0
    (first,) = shared.root.iterdir()
    first.rename(second)
    shared.put(2, release=2)
    result = join(shared)
    assert (result.code, "its record is of another object" in result.message) == (1, True), result.lines


def test_variant_of_a_record_is_compared(shared: Releases) -> None:
    """A record of the same bytes with another choice of programs is an error."""
    shared.put(1)
    assert join(shared).code == 0
    (entry,) = shared.root.iterdir()
    forge(entry / "record", record_of(entry / "record") | {"variant": "0" * 64})
    result = join(shared)
    assert (result.code, "its record is of another object" in result.message) == (1, True), result.lines


def test_pins_under_another_objects_name(place: tuple[Releases, str, str]) -> None:
    """Pins of one object under another object's name are an error: the record names its object."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    renamed = releases.root / "other,bpf,o"
    releases.home.rename(renamed)
    signed = sign(releases.build(1), [releases.lab.key], name="other.bpf.o")
    (releases.directory / f"objects/{NAME}").write_bytes(signed)
    for word in ("start", "list", "status", "rollback"):
        result = run(releases, left, word)
        assert (result.code, "its record is of another object" in result.message) == (1, True), result.lines
    renamed.rename(releases.home)
    releases.put(1)
    assert start(releases, left).code == 0


def _change_program(record: dict[str, Any]) -> None:
    record["programs"] = dict.fromkeys(record["programs"], 1)


def _change_map(record: dict[str, Any]) -> None:
    record["mapIds"] = dict.fromkeys(record["mapIds"], 1)


def _forget_map(record: dict[str, Any]) -> None:
    record["mapIds"].popitem()


def _one_more_map(record: dict[str, Any]) -> None:
    record["mapIds"]["more"] = 1


def _forget_program(record: dict[str, Any]) -> None:
    record["programs"].popitem()


CHANGES = [_change_program, _change_map, _forget_map, _one_more_map, _forget_program]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("option", ["--pin-root", "--share"])
def test_ids_of_a_record_are_compared(
    place: tuple[Releases, str, str], change: Callable[[dict[str, Any]], None], option: str
) -> None:
    """An id that differs from the record, a missing one or an additional one is an error."""
    releases, left, _ = place
    releases.put(1)
    argv = (f"{option}={releases.root}", f"--attach={PREFIX}_xdp={left}", *TRUE)
    assert releases.lab.run(releases.directory, *argv).code == 0
    (home,) = releases.root.iterdir()
    path = home / ("record" if option == "--share" else "current/record")
    good = record_of(path)
    bad = json.loads(json.dumps(good))
    change(bad)
    forge(path, bad)
    result = releases.lab.run(releases.directory, *argv)
    assert result.code == 1, result.lines
    assert "is not the one that was pinned" in result.message or "is missing" in result.message
    forge(path, good)
    assert releases.lab.run(releases.directory, *argv).code == 0
    subprocess.run(
        [releases.lab.pins, "detach", f"{option}={releases.root}"], check=True, capture_output=True
    )


# Foreign pins with a forged record that has their ids


def foreign_program(releases: Releases, source: str, pin: Path, *, as_user: bool = False) -> int:
    """Load the first program of *source* as root or as USER, pin it at *pin*, and return its id."""
    data = Releases(releases.lab, releases.directory, releases.root, source).build(2)
    path = releases.directory / "foreign.o"
    path.write_bytes(data)
    if pin.exists():
        pin.unlink()
    before = []
    if as_user:
        before = user_with("bpf", "net_admin", "perfmon")
        pin.parent.chmod(0o777)
        for directory in (*path.parents, pin.parent, *pin.parents):
            if directory != Path("/") and directory != Path("/tmp"):
                directory.chmod(directory.stat().st_mode | 0o055)
    subprocess.run([*before, "bpftool", "prog", "load", path, pin], check=True, capture_output=True)
    shown = subprocess.run(["bpftool", "-j", "prog", "show", "pinned", pin], check=True, capture_output=True)
    return int(json.loads(shown.stdout)["id"])


@pytest.mark.parametrize(
    ("source", "as_user"),
    [
        (XDP.replace('SEC("xdp")', 'SEC("tc")').replace("xdp_md", "__sk_buff"), False),
        (XDP.replace("@_xdp", "@_oth"), False),
        (XDP, True),
    ],
    ids=["type", "name", "maker"],
)
@pytest.mark.parametrize("option", ["--pin-root", "--share"])
def test_program_that_the_object_does_not_have(
    place: tuple[Releases, str, str], source: str, option: str, *, as_user: bool
) -> None:
    """A program of another type, name or user is an error, even if the record has its id."""
    releases, left, _ = place
    releases.put(1)
    argv = (f"{option}={releases.root}", f"--attach={PREFIX}_xdp={left}", *TRUE)
    assert releases.lab.run(releases.directory, *argv).code == 0
    (entry,) = releases.root.iterdir()
    home = entry / "current" if option == "--pin-root" else entry
    number = foreign_program(releases, source, home / f"programs/{PREFIX}_xdp", as_user=as_user)
    releases.root.chmod(0o700)
    record = record_of(home / "record")
    forge(home / "record", record | {"programs": {f"{PREFIX}_xdp": number}})
    result = releases.lab.run(releases.directory, *argv)
    assert (result.code, "is not what was pinned there" in result.message) == (1, True), result.lines
    subprocess.run(
        [releases.lab.pins, "detach", f"{option}={releases.root}"], check=False, capture_output=True
    )


def foreign_map(pin: Path, *arguments: str) -> int:
    """Make a map with bpftool in place of the one at *pin*; return its id."""
    pin.unlink()
    subprocess.run(["bpftool", "map", "create", pin, *arguments, "name", "foreign"], check=True)
    shown = subprocess.run(["bpftool", "-j", "map", "show", "pinned", pin], check=True, capture_output=True)
    return int(json.loads(shown.stdout)["id"])


ARRAY = ("type", "percpu_array", "key", "4", "value", "8", "entries", "3")
OTHERS = {
    "type": ("type", "array", *ARRAY[2:]),
    "value": (*ARRAY[:5], "16", *ARRAY[6:]),
    "key": ("type", "percpu_hash", "key", "8", "value", "8", "entries", "3"),
}


@pytest.mark.parametrize("kind", ["alike", "gone", *OTHERS])
@pytest.mark.parametrize("agrees", [False, True])
@pytest.mark.parametrize("option", ["--pin-root", "--share"])
def test_foreign_map(place: tuple[Releases, str, str], kind: str, option: str, *, agrees: bool) -> None:
    """
    The loader never passes on a map under maps/NAME that it did not make.

    If a forged record has the foreign map's id, type and sizes must still fit the object. A map that fits in
    all of this is accepted: to forge the record, a process needs CAP_BPF.
    """
    releases, left, _ = place
    releases.put(1)
    argv = (f"{option}={releases.root}", f"--attach={PREFIX}_xdp={left}", *TRUE)
    assert releases.lab.run(releases.directory, *argv).code == 0
    (entry,) = releases.root.iterdir()
    home = entry / "current" if option == "--pin-root" else entry
    pin = home / f"maps/{PREFIX}_map"
    record = record_of(home / "record")
    if kind == "gone":
        pin.unlink()
        record["mapIds"] = {}
    else:
        record["mapIds"][pin.name] = foreign_map(pin, *OTHERS.get(kind, ARRAY))
    if agrees:
        forge(home / "record", record)
    else:
        command = (str(releases.lab.pins), "list", f"{option}={releases.root}")
        assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    result = releases.lab.run(releases.directory, *argv)
    if kind == "alike" and agrees:
        assert result.code == 0
    else:
        assert result.code == 1, result.lines
        assert f"{PREFIX}_map" in result.message or "maps: one is missing" in result.message, result.message
    subprocess.run(
        [releases.lab.pins, "detach", f"{option}={releases.root}"], check=False, capture_output=True
    )


def test_update_does_not_carry_a_foreign_map_over(place: tuple[Releases, str, str]) -> None:
    """An update with a foreign map in the pins is an error, and the old program stays attached."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    attached = releases.link(f"{PREFIX}_xdp@{left}")["prog_id"]
    foreign_map(releases.home / f"current/maps/{PREFIX}_map", *ARRAY)
    releases.put(2, release=2)
    result = start(releases, left)
    assert (result.code, "is not the one that was pinned" in result.message) == (1, True), result.lines
    assert releases.link(f"{PREFIX}_xdp@{left}")["prog_id"] == attached


# The links of a pin root


def test_link_that_got_another_program(place: tuple[Releases, str, str]) -> None:
    """A pinned link that was updated to another program is an error, for a restart and for an update."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    foreign_program(releases, XDP, releases.root.parent / "foreign")
    with ExitStack() as stack:
        opened = [
            open_pin(releases.home / f"links/{PREFIX}_xdp@{left}"),
            open_pin(releases.root.parent / "foreign"),
        ]
        for descriptor in opened:
            stack.callback(os.close, descriptor)
        update_link(*opened)
    for version in (1, 2):
        releases.put(version, release=version)
        result = start(releases, left)
        assert (result.code, "with another program" in result.message) == (1, True), result.lines
    assert releases.command("status").code == 1


def test_another_link_of_the_same_program(lab: Lab, tmp_path: Path) -> None:
    """Another link of the recorded program in place of the recorded one is an error: its id differs."""
    with bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", RAW)
        releases.put(1)
        assert lab.run(tmp_path, *releases.options(), *TRUE).code == 0
        (pin,) = (releases.home / "links").iterdir()
        link = attach_tracing(releases.home / f"current/programs/{PREFIX}_raw", "sys_enter")
        pin.unlink()
        pin_descriptor(link, pin)
        os.close(link)
        result = lab.run(tmp_path, *releases.options(), *TRUE)
        assert (result.code, "not the link that was pinned" in result.message) == (1, True), result.lines
        assert releases.command("status").code == 1
        assert releases.command("detach").code == 0


# Pins of an earlier release of the loader


def test_pins_of_an_earlier_release(place: tuple[Releases, str, str]) -> None:
    """A record without ids of maps is an error that names the command to remove the pins."""
    releases, left, _ = place
    releases.put(1)
    assert start(releases, left).code == 0
    path = releases.home / "current/record"
    old = record_of(path) | {"v": 1}
    del old["mapIds"]
    forge(path, old)
    for word in ("start", "list", "rollback"):
        result = run(releases, left, word)
        assert (result.code, "ebpf-pins detach" in result.message) == (1, True), result.lines
    gone = releases.command("detach")
    (line,) = gone.events("detach")
    # Without a record that the loader can read, the link's name tells what it was.
    assert (gone.code, line["program"], line["target"]) == (0, f"{PREFIX}_xdp", left)
    assert NAME not in str(list(releases.root.parent.iterdir()))
    assert start(releases, left).code == 0
