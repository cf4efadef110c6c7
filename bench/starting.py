# SPDX-License-Identifier: Apache-2.0
"""Measure the entrypoint: time until attached, memory, a hundred starts at once, and time to stop."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import BUILDTOOL, TOP, link_loaders, make_key, run, this_platform, write_source
from measure import BenchError, Row

from buildtool.image.docker.prepare import BUILDER_IMAGE

ROUNDS = 30
STARTS = 100
MEMORY_OBJECTS = 10
WAIT_SECONDS = 120.0
TAG = "buildtool-bench:start"
# Prints the time of its start, on the clock of the measuring process, then executes its arguments.
WORKLOAD = """\
#include <stdio.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%lld\\n", now.tv_sec * 1000000000LL + now.tv_nsec);
	fflush(stdout);
	if (argc > 1)
		execv(argv[1], argv + 1);
	return argc > 1;
}
"""
PROJECT = """\
[project]
name = "bench"
[sign]
key = "{key}"
[compile]
sources = ["bpf/{program}.bpf.c"]
"""


def bench_container_start(work: Path) -> list[Row]:
    """
    Measure containers until the workload runs, against the workload as the entrypoint.

    Both begin and end with a mark, because the engine's time before varies by tens of milliseconds, which is
    more than the measured time. The notes have the time since `docker run`.
    """
    mark, shipped = _link_workload(work), work / "start-shipped/bpf"
    shutil.copytree(TOP / "bpf", shipped)
    quick = work / "start-quick/bpf"
    _write_tracing_source(quick / "storm.bpf.c", blocks=14)
    traffic = {"cgroup_ingress": "/cgroup", "cgroup_egress": "/cgroup"}
    monitor = {"opcua_monitor": "lo"}
    cgroup, bpf = work / "cgroup2", work / "bpffs-start"
    for directory, kind in ((cgroup, "cgroup2"), (bpf, "bpf")):
        directory.mkdir()
        run("mount", "-t", kind, kind, directory)
    files = [f"--volume={mark}:/mark:ro", f"--volume={cgroup}:/cgroup:ro", f"--volume={bpf}:/bpf"]
    tracing, network = ([*files, *_add("BPF", name)] for name in ("PERFMON", "NET_ADMIN"))
    try:
        with _image(work, quick.parent, "storm", {}) as image:
            rows = [_against_bare("storm", image, tracing)]
        with _image(work, shipped.parent, "cgroup_traffic", traffic) as image:
            rows.append(_against_bare("cgroup_traffic", image, network))
        with _image(work, shipped.parent, "opcua_monitor", monitor) as image:
            rows.append(_against_bare("opcua_monitor", image, network, share="/bpf/share"))
            rows += _against_plain_load(work, shipped.parent, "opcua_monitor", image, network)
        return rows
    finally:
        for directory in (cgroup, bpf):
            run("umount", directory)


def _add(*capabilities: str) -> list[str]:
    return ["--cap-drop=ALL", *(f"--cap-add={name}" for name in capabilities)]


@contextmanager
def _image(work: Path, project: Path, source: str, targets: Mapping[str, str]) -> Iterator[list[str]]:
    """Build an image of *source*, yield its entrypoint, and remove the image."""
    attach = json.dumps([f"{program}={target}" for program, target in targets.items()])
    text = PROJECT.format(key=make_key(work), program=source) + f"[image]\nattach = {attach}\n"
    (project / "buildtool.toml").write_text(text, encoding="ascii")
    run(BUILDTOOL, "build", "--engine", "docker", "--arch", this_platform().arch, "--tag", TAG, cwd=project)
    try:
        yield json.loads(run("docker", "image", "inspect", "--format={{json .Config.Entrypoint}}", TAG))
    finally:
        run("docker", "image", "rm", TAG)


def _against_bare(source: str, entrypoint: Sequence[str], options: Sequence[str], share: str = "") -> Row:
    """Measure the image against its bare workload. With *share*, another container loaded the programs."""
    shared = ["--share", share] if share else []
    first = ["docker", "run", "--network=none", "--read-only", *options]
    keeper = run(*first, "--detach", TAG, *shared).strip() if share else ""
    try:
        ours, bare = _time_in_turns(options, [[*entrypoint, *shared, "--", "/mark"], ["/mark"]])
    finally:
        if keeper:
            run("docker", "rm", "--force", keeper)
    name = f"container start until {source} is attached, more than the bare workload"
    name += ", when another shares it" if share else ""
    return Row(name=name, unit="ms", ours=ours.inside - bare.inside, limit=10, note=_tell(ours, bare))


def _against_plain_load(
    work: Path, project: Path, source: str, entrypoint: Sequence[str], options: Sequence[str]
) -> list[Row]:
    """
    Measure the image against a program that only loads and attaches. The note has the bare workload.

    On x86-64, the kernel waits for a grace period of RCU when it attaches an XDP program that is not yet
    attached elsewhere (bpf_dispatcher_update() in kernel/bpf/dispatcher.c). The wait is two or three ticks,
    8 to 12 ms at 250 a second, for any loader. The limit bounds the loader's time beyond that.
    """
    arch, source_file = this_platform().arch, f"bpf/{source}.bpf.c"
    run(BUILDTOOL, "compile", source_file, "--arch", arch, "--output", work / "unsigned", cwd=project)
    built = work / f"unsigned/{source}.bpf.o"
    # Only our file gives capabilities to a user who is not root.
    files = {link_loaders(work) / "plain_load": "/plain_load", built: "/object"}
    options = [*options, "--user=0", *(f"--volume={path}:{place}:ro" for path, place in files.items())]
    theirs = ["/plain_load", "/object", "lo", "/mark"]
    ours, loaded, bare = _time_in_turns(options, [[*entrypoint, "--", "/mark"], theirs, ["/mark"]])
    name = f"container start until {source} is attached, more than the same load without verification"
    note = f"{loaded.inside:.1f} ms without verification; bare workload: {_tell(ours, bare)}"
    return [Row(name=name, unit="ms", ours=ours.inside - loaded.inside, limit=5, note=note)]


def _tell(ours: _Start, bare: _Start) -> str:
    return (
        f"medians of {ROUNDS}: {ours.inside:.1f} against {bare.inside:.1f} ms in the container, of them"
        f" {ours.kernel:.1f} ms for loading and attaching;"
        f" from docker run on {ours.whole:.0f} against {bare.whole:.0f} ms"
    )


def _time_in_turns(options: Sequence[str], commands: Sequence[Sequence[str]]) -> list[_Start]:
    """Start containers that run each of *commands* after a mark, alternately, and return the medians."""
    first = ["docker", "run", "--network=none", "--read-only", *options, "--rm", "--entrypoint=/mark", TAG]
    starts: list[list[_Start]] = [[] for _ in commands]
    for number in range(-2, ROUNDS):
        for which in range(len(commands))[:: 1 if number % 2 else -1]:
            start = _time_start([*first, *commands[which]])
            if number >= 0:
                starts[which].append(start)
    return [_median(runs) for runs in starts]


def _median(runs: Sequence[_Start]) -> _Start:
    return _Start(
        inside=statistics.median(run.inside for run in runs),
        whole=statistics.median(run.whole for run in runs),
        kernel=statistics.median(run.kernel for run in runs),
    )


def _link_workload(work: Path) -> Path:
    """Link the workload statically in the builder image, because the base image has no libraries."""
    context = work / "workload"
    context.mkdir()
    (context / "mark.c").write_text(WORKLOAD, encoding="ascii")
    text = f"FROM {BUILDER_IMAGE} AS link\nCOPY mark.c /\nRUN clang -O2 -static /mark.c -o /mark\n"
    (context / "Dockerfile").write_text(text + "FROM scratch\nCOPY --from=link /mark /\n", encoding="ascii")
    run("docker", "buildx", "build", "--output", f"type=local,dest={context / 'out'}", context)
    return context / "out/mark"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """
    Milliseconds until the workload ran: *inside* the container, and since `docker run` (*whole*).

    *kernel* is the part for loading and attaching, nearly all of which is time in the kernel.
    """

    inside: float
    whole: float
    kernel: float


def _time_start(argv: Sequence[str]) -> _Start:
    started = time.monotonic_ns()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"exit code {done.returncode}: {done.stderr[-300:]}")
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    kernel = sum(line["durationUs"] for line in lines if line["event"] in ("load", "attach"))
    first, last = map(int, done.stdout.split())
    return _Start(inside=(last - first) / 1e6, whole=(last - started) / 1e6, kernel=kernel / 1000)


def _write_tracing_source(path: Path, *, blocks: int) -> None:
    """Write a source of one program that attaches by the name of its section."""
    write_source(path, programs=1, blocks=blocks)
    text = path.read_text(encoding="ascii").replace('SEC("xdp")', 'SEC("raw_tp/sys_enter")')
    text = text.replace("int program_0(struct xdp_md *ctx)", "int storm(__u64 *ctx)")
    path.write_text(text.replace("ctx->ingress_ifindex", "ctx[1]"), encoding="ascii")


def _sign_objects(work: Path, directory: Path, *, count: int, blocks: int) -> list[Path]:
    """Make *count* signed objects of one program each, which differ only in their names."""
    key, source = make_key(work), work / "made.bpf.c"
    write_source(source, programs=1, blocks=blocks)
    wanted = ("--arch", this_platform().arch)
    run(BUILDTOOL, "compile", source.name, *wanted, "--output", directory, cwd=work)
    made = directory / "made.bpf.o"
    data = made.read_bytes()
    made.unlink()
    for number in range(count):
        (directory / f"o{number}.bpf.o").write_bytes(data)
    paths = sorted(directory.glob("*.bpf.o"))
    run(BUILDTOOL, "sign", *paths, "--key", key, *wanted, "--project", "bench", cwd=work)
    return paths


def _argv(work: Path, objects: Path, *options: str) -> list[str]:
    loader = link_loaders(work) / "verify-and-load"
    trust = make_key(work).with_suffix(".pub")
    return [str(loader), "--objects", str(objects), "--trust", str(trust), *options]


@contextmanager
def _started(
    argvs: Sequence[Sequence[str]], work: Path, event: str
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start *argvs* at once, wait until each has written the line *event*, and kill all after the block."""
    logs = [work / f"log{number}" for number in range(len(argvs))]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for argv, log in zip(argvs, logs, strict=True):
            with log.open("wb") as stderr:
                running.append(subprocess.Popen(argv, stderr=stderr, stdin=subprocess.DEVNULL))
        waiting, deadline = list(logs), time.monotonic() + WAIT_SECONDS
        while waiting:
            waiting = [log for log in waiting if f'"event":"{event}"'.encode() not in log.read_bytes()]
            if waiting and (time.monotonic() > deadline or any(p.poll() is not None for p in running)):
                raise BenchError(f"never came to {event}: {waiting[0].read_text()[-300:]}")
            time.sleep(0.001)
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def bench_memory(work: Path) -> list[Row]:
    """Measure the loader's peak memory after loading ten objects of 20 KB."""
    directory = work / "objects-memory"
    paths = _sign_objects(work, directory, count=MEMORY_OBJECTS, blocks=45)
    attach = [f"--attach={path.name}:program_0=none" for path in paths]
    with _started([_argv(work, directory, *attach)], work, "ready") as (process,):
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise BenchError("no VmHWM in /proc/PID/status")
    size = paths[0].stat().st_size / 1000
    name = f"peak memory of the loader, {len(paths)} objects of {size:.0f} KB"
    return [Row(name=name, unit="MB", ours=int(found[1]) * 1024 / 1e6, limit=6, note="VmHWM, when ready")]


def _tx_latency(work: Path) -> Path:
    """Compile and sign tx_latency, three tracing programs, once. Return the directory of the object."""
    directory = work / "objects-tx-latency"
    if directory.exists():
        return directory
    if not (work / "bpf").exists():
        shutil.copytree(TOP / "bpf", work / "bpf")
    wanted = ("--arch", this_platform().arch)
    run(BUILDTOOL, "compile", "bpf/tx_latency.bpf.c", *wanted, "--output", directory, cwd=work)
    objects = directory / "tx_latency.bpf.o"
    run(BUILDTOOL, "sign", objects, "--key", make_key(work), *wanted, "--project", "bench", cwd=work)
    return directory


def _in_kernel(kind: str, names: Callable[[str], bool]) -> list[dict[str, int]]:
    done = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True, check=True)
    return [item for item in json.loads(done.stdout) if names(item.get("name", ""))]


def _storm(work: Path, argv: Sequence[str]) -> tuple[float, int, float]:
    """Start a hundred loaders. Return milliseconds until all workloads run, programs, and kernel KB."""
    started = time.monotonic()
    with _started([argv] * STARTS, work, "exec"):
        took = (time.monotonic() - started) * 1000
        programs = _in_kernel("prog", lambda name: name in ("tx_queue", "tx_start", "tx_drop"))
        maps = _in_kernel("map", lambda name: name.startswith("tx_"))
        memory = sum(item.get("bytes_memlock", 0) for item in (*programs, *maps)) / 1000
        loads = _in_kernel("prog", lambda name: name == "tx_queue")
    return took, len(loads), memory


def bench_sharing(work: Path) -> list[Row]:
    """
    Measure a hundred loaders that start at once and share tx_latency, against a hundred without sharing.

    Nothing that the loaders do makes these programs run, so a hundred attachments slow no start.
    """
    directory = _tx_latency(work)
    mount = work / "bpffs"
    mount.mkdir()
    run("mount", "-t", "bpf", "bpf", mount)
    try:
        sleep = ("--", "/bin/sleep", "600")
        alone = _storm(work, _argv(work, directory, *sleep))
        shared = _storm(work, _argv(work, directory, "--share", str(mount / "share"), *sleep))
    finally:
        run("umount", mount)
    what = f"{STARTS} starts at once, with --share"
    return [
        Row(
            name=f"{what}: programs loaded",
            unit="programs",
            ours=shared[1],
            limit=1,
            note=f"{alone[1]} without",
        ),
        Row(name=f"{what}: until all run", unit="ms", ours=shared[0], theirs=alone[0], limit=1.0),
        Row(name=f"{what}: kernel memory", unit="KB", ours=shared[2], theirs=alone[2], limit=0.1),
    ]


def bench_stop(work: Path) -> list[Row]:
    """Measure the time from SIGTERM until a waiting loader has detached and ended."""
    argv = _argv(work, _tx_latency(work))
    workload = [*argv, "--reload", "--", "/bin/sleep", "600"]
    return [
        _time_stop(work, argv, "ready", 0, "SIGTERM to tini -g until detached and gone"),
        _time_stop(work, workload, "exec", 128 + signal.SIGTERM, "the same with --reload and a workload"),
    ]


def _time_stop(work: Path, argv: Sequence[str], event: str, code: int, name: str) -> Row:
    """Measure the stop of *argv* under tini, as in images, several times."""
    # -s lets tini work although it is not process 1.
    under_tini = [str(link_loaders(work) / "tini"), "-s", "-g", "--", *argv]
    times = []
    for _ in range(ROUNDS):
        with _started([under_tini], work, event) as (process,):
            started = time.monotonic()
            os.kill(process.pid, signal.SIGTERM)
            found = process.wait(WAIT_SECONDS)
            times.append((time.monotonic() - started) * 1000)
            if found != code:
                raise BenchError(f"exit code {found} after SIGTERM, not {code}")
    note = f"median of {ROUNDS}, longest {max(times):.1f} ms; tx_latency, three tracing programs"
    return Row(name=name, unit="ms", ours=statistics.median(times), limit=100, note=note)
