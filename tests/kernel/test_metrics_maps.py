# SPDX-License-Identifier: Apache-2.0
"""Reading real maps: every entry once, full buckets, memory of arrays, CPUs, limits, updates of programs."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from labs import TOP, net
from labs.kernel import bpf_file_system, pin_descriptor
from labs.loader import PREFIX, Lab
from labs.maps import UPDATE_BATCH, fill, make_map, pin_places, start_pinned
from labs.metrics import build_object, by_label, parse_text, put_signed, read_samples, run_print, serving
from labs.run import wait_until

from buildtool.metrics import maps, pinned
from buildtool.metrics.bpfcall import (
    F_MMAPABLE,
    attributes_of,
    call,
    count_possible_cpus,
    open_pin,
    read_map_facts,
)
from buildtool.metrics.exposition import Reader
from buildtool.metrics.maps import Map
from buildtool.metrics.pinned import Place
from buildtool.metrics.samples import MAX_ENTRIES, MAX_SERIES

pytestmark = pytest.mark.usefixtures("as_root")

HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, LRU_PERCPU_HASH = 1, 2, 5, 6, 9, 10
UPDATE_ELEM = 2
NAMES = {1: "hash", 2: "array", 5: "percpu_hash", 6: "percpu_array", 9: "lru_hash", 10: "lru_percpu_hash"}


@pytest.fixture
def no_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a reading by batches an error."""

    def refuse(*_: object) -> int:
        raise AssertionError("read by a batch")

    monkeypatch.setattr(maps, "call", refuse)


def two_words(number: int, cpu: int) -> bytes:
    """Return a value that tells key and CPU."""
    return struct.pack("=QQ", number, 1000 * number + cpu)


def read_all(source: Map, limit: int = 1_000_000) -> list[tuple[int, tuple[int, ...]]]:
    """Return key and words of all entries, in order of the keys."""
    found = []
    words = source.cpu_stride * source.cpus // 8
    for block in source.blocks(limit):
        keys = struct.unpack(f"={block.count}I", block.keys[: 4 * block.count])
        for at, key in enumerate(keys):
            entry = block.values[at * block.stride : at * block.stride + words * 8]
            found.append((key, struct.unpack(f"={words}Q", entry)))
    return sorted(found)


@pytest.mark.parametrize("kind", NAMES, ids=NAMES.values())
@pytest.mark.parametrize("count", [1, 2, 1000, 50_000])
def test_every_entry_is_read_once(kind: int, count: int) -> None:
    """Each type of map gives all of its entries, with the values of all CPUs."""
    entries = 2 * count if kind in (LRU_HASH, LRU_PERCPU_HASH) else count
    entries = max(entries, 4096) if kind in (LRU_HASH, LRU_PERCPU_HASH) else entries
    descriptor = make_map(kind, entries)
    with closing(Map(descriptor)) as source:
        cpus = count_possible_cpus() if source.facts.is_per_cpu else 1
        assert source.cpus == cpus
        fill(descriptor, count, cpus=cpus, value=two_words)
        expected = [
            (n, tuple(word for cpu in range(cpus) for word in (n, 1000 * n + cpu))) for n in range(count)
        ]
        assert read_all(source) == expected
        assert not source.cut


@pytest.mark.parametrize("kind", [HASH, PERCPU_HASH], ids=["hash", "percpu_hash"])
def test_buckets_fuller_than_the_buffer(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel copies whole buckets: a smaller buffer gets ENOSPC and grows, and no entry is lost."""
    monkeypatch.setattr(maps, "BATCH_ENTRIES", 1)
    descriptor = make_map(kind, 3000)
    with closing(Map(descriptor)) as source:
        fill(descriptor, 3000, cpus=source.cpus, value=two_words)
        sizes = [block.count for block in source.blocks(1_000_000)]
        assert max(sizes) > 1
        assert [key for key, _ in read_all(source)] == list(range(3000))


@pytest.mark.parametrize("value_size", [1, 4, 8, 12])
@pytest.mark.parametrize("flags", [0, F_MMAPABLE], ids=["batches", "memory"])
def test_arrays_of_odd_sizes(value_size: int, flags: int) -> None:
    """The kernel rounds elements up to 8 bytes in memory, and not in batches."""
    descriptor = make_map(ARRAY, 5, value_size=value_size, flags=flags)
    with closing(Map(descriptor)) as source:
        fill(descriptor, 5, value=lambda number, _: bytes([number + 1] * value_size))
        (block,) = source.blocks(10)
        got = [bytes(block.values[at * block.stride :][:value_size]) for at in range(block.count)]
        assert got == [bytes([number + 1] * value_size) for number in range(5)]
        assert block.stride == ((value_size + 7) & ~7 if flags else value_size)


def test_a_pinned_array_is_read_from_its_memory(tmp_path: Path, no_batches: None) -> None:
    """The pin of an array that can be mapped is opened so that it is."""
    descriptor = make_map(ARRAY, 3, flags=F_MMAPABLE)
    with bpf_file_system(tmp_path) as mount:
        pin_descriptor(descriptor, mount / "array")
        os.close(descriptor)
        with maps.open_map(mount / "array") as source:
            assert [block.count for block in source.blocks(10)] == [3]


def test_an_array_opened_for_reading_only_is_read_by_batches(tmp_path: Path) -> None:
    """Linux maps no memory of such a descriptor."""
    descriptor = make_map(ARRAY, 3, flags=F_MMAPABLE)
    with bpf_file_system(tmp_path) as mount:
        pin_descriptor(descriptor, mount / "array")
        fill(descriptor, 3, value=two_words)
        os.close(descriptor)
        with Map(open_pin(mount / "array")) as source:
            assert [key for key, _ in read_all(source)] == [0, 1, 2]


@pytest.mark.parametrize("flags", [0, F_MMAPABLE], ids=["batches", "memory"])
@pytest.mark.parametrize("kind", [HASH, ARRAY], ids=["hash", "array"])
def test_a_limit_cuts_the_map(kind: int, flags: int) -> None:
    """Exactly the limit is read, and the map says that it was cut; a map of that size is not cut."""
    if kind == HASH and flags:
        return
    descriptor = make_map(kind, 40_000, flags=flags)
    with closing(Map(descriptor)) as source:
        fill(descriptor, 40_000, value=two_words)
        for limit, is_cut in ((40_000, False), (39_999, True), (20_000, True), (1, True), (40_001, False)):
            assert len(read_all(source, limit)) == min(limit, 40_000)
            assert source.cut == is_cut, limit


SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <buildtool/metrics.bpf.h>
enum side { SIDE_LEFT, SIDE_RIGHT, SIDE_COUNT };
struct key { __u32 a; __u32 b; };
struct value {
	__u64 seen METRIC_COUNTER(seen_total, "label=a label=b:hex", "Keys");
	__u32 low METRIC_GAUGE(low_ratio, "unit=percent label=a label=b:hex", "Percent");
};
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, MANY); __type(key, struct key);
	__type(value, struct value); __uint(map_flags, BPF_F_NO_PREALLOC); } @_keys SEC(".maps")
	METRIC_COUNTER(sum_total, "value=seen label=a", "Of one a");
__u64 @frames METRIC_COUNTER(frames_total, "", "Frames");
__u64 @sides[2] METRIC_COUNTER(sides_total, "label=side=key:enum(side)", "Frames by side");
__u64 @sizes[4] METRIC_LINEAR(size_bytes, "step=100 start=10 unit=bytes", "Sizes of frames");
struct { __u64 slots[8]; __u64 sum; } @waits
	METRIC_LOG2(wait_seconds, "value=slots sum=sum unit=us", "Waits");
char @build[16] METRIC_INFO(build_info, "label=version=value:text", "The build") = "1.2-RELEASE";
volatile const __u32 @limit METRIC_GAUGE(limit_frames, "", "A constant") = 5;
enum side @last METRIC_GAUGE(last_side, "", "The last") = SIDE_RIGHT;
SEC("xdp") int @_xdp(struct xdp_md *c)
{
	__u32 size = c->data_end - c->data;
	struct key key = {size, RELEASE};
	struct value one = {1, 50}, *known = bpf_map_lookup_elem(&@_keys, &key);
	if (known)
		__sync_fetch_and_add(&known->seen, 1);
	else
		bpf_map_update_elem(&@_keys, &key, &one, BPF_NOEXIST);
	__sync_fetch_and_add(&@frames, 1);
	__sync_fetch_and_add(&@sides[@last & 1], 1);
	__sync_fetch_and_add(&@sizes[size < 110 ? 0 : size < 210 ? 1 : 3], 1);
	__sync_fetch_and_add(&@waits.slots[3], 1);
	__sync_fetch_and_add(&@waits.sum, 10);
	return @limit ? XDP_PASS : XDP_DROP + @build[0];
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def build(tmp_path: Path, clang: Path, sysroot: Path) -> Callable[..., bytes]:
    """Return a function that compiles the program."""

    def compiled(release: int = 1, entries: int = 1000) -> bytes:
        text = SOURCE.replace("@", PREFIX).replace("MANY", str(entries)).replace(", RELEASE", f", {release}")
        return build_object(tmp_path, clang, sysroot, text, f"x{release}")

    return compiled


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield a directory for pins, and the ends of a veth pair."""
    with pin_places(tmp_path) as found:
        yield found


def test_all_kinds_of_metrics(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """Maps and variables give counters, gauges, both histograms and info, in base units."""
    root, left, right = places
    put_signed(lab, tmp_path, "x.bpf.o", build())
    start_pinned(lab, tmp_path, root, left)
    net.send(right, 12)
    assert wait_until(lambda: read_samples("--pin-root", root)["frames_total", ()] == 12)
    samples = read_samples("--pin-root", root)
    size = str(len(net.FRAME))
    both = (("a", size), ("b", "0x1"))
    expected = {
        ("seen_total", both): 12,
        ("low_ratio", both): 0.5,
        ("sum_total", (("a", size),)): 12,
        ("sides_total", (("side", "LEFT"),)): 0,
        ("sides_total", (("side", "RIGHT"),)): 12,
        ("size_bytes_bucket", (("le", "109.0"),)): 12,
        ("size_bytes_bucket", (("le", "309.0"),)): 12,
        ("size_bytes_bucket", (("le", "+Inf"),)): 12,
        ("size_bytes_count", ()): 12,
        ("wait_seconds_bucket", (("le", "7e-06"),)): 0,
        ("wait_seconds_bucket", (("le", "1.5e-05"),)): 12,
        ("wait_seconds_count", ()): 12,
        ("wait_seconds_sum", ()): pytest.approx(120e-6),
        ("build_info", (("version", "1.2-RELEASE"),)): 1,
        ("limit_frames", ()): 5,
        ("last_side", ()): 1,
    }
    assert {key: samples.get(key) for key in expected} == expected
    others = {name for name, _ in samples} - {name for name, _ in expected}
    assert others == {"frames_total", "buildtool_metrics_objects", "buildtool_metrics_read_seconds"}


def test_an_update_has_no_gap_and_counts_nothing_twice(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """Fifty updates under traffic: each reading has the metrics once, and no counter falls."""
    root, left, right = places
    built = [build(1), build(2)]
    put_signed(lab, tmp_path, "x.bpf.o", built[0], version=1)
    start_pinned(lab, tmp_path, root, left)
    readings: list[dict[str, float]] = []
    stop = threading.Event()
    with serving("--pin-root", root) as served, net.flood(right) as sent:

        def watch() -> None:
            while not stop.is_set():
                samples = parse_text(served.get())
                found = {"frames": samples.get(("frames_total", ()), -1)}
                found |= {"sides": sum(by_label(samples, "sides_total", "side").values() or [-1])}
                found |= {"objects": samples["buildtool_metrics_objects", ()]}
                readings.append(found)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for version in range(2, 52):
                put_signed(lab, tmp_path, "x.bpf.o", built[version % 2], version=version)
                start_pinned(lab, tmp_path, root, left)
        finally:
            stop.set()
            watcher.join()
    assert len(readings) > 10
    assert {reading["objects"] for reading in readings} == {1}
    for name in ("frames", "sides"):
        values = [reading[name] for reading in readings]
        assert values == sorted(values), name
        assert min(values) >= 0
    assert wait_until(lambda: read_samples("--pin-root", root)["frames_total", ()] == sent[0])
    # Both releases have counted in the same map.
    samples = read_samples("--pin-root", root)
    assert sum(by_label(samples, "seen_total", "b").values()) == sent[0]
    assert by_label(samples, "seen_total", "b").keys() == {"0x1", "0x2"}


@dataclass
class Generations:
    """Two generations of an object's pins by hand: the maps of each have the same names and other ids."""

    home: Path
    ids: dict[str, list[int]] = field(default_factory=dict)

    def make(self, name: str) -> None:
        """Pin two arrays as generation *name*."""
        for part in ("maps", "programs"):
            (self.home / name / part).mkdir(parents=True)
        for each in ("a", "b"):
            descriptor = make_map(ARRAY, 1)
            pin_descriptor(descriptor, self.home / name / "maps" / each)
            self.ids.setdefault(name, []).append(read_map_facts(descriptor).id)
            os.close(descriptor)

    def update(self, *, removes: bool) -> None:
        """Exchange the generations as the loader does; remove the old one if *removes*."""
        current, following = self.home / "current", self.home / "next"
        current.rename(self.home / "previous")
        following.rename(current)
        if removes:
            shutil.rmtree(self.home / "previous")


@pytest.mark.parametrize("removes", [False, True], ids=["kept", "removed"])
def test_maps_of_two_generations_are_never_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, removes: bool
) -> None:
    """An update between the opening of two maps: both are of the old generation, or both of the new one."""
    with bpf_file_system(tmp_path) as mount:
        generations = Generations(mount / "pins/x,bpf,o")
        for name in ("current", "next"):
            generations.make(name)
        opened: list[str] = []

        def open_and_update(path: Path) -> Map:
            found = maps.open_map(path)
            opened.append(path.name)
            if len(opened) == 1:
                generations.update(removes=removes)
            return found

        monkeypatch.setattr(pinned, "open_map", open_and_update)
        found = pinned.open_object(Place(directory=mount / "pins"), "x,bpf,o")
        assert found is not None
        ids = [each.facts.id for each in found.maps.values()]
        found.close()
        assert ids == generations.ids["next" if removes else "current"]
        assert opened == (["a", "a", "b"] if removes else ["a", "b"])


def test_declarations_are_read_once_and_given_back(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """Types are parsed for the first reading only, and the kernel frees those of an object that is gone."""
    root, left, _ = places
    put_signed(lab, tmp_path, "x.bpf.o", build())
    start_pinned(lab, tmp_path, root, left)
    reader = Reader(places=[Place(directory=root)], warn=print)
    reader.render()
    (first,) = reader._declared.values()
    reader.render()
    assert list(reader._declared.values()) == [first]
    assert str(Path(f"/proc/self/fd/{first.descriptor}").readlink()) == "anon_inode:btf"
    argv = [lab.pins, "detach", f"--pin-root={root}"]
    subprocess.run(argv, check=True, capture_output=True)
    assert b"buildtool_metrics_objects 0.0" in reader.render()[0]
    assert reader._declared == {}
    assert not os.path.lexists(f"/proc/self/fd/{first.descriptor}")


def fill_keys(root: Path, count: int) -> None:
    """Write *count* keys (n, 9) into the pinned map of the program."""
    descriptor = open_pin(root / "x,bpf,o/current/maps" / f"{PREFIX}_keys", flags=0)
    try:
        for first in range(0, count, 100_000):
            numbers = range(first, min(first + 100_000, count))
            keys = ctypes.create_string_buffer(b"".join(struct.pack("=II", n, 9) for n in numbers))
            values = ctypes.create_string_buffer(struct.pack("=QII", 1, 100, 0) * len(numbers))
            places = (ctypes.addressof(keys), ctypes.addressof(values))
            batch = struct.pack("=QQQQIIQQ", 0, 0, *places, len(numbers), descriptor, 0, 0)
            call(UPDATE_BATCH, attributes_of(batch))
    finally:
        os.close(descriptor)


def test_a_map_with_too_many_keys_is_cut_and_says_so(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """Of 40,100 keys 40,000 are read: a line and a metric say so, and no partial sum is shown."""
    root, left, _ = places
    put_signed(lab, tmp_path, "x.bpf.o", build(entries=50_000))
    start_pinned(lab, tmp_path, root, left)
    fill_keys(root, 40_100)
    warned: list[str] = []
    reader = Reader(places=[Place(directory=root)], warn=warned.append, max_entries=40_000)
    samples = parse_text(reader.render()[0].decode())
    cut = f"x.bpf.o: map {PREFIX}_keys: more than 40000 entries: only these were read,"
    assert [line for line in warned if "series" not in line] == [
        f"{cut} and metrics that add up several keys are left out"
    ]
    assert samples["buildtool_metrics_map_cut", (("map", f"{PREFIX}_keys"),)] == 1
    assert sum(name == "seen_total" for name, _ in samples) == 10_000
    assert not any(name == "sum_total" for name, _ in samples)  # it adds up several keys
    assert samples["frames_total", ()] == 0
    reader.max_entries = 40_100
    whole = parse_text(reader.render()[0].decode())
    assert sum(name == "sum_total" for name, _ in whole) == 10_000
    assert not any(name == "buildtool_metrics_map_cut" for name, _ in whole)


def test_the_limits_are_those_of_the_specification() -> None:
    """Readers agree about what they leave out."""
    text = (TOP / "spec/metrics.md").read_text("utf-8")
    assert f"| entries that a reader takes of one map in one reading | {MAX_ENTRIES:,} |" in text
    assert f"| series of one metric of one object in one reading | {MAX_SERIES:,}, " in text


def test_too_many_series_are_cut_to_the_same_ones(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """The series with the lowest labels are shown in each reading, with whole numbers."""
    root, left, _ = places
    put_signed(lab, tmp_path, "x.bpf.o", build(entries=20_000))
    start_pinned(lab, tmp_path, root, left)
    fill_keys(root, 5000)
    warned: list[str] = []
    reader = Reader(places=[Place(directory=root)], warn=warned.append, max_series=7)
    texts = [reader.render()[0].decode() for _ in range(2)]
    lowest = sorted(map(str, range(5000)))[:7]
    for text in texts:
        samples = parse_text(text)
        assert by_label(samples, "sum_total", "a") == dict.fromkeys(lowest, 1)
        assert samples["buildtool_metrics_series_cut", (("metric", "sum_total"),)] == 1
    assert len(warned) == len(set(warned)) == 3  # once, although it is so in each reading
    assert Reader(places=[Place(directory=root)], warn=warned.append, max_series=5000).render()
    assert len(warned) == 3


def print_to_terminal(*arguments: str | Path) -> str:
    """Return what `buildtool metrics print` shows on a terminal."""
    mine, its = os.openpty()
    argv = [sys.executable, "-m", "buildtool", "metrics", "print", *map(str, arguments)]
    with subprocess.Popen(argv, stdout=its) as process:
        os.close(its)
        shown = b""
        try:
            while piece := os.read(mine, 65536):
                shown += piece
        except OSError:
            pass  # the other end is closed
        os.close(mine)
    assert process.returncode == 0
    return shown.decode()


def test_texts_that_are_no_text(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """A label with an escape is exact in a pipe and escaped on a terminal; names of bytes do no harm."""
    root, left, _ = places
    put_signed(lab, tmp_path, "x.bpf.o", build().replace(b"1.2-RELEASE", b"1.2\x1b]0;xyz\x07"))
    start_pinned(lab, tmp_path, root, left)
    other = Path(os.fsdecode(os.fsencode(tmp_path) + b"/p\xff"))
    other.symlink_to(root)
    places_of = ("--pin-root", root, "--pin-root", other)
    samples = read_samples(*places_of)
    assert by_label(samples, "build_info", "version") == {"1.2\x1b]0;xyz\x07": 1}
    assert by_label(samples, "build_info", "place") == {str(root): 1, f"{tmp_path}/p\ufffd": 1}
    shown = print_to_terminal(*places_of).replace("\r\n", "\n")
    assert shown.replace("\n", "").isprintable()
    assert 'version="1.2\\x1b]0;xyz\\x07"' in shown


def test_another_objects_fault_leaves_others_alone(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """An object whose metrics are wrong is reported, and the others are shown. The exit code is 1."""
    root, left, _ = places
    put_signed(lab, tmp_path, "x.bpf.o", build())
    start_pinned(lab, tmp_path, root, left)
    wrong = build().replace(b"metric: frames_total counter", b"metric: frames_total counted")
    put_signed(lab, tmp_path, "x.bpf.o", wrong, version=2)
    options = [f"--pin-root={root}", f"--attach={PREFIX}_xdp={left}"]
    assert lab.run(tmp_path, *options, "--", "/bin/true").code == 0
    done = run_print("--pin-root", root)
    assert done.returncode == 1
    problem = "counted is not a kind: counter, gauge, log2, linear, info"
    assert done.stderr == f"buildtool: x.bpf.o: no metrics: metric frames_total: {problem}\n"
    assert parse_text(done.stdout)["buildtool_metrics_object_failed", ()] == 1


def test_shared_objects_have_an_entry_each(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """Two versions that run at once are two entries of one object's name."""
    root, left, right = places
    root = root.with_name("share")
    with ExitStack() as stack:
        for version, interface in ((1, left), (2, right)):
            put_signed(lab, tmp_path, "x.bpf.o", build(version), version=version)
            options = [f"--share={root}", f"--attach={PREFIX}_xdp={interface}"]
            stack.enter_context(lab.started(tmp_path, *options))
        done = run_print("--share", root)
        assert done.returncode == 0
        entries = by_label(parse_text(done.stdout), "frames_total", "entry")
        assert entries.keys() == {entry.name for entry in root.iterdir()}
        assert len(entries) == 2
        assert 'object="x.bpf.o"' in done.stdout
        entry = next(root.iterdir())
        other = Path(os.fsdecode(os.fsencode(root) + b"/e\xff"))
        entry.rename(other)
        assert "e\ufffd" in by_label(read_samples("--share", root), "frames_total", "entry")
        other.rename(entry)


def test_a_missing_pin_leaves_other_maps_alone(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """A map whose pin was removed has no metrics, and a line says so; other metrics are shown."""
    root, left, _ = places
    put_signed(lab, tmp_path, "x.bpf.o", build())
    start_pinned(lab, tmp_path, root, left)
    (root / "x,bpf,o/current/maps" / f"{PREFIX}_keys").unlink()
    done = run_print("--pin-root", root)
    assert done.returncode == 1
    assert done.stderr == f"buildtool: x.bpf.o: no metrics: {PREFIX}_keys: not among the pinned maps\n"
    assert parse_text(done.stdout)["frames_total", ()] == 0


def test_leftovers_of_a_killed_start_are_no_objects(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """A directory without a current generation is passed over."""
    root, left, _ = places
    put_signed(lab, tmp_path, "x.bpf.o", build())
    start_pinned(lab, tmp_path, root, left)
    (root / "y,bpf,o/next/maps").mkdir(parents=True)
    (root / "z,bpf,o").mkdir()
    assert read_samples("--pin-root", root)["buildtool_metrics_objects", ()] == 1


def test_another_user_is_told_what_is_missing(
    lab: Lab, tmp_path: Path, build: Callable[..., bytes], places: tuple[Path, str, str]
) -> None:
    """One line with a hint: directories of pins are closed to others, and BTF needs a privilege."""
    root, left, _ = places
    put_signed(lab, tmp_path, "x.bpf.o", build())
    start_pinned(lab, tmp_path, root, left)
    argv = [sys.executable, "-m", "buildtool", "metrics", "print", "--pin-root", str(root)]
    for prefix, message in (
        (["setpriv", "--reuid=65532", "--clear-groups", "--regid=65532"], "cannot read: permission denied"),
        (["setpriv", "--bounding-set=-all", "--inh-caps=-all"], "cannot read: operation not permitted"),
    ):
        done = subprocess.run([*prefix, *argv], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
