# SPDX-License-Identifier: Apache-2.0
"""Measure verification, against loads without checks, and against the hash and the signature alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bounds import call_bounded
from common import BUILDTOOL, TOP, link_loaders, make_key, run, this_platform, write_source
from measure import Command, Row, compare, time_pair

SHIPPED = {
    "tx_latency": ["tx_queue", "tx_start", "tx_drop"],
    "cgroup_traffic": ["cgroup_ingress", "cgroup_egress"],
    "opcua_monitor": ["opcua_monitor"],
}


# A ratio of two very small times is useless, so an object that is cheap for the kernel has a limit in time.
CHEAP_LIMIT_MS = 0.6
HAND_OVER_LIMIT_MS = 1.0


def bench_loading(work: Path, source: str, programs: Sequence[str], what: str) -> Row:
    """
    Return the time of a container's entrypoint with the object of *source*, against a load without checks.

    Both have the capabilities of a container with the options that `inspect --capabilities` prints.
    """
    bare, built = _make_object(work, source)
    ours = Command(argv=[*_loader_argv(work, built, programs), "--", "/bin/true"], cleanup=_settle)
    theirs = Command(argv=[link_loaders(work) / "plain_load", bare, "none", "/bin/true"], cleanup=_settle)
    needs = json.loads(run(BUILDTOOL, "inspect", "--capabilities", "--json", built))["capabilities"]
    name = f"verify-and-load, {built.stat().st_size / 1000:.0f} KB, {what}"
    note = f"until the workload runs; both load {len(programs)} programs, with {' and '.join(needs)} only"
    return call_bounded(needs, lambda: compare(name, ours, theirs, rounds=201, limit=1.10, note=note))


def _settle() -> None:
    """Wait until the kernel has freed the programs of the last run, whose locks would delay the next."""
    time.sleep(0.005)


def _make_object(work: Path, source: str) -> tuple[Path, Path]:
    """Compile *source*. Return the unsigned and the signed object."""
    wanted = ("--arch", this_platform().arch)
    built = work / f"objects-{Path(source).stem}" / Path(source).with_suffix(".o").name
    run(BUILDTOOL, "compile", source, *wanted, "--output", built.parent, cwd=work)
    bare = Path(shutil.copy(built, work / f"bare-{built.name}"))
    run(BUILDTOOL, "sign", built, "--key", make_key(work), *wanted, "--project", "bench", cwd=work)
    return bare, built


def _loader_argv(work: Path, built: Path, programs: Sequence[str]) -> list[str | Path]:
    """Return the command that loads all programs of the object and attaches none."""
    loader, store = link_loaders(work) / "verify-and-load", make_key(work).with_suffix(".pub")
    attach = [word for name in programs for word in ("--attach", f"{name}=none")]
    return [loader, "--objects", built, "--trust", store, *attach]


def bench_bpftool(work: Path) -> list[Row]:
    """Measure loading objects of 10 KB and 200 KB until the loader is ready, against `bpftool prog load`."""
    shutil.copytree(TOP / "bpf", work / "bpf", dirs_exist_ok=True)
    write_source(work / "tool10.bpf.c", programs=1, blocks=14)
    write_source(work / "tool200.bpf.c", programs=8, blocks=54)
    mount = work / "bpffs-bpftool"
    mount.mkdir()
    run("mount", "-t", "bpf", "bpf", mount)
    try:
        return [
            _against_bpftool(work, mount, "bpf/tx_latency.bpf.c", SHIPPED["tx_latency"]),
            _against_bpftool(work, mount, "tool10.bpf.c", ("program_0",)),
            _against_bpftool(work, mount, "tool200.bpf.c", [f"program_{n}" for n in range(8)]),
        ]
    finally:
        run("umount", mount)


def _against_bpftool(work: Path, mount: Path, source: str, programs: Sequence[str]) -> Row:
    """Measure both with the same signed file. The pins of bpftool are removed after each run."""
    _, built = _make_object(work, source)
    pin = mount / "pin"
    # load handles the first program only, loadall handles all.
    word = "load" if len(programs) == 1 else "loadall"
    ours = Command(argv=_loader_argv(work, built, programs), until=b'"event":"ready"')
    theirs = Command(
        argv=["bpftool", "prog", word, built, pin],
        cleanup=lambda: pin.unlink() if pin.is_file() else shutil.rmtree(pin),
    )
    name = f"verify-and-load until ready, {built.stat().st_size / 1000:.0f} KB, against bpftool prog {word}"
    note = f"the same {len(programs)} program(s), loaded and not attached; {_bpftool_version()}"
    return compare(name, ours, theirs, rounds=51, limit=1.10, note=note)


def _bpftool_version() -> str:
    done = subprocess.run(["bpftool", "version"], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split()[:2])


def bench_made_object(work: Path, kilobytes: int, programs: int, blocks: int) -> Row:
    """Measure the start with an object of about *kilobytes* that is cheap for the kernel."""
    name = f"load{kilobytes}.bpf.c"
    write_source(work / name, programs=programs, blocks=blocks)
    return bench_loading(work, name, [f"program_{n}" for n in range(programs)], "made to be cheap")


def bench_small_object(work: Path) -> list[Row]:
    """Measure the start with the shipped objects, and with a cheap object of 10 KB."""
    shutil.copytree(TOP / "bpf", work / "bpf", dirs_exist_ok=True)
    shipped = [bench_loading(work, f"bpf/{name}.bpf.c", programs, name) for name, programs in SHIPPED.items()]
    cheap = bench_made_object(work, 10, programs=1, blocks=14)
    name = f"{cheap.name}, more than the same load without verification"
    more = cheap.ours - (cheap.theirs or 0.0)
    return [*shipped, replace(cheap, name=name, ours=more, theirs=None, limit=CHEAP_LIMIT_MS)]


def bench_large_object(work: Path) -> list[Row]:
    """Measure the start with a 200 KB object."""
    return [bench_made_object(work, 200, programs=8, blocks=54)]


def bench_hand_over(work: Path) -> list[Row]:
    """Measure a start with --hand-over, against verifying the same objects and starting nothing."""
    shutil.copytree(TOP / "bpf", work / "bpf", dirs_exist_ok=True)
    rows = []
    for name in SHIPPED:
        _, built = _make_object(work, f"bpf/{name}.bpf.c")
        argv: list[str | Path] = [link_loaders(work) / "verify-and-load", "--objects", built]
        argv += ["--trust", make_key(work).with_suffix(".pub")]
        ours, theirs = time_pair(
            Command(argv=[*argv, "--hand-over", "--", "/bin/true"]),
            Command(argv=[*argv, "--verify-only"]),
            rounds=201,
        )
        # The workload's own start is no part of it.
        shell = ["/bin/sh", "-c"]
        with_exec, empty = time_pair(
            Command(argv=[*shell, "exec /bin/true"]), Command(argv=[*shell, ":"]), rounds=201
        )
        more = ours.wall - theirs.wall - (with_exec.wall - empty.wall)
        note = f"{built.stat().st_size / 1000:.0f} KB; {ours.wall:.2f} against {theirs.wall:.2f} ms"
        title = f"--hand-over, {name}, more than verification and the execve of /bin/true"
        rows.append(Row(name=title, unit="ms", ours=more, limit=HAND_OVER_LIMIT_MS, note=note))
    return rows


def bench_verify_cost(work: Path) -> list[Row]:
    """Measure verification alone, against a SHA-256 of the file and one verification of a signature."""
    here, linked, rows = this_platform(), link_loaders(work), []
    key = make_key(work)
    shutil.copy(TOP / "bench/padded.bpf.c", work)
    for kilobytes in (10, 100, 1000, 10_000):
        built = work / str(kilobytes) / "padded.bpf.o"
        # Without its padding, a signed object has about 4 KB.
        padding = f"--flag=-DPADDING={kilobytes * 1000 - 4000}"
        wanted = ("--arch", here.arch, "--output", built.parent)
        run(BUILDTOOL, "compile", "padded.bpf.c", padding, *wanted, cwd=work)
        run(BUILDTOOL, "sign", built, "--key", key, "--arch", here.arch, "--project", "bench", cwd=work)
        measure: list[str | Path] = [linked / "verify_cost", built, key.with_suffix(".pub"), "301"]
        done = subprocess.run(measure, capture_output=True, text=True, check=True)
        ours, theirs = (int(word) / 1000 for word in done.stdout.split())
        size = built.stat().st_size / 1000
        what = f"verify alone, {size:.0f} KB, against sha256 + one libsodium verification"
        rows.append(Row(name=what, unit="us", ours=ours, theirs=theirs, limit=1.5))
    return rows
