# SPDX-License-Identifier: Apache-2.0
"""Helpers of several benchmarks: sources of any size, linked loaders, a key, a project."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from measure import BenchError

from buildtool.core.platforms import Platform, host_platform
from buildtool.image.docker.prepare import BUILDER_IMAGE

TOP = Path(__file__).resolve().parent.parent
BUILDTOOL = Path(sys.executable).with_name("buildtool")

# The kernel verifier cannot simplify these blocks, so each costs as much as real parsing code.
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
RUN --network=none \\
  clang --target={triple} @vendor/libbpf/flags.txt @vendor/libbpf/sources.txt \\
    -o /libbpf.o \\
  && clang --target={triple} {static} /libbpf.o run/main.c @sources.txt @verify/sources.txt @flags.txt \\
    -o /verify-and-load \\
  && clang --target={triple} {static} /libbpf.o bench/plain_load.c base/static_gaps.c @flags.txt \\
    -o /plain_load \\
  && clang --target={triple} @flags.txt -Wno-unused-command-line-argument -c @verify/sources.txt \\
  && llvm-ar rcs libsigverify.a *.o \\
  && clang --target={triple} {static} bench/verify_cost.c {reading} libsigverify.a @flags.txt \\
    -o /verify_cost \\
  && cp /usr/lib/buildtool/tini/{arch}/tini-static /tini
FROM scratch
COPY --from=link /verify-and-load /plain_load /verify_cost /tini /
"""

# Sources beside libsigverify for the benchmark of verification, which reads files.
READING = "run/trustfiles.c base/file.c base/static_gaps.c"


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    """
    Run *argv* and return its standard output.

    Raises: BenchError with the errors of a compiler, or with its last lines.
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
        lines = done.stderr.strip().splitlines()
        # BuildKit repeats a whole command behind the compiler's own errors.
        errors = [line for line in lines if " error: " in line] or lines[-3:]
        raise BenchError(f"{argv[0]} failed with exit code {done.returncode}: {' | '.join(errors[:3])[:600]}")
    return done.stdout


def write_source(path: Path, *, programs: int, blocks: int) -> None:
    """Write an eBPF source of *programs* programs with *blocks* map updates each."""
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
    Link the loader and the program for comparison in the builder image, once. Return their directory.

    Both have the libraries, the compiler and the flags of a real image.
    """
    programs = work / "programs"
    if not programs.exists():
        context = work / "loader"
        shutil.copytree(TOP / "loader", context, dirs_exist_ok=True)
        (context / "bench").mkdir(exist_ok=True)
        for name in ("plain_load.c", "verify_cost.c"):
            shutil.copy(TOP / "bench" / name, context / "bench" / name)
        text = DOCKERFILE.format(
            builder=BUILDER_IMAGE,
            arch=this_platform().arch,
            triple=this_platform().triple,
            static=this_platform().static_option,
            reading=READING,
        )
        context.joinpath("Dockerfile").write_text(text, encoding="ascii")
        run("docker", "buildx", "build", "--output", f"type=local,dest={programs}", context)
    return programs


def make_key(work: Path) -> Path:
    """Make a signing key in directory *work*, once, and return its path."""
    key = work / "keys/bench.pem"
    if not key.exists():
        run(BUILDTOOL, "keygen", "bench", "--dir", work / "keys")
    return key


def make_project(work: Path) -> Path:
    """Make a project of the shipped programs in directory *work*, once, and return its directory."""
    project = work / "project"
    if not project.exists():
        key = make_key(work)
        shutil.copytree(TOP / "bpf", project / "bpf")
        project.joinpath("buildtool.toml").write_text(
            f'[project]\nname = "bench"\nversion = 1\nrelease = "1.0"\n[sign]\nkey = "{key}"\n',
            encoding="ascii",
        )
    return project
