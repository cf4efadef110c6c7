# SPDX-License-Identifier: Apache-2.0
"""Measure builds: the size of the image, a warm build, compiling, the start of a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from common import BUILDTOOL, make_key, make_project, run, this_platform, write_source
from measure import BenchError, Command, Row, compare

from buildtool.compile.toolchain import Toolchain, compile_command, find_toolchain
from buildtool.core.platforms import Platform
from buildtool.core.process import Runner
from buildtool.runtime.headers import provide_headers

MEGABYTE = 1_000_000
SOURCES = 200
IMAGE_PROGRAMS = ("opcua_monitor", "tx_latency", "cgroup_traffic")


def bench_sizes(work: Path) -> list[Row]:
    """Measure the runtime image as a registry would store it, and the loader in it."""
    project, archive = make_project(work), work / "image.tar"
    run(BUILDTOOL, "build", "--arch", "amd64", "--output", f"type=oci,dest={archive}", cwd=project)
    layout = work / "image"
    layout.mkdir()
    run("tar", "-xf", archive, "-C", layout)
    layers = read_layers(layout)
    image = sum(size for _, size in layers) / MEGABYTE
    loader = (
        read_size_in_layers(layout, [digest for digest, _ in layers], "usr/bin/verify-and-load") / MEGABYTE
    )
    note = f"{len(layers)} compressed layers, amd64"
    return [
        Row(
            name=f"runtime image, {len(IMAGE_PROGRAMS)} programs", unit="MB", ours=image, limit=3.0, note=note
        ),
        Row(name="loader in it", unit="MB", ours=loader, limit=1.6),
    ]


def read_layers(layout: Path) -> list[tuple[str, int]]:
    """Return digest and compressed size of each layer of the one image in *layout*."""
    document = json.loads(layout.joinpath("index.json").read_text("utf-8"))
    while "layers" not in document:
        digest = document["manifests"][0]["digest"]
        document = json.loads(blob(layout, digest).read_text("utf-8"))
    return [(layer["digest"], layer["size"]) for layer in document["layers"]]


def blob(layout: Path, digest: str) -> Path:
    """Return the file of the blob *digest*."""
    return layout / "blobs" / digest.replace(":", "/")


def read_size_in_layers(layout: Path, digests: Sequence[str], name: str) -> int:
    """
    Return the size of file *name* in the layers.

    Raises: BenchError, if no layer has it.
    """
    for digest in digests:
        done = subprocess.run(
            ["tar", "-tvzf", blob(layout, digest)], capture_output=True, text=True, check=True
        )
        for line in done.stdout.splitlines():
            words = line.split()
            if words[-1] == name:
                return int(words[2])
    raise BenchError(f"no layer has {name}")


def bench_version(work: Path) -> list[Row]:
    """Measure the start of a command."""
    ours = Command(argv=[BUILDTOOL, "--version"], cwd=work)
    theirs = Command(argv=[sys.executable, "-c", "import click"], cwd=work)
    return [compare("buildtool --version, against import click", ours, theirs, rounds=31, limit=1.5)]


def bench_warm_build(work: Path) -> list[Row]:
    """Measure a build without changes, against docker buildx in a rendered folder."""
    project, key = make_project(work), make_key(work)
    arch = this_platform().arch
    run(BUILDTOOL, "build", "--arch", arch, "--tag", "buildtool-bench:ours", cwd=project)
    # Render with the images that `build` uses, which are the prepared images if the engine has them.
    folder = work / "rendered"
    run(BUILDTOOL, "render", "--arch", arch, "-o", folder, *prepared_option(project), cwd=project)
    by_hand: list[str | Path] = ["docker", "buildx", "build", "--output", "type=docker"]
    by_hand += ["--platform", f"linux/{arch}", "--provenance=false", "--secret", f"id=signing-key,src={key}"]
    by_hand += ["--build-arg", "SOURCE_DATE_EPOCH=0", "--tag", "buildtool-bench:theirs", folder]
    run(*by_hand, cwd=project)
    ours = Command(argv=[BUILDTOOL, "build", "--arch", arch, "--tag", "buildtool-bench:ours"], cwd=project)
    theirs = Command(argv=by_hand, cwd=project)
    row = compare("warm build, against docker buildx build", ours, theirs, rounds=15, limit=1.3)
    run("docker", "image", "rm", "buildtool-bench:ours", "buildtool-bench:theirs")
    return [row]


def prepared_option(project: Path) -> list[str]:
    """Return the option by which `render` names the prepared images."""
    done = subprocess.run(
        [BUILDTOOL, "render", "--help"], cwd=project, capture_output=True, text=True, check=True
    )
    return ["--prepared"] if "--prepared" in done.stdout else []


def bench_compile(work: Path) -> list[Row]:
    """Measure compiling many sources, against make -j2 that only runs clang with the same flags."""
    project, here, toolchain = work / "many", this_platform(), find_toolchain()
    names = [f"p{n:03}" for n in range(SOURCES)]
    for name in names:
        write_source(project / f"bpf/{name}.bpf.c", programs=1, blocks=30)
    project.joinpath("buildtool.toml").write_text('[project]\nname = "bench"\n', encoding="ascii")
    write_makefile(project, toolchain, here, names)
    project.joinpath("made").mkdir()
    ours = Command(argv=[BUILDTOOL, "compile", "--arch", here.arch, "--jobs", "2"], cwd=project)
    theirs = Command(argv=["make", "--always-make", "--silent", "-j2", "all"], cwd=project)
    note = "make runs clang only; ours also strips, checks and records every object"
    name = f"compile {SOURCES} sources, against make -j2"
    return [compare(name, ours, theirs, rounds=5, limit=1.15, note=note)]


def write_makefile(project: Path, toolchain: Toolchain, here: Platform, names: Sequence[str]) -> None:
    """Write the Makefile that compiles the same sources with the same flags."""
    headers = provide_headers(os.environ, report=print, runner=Runner())
    argv = compile_command(toolchain, here, source="$<", output=Path("$@"), root=project, headers=headers)
    objects = " ".join(f"made/{name}.bpf.o" for name in names)
    project.joinpath("Makefile").write_text(
        f"all: {objects}\nmade/%.bpf.o: bpf/%.bpf.c\n\t{' '.join(argv)}\n", encoding="ascii"
    )
