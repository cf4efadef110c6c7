# SPDX-License-Identifier: Apache-2.0
"""
Measure all promises about speed and size on this machine: `make bench`, or `bench/run.py NAME...`.

The script prints a table and writes build/bench.json. The exit code is 1 if a promise is missed or
cannot be measured. Times depend on the machine, so no test uses them.
"""

from __future__ import annotations

import compileall
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from building import bench_compile, bench_sizes, bench_version, bench_warm_build
from common import BUILDTOOL, TOP, run, write_source
from loading import bench_bpftool, bench_hand_over, bench_large_object, bench_small_object, bench_verify_cost
from localengine import bench_local_engine, bench_local_many, bench_local_types
from measure import BenchError, Row, print_table
from publishing import bench_fleet, bench_publish
from signing import bench_signing
from starting import bench_container_start, bench_memory, bench_sharing, bench_stop


def bench_many_signatures(work: Path) -> list[Row]:
    """Measure signing and verifying 1,000 objects, against minisign and openssl."""
    write_source(work / "many.bpf.c", programs=1, blocks=14)
    run(BUILDTOOL, "compile", "many.bpf.c", "--arch", "amd64", "--output", work / "objects-many", cwd=work)
    return bench_signing(work, work / "objects-many/many.bpf.o")


BENCHES: dict[str, Callable[[Path], list[Row]]] = {
    "load-small": bench_small_object,
    "load-large": bench_large_object,
    "bpftool": bench_bpftool,
    "hand-over": bench_hand_over,
    "verify": bench_verify_cost,
    "sizes": bench_sizes,
    "start": bench_container_start,
    "memory": bench_memory,
    "share": bench_sharing,
    "stop": bench_stop,
    "version": bench_version,
    "warm-build": bench_warm_build,
    "compile": bench_compile,
    "local-engine": bench_local_engine,
    "local-many": bench_local_many,
    "local-types": bench_local_types,
    "signing": bench_many_signatures,
    "publish": bench_publish,
    "fleet": bench_fleet,
}


def main() -> int:
    """Run the benchmarks that the command line names, or all."""
    wanted = sys.argv[1:] or list(BENCHES)
    rows: list[Row] = []
    missing: dict[str, str] = {}
    os.environ.pop("BUILDTOOL_CONFIG", None)
    with tempfile.TemporaryDirectory(prefix="buildtool-bench-") as work:
        try:
            run(BUILDTOOL, "images", "prepare")  # returns at once if the engine has them
        except BenchError as error:
            print(f"bench: error: {error}", file=sys.stderr)
            return 1
        # Compile modules as pip does: with PYTHONDONTWRITEBYTECODE, a checkout would do so at each start.
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
