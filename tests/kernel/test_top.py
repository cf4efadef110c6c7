# SPDX-License-Identifier: Apache-2.0
"""`buildtool top` on pinned maps: exact changes of real traffic, updates, and a terminal of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from labs import net
from labs.loader import PREFIX, Lab
from labs.maps import pin_places, start_pinned
from labs.metrics import build_object, put_signed
from labs.run import wait_until

from buildtool.metrics.bpfcall import count_possible_cpus

pytestmark = pytest.mark.usefixtures("as_root")

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <buildtool/metrics.bpf.h>
struct key { char who[12] METRIC_LABEL(who:text); };
struct value { __u64 seen METRIC_COUNTER(seen_total, "", "Frames by name"); __u64 more[RELEASE]; };
struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __uint(max_entries, 100); __type(key, struct key);
	__type(value, struct value); } @_keys SEC(".maps");
__u64 @frames METRIC_COUNTER(frames_total, "", "Frames");
__u64 @volume METRIC_COUNTER(volume_bytes_total, "unit=kib", "Volume");
struct { __u64 slots[8]; } @waits METRIC_LOG2(wait_seconds, "value=slots unit=us", "Waits");
volatile const __u32 @limit METRIC_GAUGE(limit_frames, "", "A constant") = 5;
SEC("xdp") int @_xdp(struct xdp_md *c)
{
	struct key key = {"a\\e[31mb"};
	struct value one = {1}, *known = bpf_map_lookup_elem(&@_keys, &key);
	if (known)
		known->seen++;
	else
		bpf_map_update_elem(&@_keys, &key, &one, BPF_NOEXIST);
	__sync_fetch_and_add(&@frames, 1);
	__sync_fetch_and_add(&@volume, 2);
	__sync_fetch_and_add(&@waits.slots[3], 1);
	return @limit ? XDP_PASS : XDP_DROP;
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def build(tmp_path: Path, clang: Path, sysroot: Path) -> Callable[..., bytes]:
    """Return a function that compiles the program. Another release has another size of the values."""

    def compiled(release: int = 1) -> bytes:
        text = SOURCE.replace("@", PREFIX).replace("RELEASE", str(release))
        return build_object(tmp_path, clang, sysroot, text, f"x{release}")

    return compiled


@pytest.fixture
def places(lab: Lab, tmp_path: Path, build: Callable[..., bytes]) -> Iterator[tuple[Path, str, str]]:
    """Yield a directory with the pins of the program, and the ends of its veth pair: it is on the first."""
    with pin_places(tmp_path) as (root, left, right):
        put_signed(lab, tmp_path, "x.bpf.o", build(), version=1)
        start_pinned(lab, tmp_path, root, left)
        yield root, left, right


@contextmanager
def streaming(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run `buildtool top` with short intervals during the block."""
    argv = [sys.executable, "-m", "buildtool", "top", "--interval=0.1", *map(str, arguments)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_interval(process: subprocess.Popen[str]) -> dict[str, dict[str, Any]]:
    """Return the metrics of the next interval by name."""
    assert process.stdout is not None
    found = json.loads(process.stdout.readline())
    for metric in found["metrics"]:
        if metric["rate"] is not None:
            changes = [series["change"] for series in metric["series"]]
            assert metric["rate"] == pytest.approx(sum(changes) / found["seconds"])
    return {metric["name"]: metric for metric in found["metrics"]}


def test_changes_are_exact(places: tuple[Path, str, str]) -> None:
    """The changes of all intervals together are the frames that were sent, in base units, by slot and CPU."""
    root, _, right = places
    with streaming("--json", "--pin-root", root) as process:
        first = read_interval(process)
        assert first["frames_total"]["rate"] == 0  # the reading before is the start
        assert first["limit_frames"]["series"] == [{"labels": {}, "value": 5, "change": None, "rate": None}]
        assert first["seen_total"]["cpus"] == [0] * count_possible_cpus()
        net.send(right, 250)
        names = ("frames_total", "volume_bytes_total", "seen_total", "wait_seconds")
        sums = dict.fromkeys(names, 0.0)
        slots = [0] * 8
        cpu_rates = 0.0
        while sums["frames_total"] < 250 or sums["seen_total"] < 250:
            found = read_interval(process)
            for name in names:
                sums[name] += sum(series["change"] for series in found[name]["series"])
            for slot, bucket in enumerate(found["wait_seconds"]["series"][0]["buckets"]):
                slots[slot] += bucket["change"]
            cpu_rates += sum(found["seen_total"]["cpus"])
            if found["seen_total"]["series"]:
                assert sum(found["seen_total"]["cpus"]) == pytest.approx(found["seen_total"]["rate"])
        assert sums == {
            "frames_total": 250,
            "volume_bytes_total": 250 * 2 * 1024,
            "seen_total": 250,
            "wait_seconds": 250,
        }
        assert slots == [0, 0, 0, 250, 0, 0, 0, 0]
        assert cpu_rates > 0
        (series,) = found["seen_total"]["series"]
        assert (series["labels"], series["value"]) == ({"who": "a\x1b[31mb"}, 250)
        assert found["wait_seconds"]["series"][0]["buckets"][3]["le"] == 15e-6
        assert found["wait_seconds"]["series"][0]["buckets"][-1]["le"] is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "buildtool: top: ended\n")


def test_an_update_counts_nothing_twice(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """One map is replaced and others are carried over: each frame is in one interval."""
    root, left, right = places
    net.send(right, 40)
    with streaming("--json", "--pin-root", root) as process:
        while read_interval(process)["frames_total"]["series"][0]["value"] < 40:
            pass
        found = read_interval(process)
        put_signed(lab, tmp_path, "x.bpf.o", build(2), version=2)
        start_pinned(lab, tmp_path, root, left)
        net.send(right, 7)
        changes: list[int] = []
        while sum(changes) < 7:
            found = read_interval(process)
            changes += [series["change"] for series in found["seen_total"]["series"]]
        assert sum(changes) == 7
        assert found["seen_total"]["series"][0]["value"] == 7


def test_plain_lines_and_their_end(places: tuple[Path, str, str]) -> None:
    """Without a terminal: fields between tabs, names without control characters, and a given number."""
    root, _, right = places
    net.send(right, 3)
    argv = [sys.executable, "-m", "buildtool", "top", "--interval=0.05", "--count=2", "--pin-root", str(root)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 10
    assert {line[1] for line in lines} == {"x.bpf.o"}
    assert lines[-1][2:4] != lines[0][:2]
    assert [r'seen_total{who="a\u001b[31mb"}', "3"] in [line[2:4] for line in lines]
    assert "\x1b" not in done.stdout


def test_a_closed_pipe_ends_it_quietly(places: tuple[Path, str, str]) -> None:
    """A reader such as head ends a command that has no end of its own."""
    root, _, _ = places
    with streaming("--json", "--pin-root", root) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 1
        assert process.stderr.read() == ""
        process.stdout = None


@dataclass(slots=True)
class Terminal:
    """A pseudo-terminal with a `buildtool top` inside. *text* is what came out."""

    outer: int
    process: subprocess.Popen[bytes]
    text: bytes = b""
    screens: list[str] = field(default_factory=list)

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size, as a window does."""
        fcntl.ioctl(self.outer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def press(self, keys: str) -> None:
        """Type *keys*."""
        os.write(self.outer, keys.encode())

    def sees(self, condition: Callable[[str], object]) -> bool:
        """Return whether *condition* became true of the last screen."""

        def is_true() -> bool:
            try:
                self.text += os.read(self.outer, 65536)
            except BlockingIOError:
                pass
            except OSError:
                return False
            return bool(condition(self.screen()))

        return wait_until(is_true)

    def screen(self) -> str:
        """Return the last whole screen without the sequences of colours."""
        drawn = self.text.decode("utf-8", "replace").split("\x1b[H")[1:]
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn[-2]) if len(drawn) > 1 else ""


@contextmanager
def terminal(*arguments: str | Path, kind: str = "xterm-256color") -> Iterator[Terminal]:
    """Run `buildtool top` in a new pseudo-terminal of its own session."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    os.set_blocking(outer, False)
    names = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    argv = [sys.executable, "-m", "buildtool", "top", "--interval=0.1", *map(str, arguments)]
    with subprocess.Popen(
        argv,
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env={**names, "TERM": kind, "LANG": "C.UTF-8"},
    ) as process:
        before = termios.tcgetattr(inner)
        found = Terminal(outer, process)
        try:
            yield found
            assert wait_until(lambda: found.sees(lambda _: True) and process.poll() is not None)
            assert process.returncode == 0
            assert termios.tcgetattr(inner) == before
            assert found.text.count(b"\x1b[?1049l") == found.text.count(b"\x1b[?1049h") == (kind != "dumb")
            assert b"Traceback" not in found.text
        finally:
            process.kill()
            os.close(inner)
            os.close(outer)


def lines_of(screen: str) -> list[str]:
    """Return the lines of *screen*."""
    return [line.rstrip("\r") for line in screen.split("\n")]


def test_the_screen_shows_rates_bars_and_cpus(places: tuple[Path, str, str]) -> None:
    """Under traffic: rates, a histogram, a row of CPUs, and names that cannot command the terminal."""
    root, _, right = places
    with terminal("--pin-root", root) as shown, net.flood(right):
        assert shown.sees(lambda text: re.search(r"frames_total  counter  x\.bpf\.o +\d\S*/s", text))
        assert shown.sees(lambda text: re.search(r'{who="a\\u001b\[31mb"} +\d\S* +\d\S*/s +█', text))
        assert shown.sees(lambda text: re.search(r"cpu \|[ ▁▂▃▄▅▆▇█]*█[ ▁▂▃▄▅▆▇█]*\|", text))
        assert shown.sees(lambda text: "|█| <=1.5e-05 seconds" in text)
        assert b"\x1b[31mb" not in shown.text
        shown.press("q")


def test_keys_sizes_and_narrow_terminals(places: tuple[Path, str, str]) -> None:
    """Keys sort and scroll; the screen follows the terminal's size; no line is longer than the terminal."""
    root, _, right = places
    with terminal("--pin-root", root) as shown:
        assert shown.sees(lambda text: "by rate" in text)
        shown.press("n")
        names = r"by name.*frames_total.*limit_frames.*seen_total.*volume_bytes_total.*wait_seconds"
        assert shown.sees(lambda text: re.search(names, text, re.DOTALL))
        shown.press("v")
        assert shown.sees(lambda text: "by value" in text)
        shown.press("?\x1b[Zn")
        net.send(right, 1)
        for rows, columns in ((5, 30), (3, 7), (1, 1), (2, 400), (40, 100)):
            shown.resize(rows, columns)
            drawn = len(shown.text)

            def is_drawn(text: str, rows: int = rows, columns: int = columns, drawn: int = drawn) -> bool:
                lines = lines_of(text)
                return len(shown.text) > drawn and len(lines) == rows and max(map(len, lines)) == columns

            assert shown.sees(is_drawn), (rows, columns, lines_of(shown.screen()))
        shown.resize(3, 60)
        assert shown.sees(lambda text: len(lines_of(text)) == 3 and "frames_total" in text)
        shown.press("jj\x1b[B")
        assert shown.sees(lambda text: "frames_total" not in text)
        shown.press("\x1b[5~")
        assert shown.sees(lambda text: "frames_total" in text)
        shown.press("q")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_restores_the_terminal(places: tuple[Path, str, str], number: int) -> None:
    """The settings of the terminal are those of before, and the first screen is back."""
    root, _, _ = places
    with terminal("--pin-root", root) as shown:
        assert shown.sees(lambda text: "frames_total" in text)
        shown.process.send_signal(number)


def test_objects_may_go_while_it_runs(lab: Lab, places: tuple[Path, str, str]) -> None:
    """When all objects are detached, the screen says so and stays."""
    root, _, _ = places
    with terminal("--pin-root", root) as shown:
        assert shown.sees(lambda text: "frames_total" in text)
        subprocess.run([lab.pins, "detach", f"--pin-root={root}"], check=True, capture_output=True)
        assert shown.sees(lambda text: "0 objects" in text and "no pinned object declares any" in text)
        shown.press("q")


def test_a_terminal_without_a_screen_gets_lines(places: tuple[Path, str, str]) -> None:
    """A terminal that cannot move its cursor."""
    root, _, _ = places
    with terminal("--pin-root", root, "--count=2", kind="dumb") as shown:
        assert wait_until(lambda: shown.sees(lambda _: True) and shown.process.poll() is not None)
    assert shown.text.count(b"\tframes_total\t0\t") == 2
    assert b"\x1b" not in shown.text
