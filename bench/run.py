# SPDX-License-Identifier: Apache-2.0
"""
Measures every promise about speed and size on this machine: `make bench`, or `bench/run.py NAME...`.

Prints a table and writes build/bench.json. Exit code 1 when a promise is
missed or cannot be measured. Nothing here is a test: times depend on the machine.
"""

from __future__ import annotations

import compileall
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from measure import BenchError, Command, Row, compare, print_table
from signing import bench_signing

from buildtool.images import BUILDER_IMAGE
from buildtool.platforms import Platform, host_platform
from buildtool.toolchain import Toolchain, compile_command, find_toolchain

TOP = Path(__file__).resolve().parent.parent
BUILDTOOL = Path(sys.executable).with_name("buildtool")
MEGABYTE = 1_000_000
SOURCES = 200
IMAGE_PROGRAMS = ("opcua_monitor", "tx_latency", "cgroup_traffic")

# Blocks the kernel cannot see through: each costs its verifier what real parsing code does.
BLOCK = """
	key = ctx->ingress_ifindex + {n};
	count = bpf_map_lookup_elem(&counts, &key);
	if (count)
		__sync_fetch_and_add(count, key ^ {n});
"""
SOURCE = """// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {{
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
}} counts SEC(".maps");
{programs}
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""
PROGRAM = """
SEC("xdp")
int program_{n}(struct xdp_md *ctx)
{{
	__u64 *count;
	__u32 key;
{blocks}
	return XDP_PASS;
}}
"""

DOCKERFILE = """FROM {builder} AS link
WORKDIR /loader
COPY . .
RUN --network=none clang --target={triple} {static} $(cat sources.txt) @flags.txt -o /verify-and-load \\
  && clang --target={triple} {static} bench/plain_load.c static_gaps.c @flags.txt -o /plain_load \\
  && clang --target={triple} {static} bench/verify_cost.c {verifying} static_gaps.c @flags.txt -o /verify_cost
FROM scratch
COPY --from=link /verify-and-load /plain_load /verify_cost /
"""

# What the loader has beside its verifier.
NOT_VERIFYING = (
    "attach.c",
    "attach_file.c",
    "clsact.c",
    "hook.c",
    "load.c",
    "log.c",
    "main.c",
    "options.c",
    "plan.c",
    "privileges.c",
    "set.c",
    "static_gaps.c",
    "targets.c",
    "trace.c",
)


def run(*argv: str | Path, cwd: Path | None = None) -> None:
    """
    Run *argv* to its end.

    Raises: BenchError with its last lines.
    """
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise BenchError(f"{argv[0]}: {error.strerror}") from error
    if done.returncode != 0:
        last = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise BenchError(f"{argv[0]} failed with exit code {done.returncode}: {last[:600]}")


def write_source(path: Path, *, programs: int, blocks: int) -> None:
    """Write an eBPF source that becomes *programs* programs of *blocks* map updates."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(
        PROGRAM.format(n=n, blocks="".join(BLOCK.format(n=n * blocks + m) for m in range(blocks)))
        for n in range(programs)
    )
    path.write_text(SOURCE.format(programs=body), encoding="ascii")


def this_platform() -> Platform:
    """
    Return the platform of this machine.

    Raises: BenchError.
    """
    found = host_platform(platform.machine())
    if found is None:
        raise BenchError(f"{platform.machine()} is not in the table of architectures")
    return found


def link_loaders(work: Path) -> Path:
    """
    Link the loader and what it is measured against in the builder image, once; return their directory.

    Both get the libraries, the compiler and the flags of a real image.
    """
    programs = work / "programs"
    if not programs.exists():
        context = work / "loader"
        shutil.copytree(TOP / "loader", context, dirs_exist_ok=True)
        (context / "bench").mkdir(exist_ok=True)
        for name in ("plain_load.c", "verify_cost.c"):
            shutil.copy(TOP / "bench" / name, context / "bench" / name)
        sources = (context / "sources.txt").read_text(encoding="ascii").split()
        text = DOCKERFILE.format(
            builder=BUILDER_IMAGE,
            triple=this_platform().triple,
            static=this_platform().static_option,
            verifying=" ".join(name for name in sources if name not in NOT_VERIFYING),
        )
        context.joinpath("Dockerfile").write_text(text, encoding="ascii")
        run("docker", "buildx", "build", "--output", f"type=local,dest={programs}", context)
    return programs


def make_key(work: Path) -> Path:
    """Make a signing key below *work* once and return its path."""
    key = work / "keys/bench.pem"
    if not key.exists():
        run(BUILDTOOL, "keygen", "bench", "--dir", work / "keys")
    return key


def bench_loading(work: Path, source: str, programs: Sequence[str], what: str) -> Row:
    """Start a container's entrypoint with the object of *source*, against a load without checks."""
    here, linked, key = this_platform(), link_loaders(work), make_key(work)
    built = work / f"objects-{Path(source).stem}" / Path(source).with_suffix(".o").name
    run(BUILDTOOL, "compile", source, "--arch", here.arch, "--output", built.parent, cwd=work)
    bare = Path(shutil.copy(built, work / f"bare-{built.name}"))
    run(BUILDTOOL, "sign", built, "--key", key, "--arch", here.arch, "--project", "bench", cwd=work)
    argv: list[str | Path] = [
        linked / "verify-and-load",
        "--objects",
        built,
        "--trust",
        key.with_suffix(".pub"),
    ]
    attach = [word for name in programs for word in ("--attach", f"{name}=none")]
    ours = Command(argv=[*argv, *attach, "--", "/bin/true"])
    theirs = Command(argv=[linked / "plain_load", bare, "/bin/true"])
    name = f"verify-and-load, {built.stat().st_size / 1000:.0f} KB, {what}"
    note = f"until the workload runs; both load {len(programs)} programs"
    return compare(name, ours, theirs, rounds=101, limit=1.10, note=note)


def bench_made_object(work: Path, kilobytes: int, programs: int, blocks: int) -> Row:
    """Measure the start with an object of about *kilobytes* that is as cheap for the kernel as can be."""
    name = f"load{kilobytes}.bpf.c"
    write_source(work / name, programs=programs, blocks=blocks)
    return bench_loading(work, name, [f"program_{n}" for n in range(programs)], "made to be cheap")


def bench_small_object(work: Path) -> list[Row]:
    """Measure the start with objects of 10 KB: a shipped one, and one that the kernel checks at once."""
    shutil.copytree(TOP / "bpf", work / "bpf", dirs_exist_ok=True)
    shipped = bench_loading(work, "bpf/tx_latency.bpf.c", ["tx_queue", "tx_start", "tx_drop"], "tx_latency")
    return [shipped, bench_made_object(work, 10, programs=1, blocks=14)]


def bench_large_object(work: Path) -> list[Row]:
    """Measure the start with a 200 KB object."""
    return [bench_made_object(work, 200, programs=8, blocks=54)]


def bench_verify_cost(work: Path) -> list[Row]:
    """Measure verification alone, against a SHA-256 of the file and one verification of a signature."""
    here, linked, rows = this_platform(), link_loaders(work), []
    key = make_key(work)
    shutil.copy(TOP / "bench/padded.bpf.c", work)
    for kilobytes in (10, 100, 1000, 10_000):
        built = work / str(kilobytes) / "padded.bpf.o"
        # What an object has beside its padding, its signature included, is about 4 KB.
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


def make_project(work: Path) -> Path:
    """Make a project of the shipped programs below *work* once and return its directory."""
    project = work / "project"
    if not project.exists():
        key = make_key(work)
        shutil.copytree(TOP / "bpf", project / "bpf")
        project.joinpath("buildtool.toml").write_text(
            f'[project]\nname = "bench"\nversion = 1\nrelease = "1.0"\n[sign]\nkey = "{key}"\n',
            encoding="ascii",
        )
    return project


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
        Row(name="loader in it", unit="MB", ours=loader, limit=1.5),
    ]


def read_layers(layout: Path) -> list[tuple[str, int]]:
    """Return digest and compressed size of each layer of the one image in *layout*."""
    document = json.loads(layout.joinpath("index.json").read_text("utf-8"))
    while "layers" not in document:
        digest = document["manifests"][0]["digest"]
        document = json.loads(blob(layout, digest).read_text("utf-8"))
    return [(layer["digest"], layer["size"]) for layer in document["layers"]]


def blob(layout: Path, digest: str) -> Path:
    """Return the file of *digest*."""
    return layout / "blobs" / digest.replace(":", "/")


def read_size_in_layers(layout: Path, digests: Sequence[str], name: str) -> int:
    """
    Return the size of file *name* in the layers.

    Raises: BenchError when no layer has it.
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
    """Measure how long a command needs before it can do anything."""
    ours = Command(argv=[BUILDTOOL, "--version"], cwd=work)
    theirs = Command(argv=[sys.executable, "-c", "import click"], cwd=work)
    return [compare("buildtool --version, against import click", ours, theirs, rounds=31, limit=1.5)]


def bench_warm_build(work: Path) -> list[Row]:
    """Build again when nothing changed, against docker buildx with the rendered Dockerfile."""
    project, key = make_project(work), make_key(work)
    arch = this_platform().arch
    run(BUILDTOOL, "build", "--arch", arch, "--tag", "buildtool-bench:ours", cwd=project)
    # What `build` uses here, so that both build the same: the prepared images where the engine has them.
    dockerfile = work / "Dockerfile"
    run(BUILDTOOL, "render", "--arch", arch, "-o", dockerfile, *prepared_option(project), cwd=project)
    by_hand: list[str | Path] = ["docker", "buildx", "build", "--file", dockerfile, "--output", "type=docker"]
    by_hand += ["--platform", f"linux/{arch}", "--provenance=false", "--secret", f"id=signing-key,src={key}"]
    by_hand += ["--build-arg", "SOURCE_DATE_EPOCH=0", "--tag", "buildtool-bench:theirs", "."]
    run(*by_hand, cwd=project)
    ours = Command(argv=[BUILDTOOL, "build", "--arch", arch, "--tag", "buildtool-bench:ours"], cwd=project)
    theirs = Command(argv=by_hand, cwd=project)
    row = compare("warm build, against docker buildx build", ours, theirs, rounds=15, limit=1.2)
    run("docker", "image", "rm", "buildtool-bench:ours", "buildtool-bench:theirs")
    return [row]


def prepared_option(project: Path) -> list[str]:
    """Return what makes `render` name the prepared images."""
    done = subprocess.run(
        [BUILDTOOL, "render", "--help"], cwd=project, capture_output=True, text=True, check=True
    )
    return ["--prepared"] if "--prepared" in done.stdout else []


def bench_compile(work: Path) -> list[Row]:
    """Compile many sources, against make -j2 that runs clang with the same flags and nothing else."""
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
    argv = compile_command(toolchain, here, source="$<", output=Path("$@"), root=project)
    objects = " ".join(f"made/{name}.bpf.o" for name in names)
    project.joinpath("Makefile").write_text(
        f"all: {objects}\nmade/%.bpf.o: bpf/%.bpf.c\n\t{' '.join(argv)}\n", encoding="ascii"
    )


def bench_many_signatures(work: Path) -> list[Row]:
    """Sign and verify 1,000 objects, against minisign and openssl."""
    write_source(work / "many.bpf.c", programs=1, blocks=14)
    run(BUILDTOOL, "compile", "many.bpf.c", "--arch", "amd64", "--output", work / "objects-many", cwd=work)
    return bench_signing(work, work / "objects-many/many.bpf.o")


BENCHES: dict[str, Callable[[Path], list[Row]]] = {
    "load-small": bench_small_object,
    "load-large": bench_large_object,
    "verify": bench_verify_cost,
    "sizes": bench_sizes,
    "version": bench_version,
    "warm-build": bench_warm_build,
    "compile": bench_compile,
    "signing": bench_many_signatures,
}


def main() -> int:
    """Run the benchmarks that the command line names, or all."""
    wanted = sys.argv[1:] or list(BENCHES)
    rows: list[Row] = []
    missing: dict[str, str] = {}
    os.environ.pop("BUILDTOOL_CONFIG", None)
    with tempfile.TemporaryDirectory(prefix="buildtool-bench-") as work:
        run(BUILDTOOL, "images", "prepare")  # at once when the engine has them
        # As pip does when it installs; under PYTHONDONTWRITEBYTECODE a checkout would compile at every start.
        compileall.compile_dir(TOP / "buildtool", quiet=1)
        for name in wanted:
            print(f"bench: {name} ...", file=sys.stderr, flush=True)
            try:
                rows += BENCHES[name](Path(work))
            except (BenchError, KeyError) as error:
                missing[name] = str(error)
    print_table(rows, missing)
    result = {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "rows": [row.to_json() for row in rows],
        "missing": missing,
    }
    target = TOP / "build/bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.kept for row in rows) and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
