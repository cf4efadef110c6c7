# SPDX-License-Identifier: Apache-2.0
"""`buildtool maps` on pinned maps: types, exact counts of real traffic, updates, large maps, closed pipes."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import pty
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from labs import net
from labs.kernel import bpf_file_system, pin_descriptor
from labs.loader import PREFIX, Lab
from labs.maps import fill, make_map, pin_places, start_pinned
from labs.metrics import build_object, put_signed
from labs.run import wait_until

from buildtool.metrics.bpfcall import attributes_of, call, count_possible_cpus, open_pin

pytestmark = pytest.mark.usefixtures("as_root")

DELETE_ELEM = 3
SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
enum side { SIDE_LEFT = 1, SIDE_RIGHT = 7 };
struct flow {
	__u32 size;
	enum side side;
	__u8 mac[6];
	char name[10];
};
union both { __u32 whole; __u16 halves[2]; };
struct seen {
	__u64 packets;
	__s32 below;
	_Bool yes;
	__u8 low : 3, high : 5;
	union both both;
	struct { __u32 inner; };
	enum side side;
	void *where;
	double share;
};
struct count { __u64 packets; __u32 sizes[2]; enum side side; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1000); __type(key, struct flow);
	__type(value, struct seen); __uint(map_flags, BPF_F_NO_PREALLOC); } @_flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2); __type(key, __u32);
	__type(value, struct count); } @_counts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } @_ring SEC(".maps");
__u64 @frames;
char @note[12] = "hello";
SEC("xdp") int @_xdp(struct xdp_md *c)
{
	__u32 size = c->data_end - c->data, key = 1;
	struct flow flow = {size, SIDE_RIGHT, {2, 0, 0, 0, 0, 1}, "veth\\e[2J"};
	struct seen one = {1, -5, 1, 5, 17, {0x10002}, {9}, SIDE_LEFT, (void *)0xffff0000, 0};
	struct seen *known = bpf_map_lookup_elem(&@_flows, &flow);
	struct count *count = bpf_map_lookup_elem(&@_counts, &key);
	if (known)
		__sync_fetch_and_add(&known->packets, 1);
	else
		bpf_map_update_elem(&@_flows, &flow, &one, BPF_NOEXIST);
	if (count) {
		count->packets++;
		count->sizes[RELEASE & 1] += size;
		count->side = SIDE_RIGHT;
	}
	__sync_fetch_and_add(&@frames, 1);
	bpf_ringbuf_output(&@_ring, &key, 4, 0);
	return XDP_PASS + @note[11];
}
char LICENSE[] SEC("license") = "GPL";
"""
FLOW = {"size": len(net.FRAME), "side": "SIDE_RIGHT", "mac": "020000000001", "name": "veth\x1b[2J"}
SEEN = {
    "below": -5,
    "yes": True,
    "low": 5,
    "high": 17,
    "both": {"whole": 0x10002, "halves": [2, 1] if sys.byteorder == "little" else [1, 2]},
    "inner": 9,
    "side": "SIDE_LEFT",
    "where": "0xffff0000",
    "share": 0.0,
}


@pytest.fixture
def build(tmp_path: Path, clang: Path, sysroot: Path) -> Callable[..., bytes]:
    """Return a function that compiles the program."""

    def compiled(release: int = 1, change: tuple[str, str] = ("", "")) -> bytes:
        text = SOURCE.replace("@", PREFIX).replace("RELEASE", str(release)).replace(*change)
        return build_object(tmp_path, clang, sysroot, text, f"x{release}")

    return compiled


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield a directory for pins, and the ends of a veth pair."""
    with pin_places(tmp_path) as found:
        yield found


def run_maps(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `buildtool maps`, which must end with *code*."""
    argv = [sys.executable, "-m", "buildtool", "maps", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    return done


def dump(*arguments: str | Path) -> list[dict[str, Any]]:
    """Return the entries that `maps dump --json` prints without a complaint."""
    done = run_maps("dump", "--json", *arguments)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def frames_counted(root: Path) -> int:
    """Return the program's own count of frames."""
    (entry,) = dump(map_of(root, ".bss"), "--pin-root", root)
    return int(entry["value"][f"{PREFIX}frames"])


def map_of(root: Path, section: str) -> str:
    """Return the name of the map of the global variables of *section*."""
    rows = json.loads(run_maps("list", "--json", "--pin-root", root).stdout)
    return next(str(row["name"]) for row in rows if str(row["name"]).endswith(section))


def test_entries_are_decoded_with_exact_counts(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """Structs, unions, bit fields, enums, bytes, text, pointers, CPUs and global variables."""
    root, left, right = places
    put_signed(lab, tmp_path, "x.bpf.o", build())
    start_pinned(lab, tmp_path, root, left)
    net.send(right, 12)
    assert wait_until(lambda: frames_counted(root) == 12)
    assert dump(f"{PREFIX}_flows", "--pin-root", root) == [{"key": FLOW, "value": {"packets": 12, **SEEN}}]
    first, second = dump(f"x.bpf.o:{PREFIX}_counts", "--pin-root", root)
    assert first["value"] == {"packets": 0, "sizes": [0, 0]}
    assert (first["key"], second["key"]) == (0, 1)
    assert second["value"] == {"packets": 12, "sizes": [0, 12 * len(net.FRAME)]}
    assert len(second["cpus"]) == count_possible_cpus()
    assert sum(cpu["packets"] for cpu in second["cpus"]) == 12
    assert {cpu["side"] for cpu in second["cpus"] if cpu["packets"]} == {"SIDE_RIGHT"}
    (variables,) = dump(map_of(root, ".data"), "--pin-root", root)
    assert variables == {"key": 0, "value": {f"{PREFIX}note": "hello"}}


def test_list_shows_types_counts_and_memory(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """Each map of each object has a row, also one without entries to read."""
    root, left, right = places
    for name in ("x.bpf.o", "y.bpf.o"):
        put_signed(lab, tmp_path, name, build())
    start_pinned(lab, tmp_path, root, left, of="x.bpf.o", others=["y.bpf.o"])
    net.send(right, 1)
    assert wait_until(lambda: dump(f"x.bpf.o:{PREFIX}_flows", "--pin-root", root))
    rows = json.loads(run_maps("list", "--json", "--pin-root", root).stdout)
    found = {(row["object"], row["name"]): row for row in rows}
    assert len(rows) == len(found)
    flows = found["x.bpf.o", f"{PREFIX}_flows"]
    assert flows["key"] == {"type": "struct flow", "size": 24}
    assert flows["value"]["type"] == "struct seen"
    assert (flows["entries"], flows["maxEntries"], flows["entriesCut"]) == (1, 1000, False)
    assert flows["memory"] > 0
    assert found["y.bpf.o", f"{PREFIX}_counts"]["entries"] == 2
    assert found["y.bpf.o", f"{PREFIX}_ring"]["entries"] is None
    lines = run_maps("list", "--pin-root", root).stdout.splitlines()
    assert len(lines) == len(rows)
    row = next(line for line in lines if line.startswith(f"{PREFIX}_flows\tx.bpf.o\t")).split("\t")
    assert row[2:6] == ["hash", "struct flow", "struct seen", "1/1000"]
    for argument, problem in (
        (f"{PREFIX}_flows", "2 maps: "),
        ("nothing", "no such map"),
        (f"y.bpf.o:{PREFIX}_ring", "a map of type ringbuf has no entries to read"),
        (str(root / "x,bpf,o/current/programs" / f"{PREFIX}_xdp"), "cannot open as a map: "),
    ):
        code = 2 if "2 maps" in problem else 1
        lines = run_maps("dump", argument, "--pin-root", root, code=code).stderr.splitlines()
        assert lines[0].startswith(f"buildtool: error: {argument}: {problem}")


def test_versions_below_a_shared_directory(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """Two versions that run at once have an entry each, and the entry tells their maps apart."""
    root, left, right = places
    root = root.with_name("share")
    with ExitStack() as stack:
        for version, interface in ((1, left), (2, right)):
            put_signed(lab, tmp_path, "x.bpf.o", build(version), version=version)
            options = [f"--share={root}", f"--attach={PREFIX}_xdp={interface}"]
            stack.enter_context(lab.started(tmp_path, *options))
        rows = json.loads(run_maps("list", "--json", "--share", root).stdout)
        entries = {row["entry"] for row in rows}
        assert entries == {entry.name for entry in root.iterdir()}
        assert {row["object"] for row in rows} == {"x.bpf.o"}
        name = f"{PREFIX}_counts"
        line = run_maps("dump", name, "--share", root, code=2).stderr.splitlines()[0]
        assert all(entry in line for entry in entries)
        for entry in entries:
            assert [each["key"] for each in dump(f"{entry}:{name}", "--share", root)] == [0, 1]


def test_another_user_is_told_what_is_missing(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """One line with a hint: directories of pins are closed to others, and BTF needs a privilege."""
    root, left, _ = places
    put_signed(lab, tmp_path, "x.bpf.o", build())
    start_pinned(lab, tmp_path, root, left)
    pin = root / "x,bpf,o/current/maps" / f"{PREFIX}_flows"
    for user in (
        ["setpriv", "--reuid=65532", "--clear-groups", "--regid=65532"],
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
    ):
        for arguments in (["list", "--pin-root", root], ["dump", pin]):
            argv = [*user, sys.executable, "-m", "buildtool", "maps", *map(str, arguments)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
            assert done.returncode == 1
            error, hint = done.stderr.splitlines()
            assert "permission denied" in error or "operation not permitted" in error
            assert hint.startswith("buildtool: hint: run the command as root")


def test_text_cannot_command_a_terminal(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """A key that a packet chose has its control characters escaped in every form."""
    root, left, right = places
    put_signed(lab, tmp_path, "x.bpf.o", build())
    start_pinned(lab, tmp_path, root, left)
    net.send(right, 1)
    assert wait_until(lambda: dump(f"{PREFIX}_flows", "--pin-root", root))
    for options in ((), ("--json",)):
        text = run_maps("dump", f"{PREFIX}_flows", "--pin-root", root, *options).stdout
        assert "\\u001b[2J" in text
        assert "\x1b" not in text


@contextmanager
def pinned_map(directory: Path, kind: int, entries: int, count: int) -> Iterator[Path]:
    """Yield the pin of a map without types that has *count* entries: key n has (n, 1000 n)."""
    descriptor = make_map(kind, entries)
    try:
        fill(descriptor, count, value=lambda number, _: struct.pack("=QQ", number, 1000 * number))
        with bpf_file_system(directory) as mount:
            pin_descriptor(descriptor, mount / "large")
            yield mount / "large"
    finally:
        os.close(descriptor)


def test_a_million_entries_are_streamed(tmp_path: Path) -> None:
    """Every entry is a line, and the memory of the command does not grow with the map."""
    with pinned_map(tmp_path, 1, 1_000_000, 1_000_000) as pin:
        argv = [sys.executable, "-m", "buildtool", "maps", "dump", "--json", str(pin)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        keys, peaks = bytearray(1_000_000), []
        for at, line in enumerate(process.stdout):
            entry = json.loads(line)
            keys[int.from_bytes(bytes.fromhex(entry["key"]), sys.byteorder)] += 1
            if at % 100_000 == 50_000:
                status = Path(f"/proc/{process.pid}/status").read_text()
                peaks.append(int(status.partition("VmHWM:")[2].split()[0]))
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert keys == b"\1" * 1_000_000
        assert len(peaks) == 10
        assert max(peaks) < 100 * 1024  # KiB
        assert max(peaks) - peaks[0] < 4096
        done = run_maps("dump", pin, "--limit", "3")
        assert len(done.stdout.splitlines()) == 3
        assert done.stderr == f"buildtool: {pin}: more than 3 entries: only these were printed\n"


def test_a_closed_pipe_ends_it_quietly(tmp_path: Path) -> None:
    """A reader such as head ends the command at once, without a message."""
    with pinned_map(tmp_path, 1, 500_000, 500_000) as pin:
        argv = [sys.executable, "-m", "buildtool", "maps", "dump", str(pin)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        with process.stderr:
            assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


@contextmanager
def watching(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run `maps watch` during the block, at the end of which it has to end by itself."""
    argv = [sys.executable, "-m", "buildtool", "maps", "watch", "--interval", "0.05", *map(str, arguments)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_changes(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    """Return the next *count* changes."""
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def test_watch_shows_what_changes(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """An entry that comes, counts and goes; an update that replaces the map; an interrupt."""
    root, left, right = places
    put_signed(lab, tmp_path, "x.bpf.o", build(), version=1)
    start_pinned(lab, tmp_path, root, left)
    net.send(right, 1)
    assert wait_until(lambda: dump(f"{PREFIX}_flows", "--pin-root", root))
    with watching(f"{PREFIX}_flows", "--pin-root", root, "--json") as process:
        sent = 1
        seen: list[dict[str, Any]] = []
        # The first reading may come after a frame, so frames are sent until a change is seen.
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)

        def is_seen() -> bool:
            nonlocal sent
            net.send(right, 1)
            sent += 1
            seen.extend(json.loads(line) for line in process.stdout or ())
            return bool(seen)

        assert wait_until(is_seen)
        os.set_blocking(process.stdout.fileno(), True)
        while seen[-1]["after"]["packets"] < sent:
            seen += read_changes(process, 1)
        for change in seen:
            assert (change["change"], change["key"]) == ("changed", FLOW)
            assert change["before"].keys() == change["after"].keys() == {"packets", *SEEN}
        numbers = [change["before"]["packets"] for change in seen]
        assert numbers[1:] == [change["after"]["packets"] for change in seen[:-1]]
        assert seen[-1]["after"]["packets"] == sent
        # Another size of the value: the update cannot keep the map, and begins a new one.
        put_signed(lab, tmp_path, "x.bpf.o", build(2, ("double share;", "double share[2];")), version=2)
        start_pinned(lab, tmp_path, root, left)
        net.send(right, 3)
        (added,) = read_changes(process, 1)
        assert (added["change"], added["key"]) == ("added", FLOW)
        assert "share" in added["after"]
        assert "before" not in added
        total = added["after"]["packets"]
        while total < 3:
            (change,) = read_changes(process, 1)
            total = change["after"]["packets"]
        assert total == 3
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        name = f"{PREFIX}_flows"
        assert (out, process.returncode) == ("", 0)
        assert (
            err == f"buildtool: {name}: replaced by an update; entries begin anew\nbuildtool: maps: ended\n"
        )


def test_watch_in_plain_lines_and_its_end(tmp_path: Path) -> None:
    """Entries that come and go, a pin that goes; a watch of a part of a map shows no removal."""
    with pinned_map(tmp_path, 1, 10, 2) as pin, watching(pin) as process, watching(pin, "--limit=1") as part:
        assert process.stdout is not None
        assert process.stderr is not None
        assert part.stderr is not None
        assert "more than 1 entries: only these are watched" in part.stderr.readline()
        descriptor = open_pin(pin, flags=0)
        os.set_blocking(process.stdout.fileno(), False)
        seen: list[list[str]] = []
        values = itertools.count(7)

        def is_seen() -> bool:
            value = next(values)
            fill(descriptor, 2, value=lambda number, _: struct.pack("=QQ", number, value))
            seen.extend(line.rstrip().split("\t")[1:] for line in process.stdout or ())
            return any(change == "changed" for change, *_ in seen)

        assert wait_until(is_seen)
        os.set_blocking(process.stdout.fileno(), True)
        assert all(change == "changed" and " -> " in values for change, _, values in seen)
        fill(descriptor, 3, value=lambda number, _: struct.pack("=QQ", number, 0))
        while (line := process.stdout.readline().rstrip().split("\t"))[1] != "added":
            assert line[1] == "changed"
        value = struct.pack("=QQ", 2, 0).hex()
        assert line[2:] == [f'"{struct.pack("=I", 2).hex()}"', f'"{value}"']
        key = ctypes.create_string_buffer(struct.pack("=I", 1))
        call(DELETE_ELEM, attributes_of(struct.pack("=IIQQQ", descriptor, 0, ctypes.addressof(key), 0, 0)))
        while (line := process.stdout.readline().rstrip().split("\t"))[1] != "removed":
            assert line[1] == "changed"
        assert line[2] == f'"{key.raw[:4].hex()}"'
        os.close(descriptor)
        pin.unlink()
        assert process.stderr.readline() == f"buildtool: {pin}: gone; waiting for it\n"
        assert process.poll() is None
        assert part.stderr.readline() == f"buildtool: {pin}: gone; waiting for it\n"
        part.send_signal(signal.SIGINT)
        out, _ = part.communicate(timeout=30)
        assert {line.split("\t")[1] for line in out.splitlines()} <= {"changed"}


def test_a_terminal_gets_a_table(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """The table has a header, and names of the object's types."""
    root, left, _ = places
    put_signed(lab, tmp_path, "x.bpf.o", build())
    start_pinned(lab, tmp_path, root, left)
    terminal, inner = pty.openpty()
    argv = [sys.executable, "-m", "buildtool", "maps", "list", "--pin-root", str(root)]
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    process = subprocess.Popen(argv, stdout=inner, stderr=subprocess.PIPE, env=environment)
    os.close(inner)
    text = b""
    try:
        while data := os.read(terminal, 4096):
            text += data
    except OSError:  # Linux reports the end of the other side so
        pass
    finally:
        os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert process.stderr is not None
    process.stderr.close()
    assert b"MEMORY" in text
    assert b"struct flow" in text
