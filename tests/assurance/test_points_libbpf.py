# SPDX-License-Identifier: Apache-2.0
"""Maps that act beyond an object: our reader finds all those that the carried libbpf finds."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from labs.compile import compile_object
from labs.sig import NOW, RELEASE
from labs.sig import test_key as alice
from labs.verifiers import Verifier, python_verdict

from buildtool.core.errors import ObjectFormatError
from buildtool.core.platforms import PLATFORMS, host_platform
from buildtool.objects.describe import describe_object
from buildtool.objects.elf import ElfObject, parse_object
from buildtool.objects.points import read_points, without_flavour
from buildtool.signing.sign import Origin, sign_object
from buildtool.trust.edit import policy_entry
from buildtool.trust.store import load_trust

# All sections in which libbpf makes struct_ops maps, some with several maps, and pinned maps.
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct sched_ext_ops { int (*select_cpu)(void *p); char name[16]; };
struct tcp_congestion_ops___v1 { char name[16]; };
typedef struct tcp_congestion_ops___v1 congestion;
SEC("xdp") int pass(struct xdp_md *c) { return XDP_PASS; }
SEC("struct_ops/select_cpu") int select_cpu(void *c) { return 0; }
SEC(".struct_ops.link") struct sched_ext_ops linked = { .select_cpu = (void *)select_cpu };
SEC(".struct_ops") congestion plain = {};
SEC(".struct_ops") struct sched_ext_ops second = {};
SEC("?.struct_ops") congestion optional = {};
SEC("?.struct_ops") struct sched_ext_ops not_optional = {}; /* libbpf marks the first of a section alone */
SEC("?.struct_ops.link") volatile struct sched_ext_ops optional_link = {};
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64);
         __uint(pinning, LIBBPF_PIN_BY_NAME); } shared SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64);
         __uint(pinning, LIBBPF_PIN_NONE); } own SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64);
       } counts SEC(".maps");
char LICENSE[] SEC("license") = "GPL";
"""
POINTS = {
    b"linked": b"struct_ops/sched_ext_ops",
    b"plain": b"struct_ops/tcp_congestion_ops",
    b"second": b"struct_ops/sched_ext_ops",
    b"optional": b"struct_ops/tcp_congestion_ops",
    b"not_optional": b"struct_ops/sched_ext_ops",
    b"optional_link": b"struct_ops/sched_ext_ops",
    b"shared": b"pin/shared",
}
MUTANTS = 3000
BATCH = 100


@pytest.fixture(scope="module")
def probe(probes: Path) -> Path:
    """Return the program that opens objects with the carried libbpf."""
    own = host_platform(os.uname().machine)
    assert own is not None
    return probes / own.arch / "bpf-probe"


@pytest.fixture(scope="module")
def compiled(clang: Path, sysroot: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the object of SOURCE."""
    return compile_object(tmp_path_factory.mktemp("points"), clang, sysroot, SOURCE).read_bytes()


def our_points(data: bytes) -> dict[bytes, bytes] | None:
    """Return the point of each map by name, or None for an unreadable object."""
    try:
        return {point.name: point.point for point in read_points(parse_object(data))}
    except ObjectFormatError:
        return None


def libbpf_points(probe: Path, objects: Sequence[bytes], work: Path) -> Iterator[dict[bytes, bytes] | None]:
    """Yield libbpf's points of each object, or None for an object that libbpf does not open."""
    paths = [work / f"{number}.bpf.o" for number in range(len(objects))]
    for path, data in zip(paths, objects, strict=True):
        path.write_bytes(data)
    found: dict[str, dict[bytes, bytes] | None] = {str(path): {} for path in paths}
    waiting = list(map(str, paths))
    while waiting:
        done = subprocess.run([probe, "--open", *waiting], capture_output=True, check=False)
        events = [json.loads(line) for line in done.stdout.splitlines() if line.endswith(b"}")]
        for event in events:
            if event["event"] == "object":
                found[event["object"]] = None
            elif event["event"] == "map":
                found[event["object"]] = (found[event["object"]] or {}) | _point(event)
        if events and events[-1]["event"] == "end":
            break
        # libbpf 1.5 crashes on some objects; these count as not opened.
        last = next((event["object"] for event in reversed(events) if "object" in event), "")
        at = waiting.index(last) + 1 if last else 0
        if at < len(waiting):
            found[waiting[at]] = None
        waiting = waiting[at + 1 :]
    yield from (found[str(path)] for path in paths)


def _point(event: dict[str, str]) -> dict[bytes, bytes]:
    name, kind = (event[key].encode("latin-1") for key in ("map", "struct"))
    if event["type"] == "struct_ops":
        return {name: b"struct_ops/" + without_flavour(kind)}
    return {name: b"pin/" + name} if event["pin"] else {}


def test_every_form_is_seen(probe: Path, compiled: bytes, tmp_path: Path) -> None:
    """Both readers find the same maps in the source, and the statement lists them."""
    assert our_points(compiled) == POINTS
    assert list(libbpf_points(probe, [compiled], tmp_path)) == [POINTS]
    maps = {item.name: item for item in describe_object(parse_object(compiled)).maps}
    assert {name.encode(): item.point.encode() for name, item in maps.items() if item.point} == POINTS
    assert maps["not_optional"].section == "?.struct_ops"
    assert (maps["linked"].type, maps["linked"].key_size, maps["linked"].max_entries) == ("struct_ops", 4, 1)
    assert maps["linked"].value_size == 24
    assert (maps["shared"].pinned, maps["own"].pinned, maps["counts"].pinned) == (True, False, False)


def test_all_verifiers_read_what_the_signer_says(compiled: bytes, verifier: Verifier, tmp_path: Path) -> None:
    """A signed statement names section, kernel type and pin of such maps, and both verifiers accept it."""
    origin = Origin(platform=PLATFORMS["amd64"])
    data, statement = sign_object(parse_object(compiled), "x.bpf.o", alice(), RELEASE, origin)
    assert {item.name: (item.section, item.struct, item.pinned) for item in statement.maps if item.point} == {
        "linked": (".struct_ops.link", "sched_ext_ops", False),
        "plain": (".struct_ops", "tcp_congestion_ops", False),
        "second": (".struct_ops", "sched_ext_ops", False),
        "optional": ("?.struct_ops", "tcp_congestion_ops", False),
        "not_optional": ("?.struct_ops", "sched_ext_ops", False),
        "optional_link": ("?.struct_ops.link", "sched_ext_ops", False),
        "shared": ("", "", True),
    }
    points = ["pin/shared", "struct_ops/*", "xdp"]
    for rules, expect in (
        ({}, "accepted"),
        ({"attachPoints": points, "programTypes": ["struct_ops", "xdp"]}, "accepted"),
        ({"attachPoints": points[1:]}, "denied-by-policy"),
        ({"programTypes": ["xdp"]}, "denied-by-policy"),
    ):
        keys = [policy_entry(alice().public, name="alice")]
        path = tmp_path / "policy.json"
        path.write_text(json.dumps({"policyVersion": 1, "threshold": 1, "keys": keys, **rules}))
        assert verifier.ask("T", bytes(path)) == "trust"
        verifier.setting("P", b"")
        verifier.setting("N", str(NOW).encode())
        ours = python_verdict(data, load_trust([path]), None, NOW)
        assert ours.partition(" ")[0] == expect
        assert verifier.ask("O", data) == ours


def mutate(data: bytes, obj: ElfObject, rng: random.Random) -> bytes:
    """Change a few words of the types, their names or the section table."""
    changed = bytearray(data)
    types = next(section for section in obj.sections if section.name == b".BTF")
    table = obj.table_offset
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.8:
            at = types.offset + 4 * rng.randrange(types.size // 4)
        else:
            at = table + 4 * rng.randrange((len(data) - table) // 4)
        value = struct.unpack_from("<I", changed, at)[0]
        other = rng.choice(
            (0, 1, 26, value ^ 1 << rng.randrange(32), value + 1, rng.randrange(64), value - 12)
        )
        struct.pack_into("<I", changed, at, other % 2**32)
    return bytes(changed)


def test_reader_finds_all_that_libbpf_finds(probe: Path, compiled: bytes, tmp_path: Path) -> None:
    """In thousands of damaged objects our reader finds each map that libbpf finds, or refuses the object."""
    rng, obj = random.Random(20261130), parse_object(compiled)  # noqa: S311 - the same bytes in every run
    outcomes: Counter[str] = Counter()
    for number in range(MUTANTS // BATCH):
        objects = [mutate(compiled, obj, rng) for _ in range(BATCH)]
        work = tmp_path / str(number)
        work.mkdir()
        for data, theirs in zip(objects, libbpf_points(probe, objects, work), strict=True):
            ours = our_points(data)
            if theirs is None:
                outcomes["not opened"] += 1
            elif ours is None:
                outcomes["opened, unreadable"] += 1
            else:
                assert theirs.items() <= ours.items(), data.hex()
                outcomes["the same" if theirs == ours else "we see more"] += 1
    assert outcomes["the same"] > MUTANTS // 4, outcomes
    assert outcomes["not opened"] > 100, outcomes
    assert outcomes["opened, unreadable"] < MUTANTS // 4, outcomes
