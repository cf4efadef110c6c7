# SPDX-License-Identifier: Apache-2.0
"""Measure the embedded engine, against docker buildx and against bare clang."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from building import prepared_option
from common import BUILDTOOL, make_key, make_project, run, this_platform, write_source
from measure import BenchError, Command, Row, compare

from buildtool.compile.toolchain import compile_command, find_toolchain
from buildtool.core.platforms import PLATFORMS
from buildtool.core.process import Runner
from buildtool.runtime.carried import data_directory, list_path, loader_digest
from buildtool.runtime.headers import provide_headers

PROGRAMS = 50
UNCHANGED_LIMIT, SCRATCH_LIMIT, MANY_LIMIT = 0.5, 0.1, 1.2
# Twice the objects may need twice the time and memory, plus the noise of a busy machine.
LINEAR_LIMIT = 2.2
_POLL_SECONDS = 0.02
# Programs as tools for tracing have them: the types of a kernel, about 3 MB, and CO-RE.
TYPED_PROGRAMS, TYPED_ARCHITECTURES, TYPED_LIMIT = 58, ("amd64", "arm64"), 1.1
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")
TYPED_SOURCE = """\
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
struct {{
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
}} starts SEC(".maps");
SEC("tp_btf/sched_switch") int BPF_PROG(switched_{n}, bool preempt, struct task_struct *from,
	struct task_struct *to)
{{
	__u32 pid = BPF_CORE_READ(to, pid) + {n};
	__u64 now = bpf_ktime_get_ns() + BPF_CORE_READ(from, se.sum_exec_runtime);

	bpf_map_update_elem(&starts, &pid, &now, BPF_ANY);
	return 0;
}}
char LICENSE[] SEC("license") = "GPL";
"""


def bench_local_engine(work: Path) -> list[Row]:
    """Measure builds of the same project with both engines, without changes and from scratch."""
    environment = _prepare(work)
    project, key, arch = make_project(work), make_key(work), this_platform().arch
    folder = work / "rendered-local"
    run(BUILDTOOL, "render", "--arch", arch, "-o", folder, *prepared_option(project), cwd=project)
    by_hand: list[str | Path] = ["docker", "buildx", "build", "--platform", f"linux/{arch}"]
    by_hand += ["--provenance=false", "--secret", f"id=signing-key,src={key}"]
    by_hand += ["--build-arg", "SOURCE_DATE_EPOCH=0"]
    by_hand += ["--output", f"type=oci,dest={work / 'theirs.tar'},rewrite-timestamp=true"]
    ours: list[str | Path] = [BUILDTOOL, "build", "--engine", "local", "--arch", arch]
    ours += ["--force", "--output", f"type=oci,dest={work / 'ours.tar'}"]
    rows = []
    for name, more, rounds, limit in (
        ("nothing changed", [], 9, UNCHANGED_LIMIT),
        ("from scratch (--no-cache)", ["--no-cache"], 3, SCRATCH_LIMIT),
    ):
        rows.append(
            compare(
                f"build --engine local, {name}, against docker buildx",
                Command(argv=[*ours, *more], cwd=project, env=environment),
                Command(argv=[*by_hand, *more, folder], cwd=project, env=environment),
                rounds=rounds,
                limit=limit,
            )
        )
    return rows


def bench_local_many(work: Path) -> list[Row]:
    """Measure a build of many programs for all architectures, against make with a clang on each processor."""
    environment = _prepare(work)
    half, whole = (
        _write_project(work / f"local-{count}", count, work) for count in (PROGRAMS // 2, PROGRAMS)
    )
    cores = os.cpu_count() or 1
    clang = Command(argv=["make", "--always-make", "--silent", f"-j{cores}", "all"], cwd=whole)
    ours = Command(argv=_build(work / "many.tar"), cwd=whole, env=environment)
    count = f"{PROGRAMS} programs x {len(PLATFORMS)} architectures"
    rows = [compare(f"{count}, against bare clang on {cores} cores", ours, clang, rounds=3, limit=MANY_LIMIT)]
    once, twice = (_measure(project, work, environment) for project in (half, whole))
    for name, unit, a, b in (("time", "s", once[0], twice[0]), ("peak memory", "MB", once[1], twice[1])):
        title = f"{name} of {count}, against half of the programs"
        rows.append(Row(name=title, unit=unit, ours=b, theirs=a, limit=LINEAR_LIMIT))
    return rows


def bench_local_types(work: Path) -> list[Row]:
    """Measure a build of programs with all types of a kernel, against make with clang and llvm-strip."""
    environment, root = _prepare(work), work / "types"
    strip = find_toolchain().strip
    if not strip or not KERNEL_BTF.exists():
        raise BenchError("no llvm-strip: apt-get install llvm" if not strip else f"no {KERNEL_BTF}")
    for number in range(TYPED_PROGRAMS):
        path = root / f"bpf/t{number:02}.bpf.c"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TYPED_SOURCE.format(n=number), encoding="ascii")
    text = f'[project]\nname = "types"\n[sign]\nkey = "{make_key(work)}"\n'
    tables = (f'[compile.{arch}]\ninclude = ["vmlinux/{arch}"]\n' for arch in TYPED_ARCHITECTURES)
    root.joinpath("buildtool.toml").write_text(text + "".join(tables), encoding="ascii")
    for arch in TYPED_ARCHITECTURES:
        run(BUILDTOOL, "vmlinux", "--arch", arch, "--kernel", KERNEL_BTF, cwd=root)
    _write_typed_makefile(root, strip)
    cores = os.cpu_count() or 1
    make = Command(argv=["make", "--always-make", "--silent", f"-j{cores}", "all"], cwd=root)
    ours = Command(argv=_build(work / "types.tar", TYPED_ARCHITECTURES), cwd=root, env=environment)
    name = (
        f"{TYPED_PROGRAMS} programs with vmlinux.h x {len(TYPED_ARCHITECTURES)}, against clang and llvm-strip"
    )
    return [compare(name, ours, make, rounds=3, limit=TYPED_LIMIT)]


def _write_typed_makefile(root: Path, strip: str) -> None:
    """Write what a project's Makefile has for each object: clang with few flags, then llvm-strip."""
    toolchain, rules, objects = find_toolchain(), [], []
    headers = provide_headers(os.environ, report=print, runner=Runner())
    for arch in TYPED_ARCHITECTURES:
        platform = PLATFORMS[arch]
        root.joinpath("made", arch).mkdir(parents=True)
        flags = ["-g", "-O2", "-Wall", "-mcpu=v3", "-target", platform.bpf_target, "-nostdlibinc"]
        flags += [f"-D{platform.target_define}", f"-Ivmlinux/{arch}", *headers.flags(platform)]
        rules.append(
            f"made/{arch}/%.bpf.o: bpf/%.bpf.c\n"
            f"\t{toolchain.clang} {' '.join(flags)} -c $< -o $@ && {strip} -g $@\n"
        )
        objects += [f"made/{arch}/t{number:02}.bpf.o" for number in range(TYPED_PROGRAMS)]
    root.joinpath("Makefile").write_text(f"all: {' '.join(objects)}\n{''.join(rules)}", encoding="ascii")


def _prepare(work: Path) -> dict[str, str]:
    """Return an environment with loaders of all architectures and a cache that is empty at first."""
    loaders = work / "loaders"
    if not loaders.exists():
        if not list_path(data_directory()).exists():
            raise BenchError("no loaders: make loaders")
        shutil.copytree(data_directory(), loaders)
        # Accept a loader of older sources, whose size is nearly the same.
        table = json.loads(list_path(loaders).read_text("utf-8"))
        for entry in table["platforms"].values():
            entry["loader"]["source"] = loader_digest()
        list_path(loaders).write_text(json.dumps(table), encoding="utf-8")
    return {
        "BUILDTOOL_LOADERS": str(loaders),
        "BUILDTOOL_CACHE": str(work / "cache"),
        "SOURCE_DATE_EPOCH": "0",
    }


def _build(output: Path, architectures: Iterable[str] = PLATFORMS) -> list[str | Path]:
    arch = [word for name in architectures for word in ("--arch", name)]
    argv: list[str | Path] = [BUILDTOOL, "build", "--engine", "local", "--no-cache", "--force", *arch]
    return [*argv, "--output", f"type=oci,dest={output}"]


def _write_project(root: Path, count: int, work: Path) -> Path:
    """Write a project of *count* programs, and a Makefile that compiles them with the same flags."""
    names = [f"p{number:03}" for number in range(count)]
    for name in names:
        write_source(root / f"bpf/{name}.bpf.c", programs=1, blocks=30)
    text = f'[project]\nname = "many"\n[sign]\nkey = "{make_key(work)}"\n'
    root.joinpath("buildtool.toml").write_text(text, encoding="ascii")
    toolchain, rules, objects = find_toolchain(), [], []
    headers = provide_headers(os.environ, report=print, runner=Runner())
    for arch, platform in PLATFORMS.items():
        root.joinpath("made", arch).mkdir(parents=True)
        argv = compile_command(
            toolchain, platform, source="$<", output=Path("$@"), root=root, headers=headers
        )
        rules.append(f"made/{arch}/%.bpf.o: bpf/%.bpf.c\n\t{' '.join(argv)}\n")
        objects += [f"made/{arch}/{name}.bpf.o" for name in names]
    root.joinpath("Makefile").write_text(f"all: {' '.join(objects)}\n{''.join(rules)}", encoding="ascii")
    return root


def _measure(project: Path, work: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Return seconds of a build from scratch, and peak megabytes of its process without its children."""
    argv: Sequence[str] = [str(word) for word in _build(work / "linear.tar")]
    start = time.perf_counter()
    with subprocess.Popen(
        argv,
        cwd=project,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        peak = 0.0
        while child.poll() is None:
            peak = max(peak, _read_peak(child.pid))
            time.sleep(_POLL_SECONDS)
    if child.returncode != 0:
        raise BenchError(f"exit code {child.returncode}: {' '.join(argv)[:300]}")
    return time.perf_counter() - start, peak


def _read_peak(pid: int) -> float:
    """Return the peak memory of process *pid* in megabytes, or 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0
