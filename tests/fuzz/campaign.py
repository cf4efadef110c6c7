# SPDX-License-Identifier: Apache-2.0
"""
Runs every fuzz target for a limited time and prints the findings.

    python tests/fuzz/campaign.py [SECONDS]        time for each target; one per processor runs at once

The vectors are the seeds. New inputs are kept in .cache/fuzz/corpus, findings in .cache/fuzz/findings. The
exit code is 1 after a finding.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from labs.bindings import build_installed  # noqa: E402
from labs.compile import find_clang  # noqa: E402 - scripts find the package beside their folder
from labs.vectors.index import INDEX, write_stores  # noqa: E402
from labs.verifiers import BUILT, build_c_verifier  # noqa: E402

MAX_INPUT_BYTES = {"object": 8192, "policy": 4096, "run": 4096}
TARGETS = ("c-object", "c-policy", "c-run", "both-object", "both-policy")
# The first byte selects the parser of the rest (loader/fuzz/fuzz_run.c).
RUN_SEEDS = (
    b'\0{"projects":{"p":{"o":3}},"stateVersion":1}',
    b"\1# comment\nx=eth0\no:y=/a/b\n\n",
    b"\2run\nrun\n--attach\nx=eth0\n--wait-interface=5\n--time=2026-01-01T00:00:00Z\n--verify-only\n--\nw",
    b'\3object\nprogram\ntarget\n"message"\x1b\xff\nvalue',
    b"\4# comment\nset o:x=1\nmap-entries m=0x10\nattach x=eth0\nload y\nno-load z\n",
    b'\5{"settable":{"variables":[{"max":"9","min":"-1","name":"x","type":"integer"}]}}\nx\n0x5',
    b'\5{"settable":{"variables":[{"name":"x","type":"integer","values":["-1","9"]}]}}\nx\n9',
    b'\5{"settable":{"maps":[{"maxEntries":9,"minEntries":2,"name":"m.inner"}]}}\nm.inner\n7',
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one target: *executions*, *features* of coverage, *inputs* kept, *log* of a finding."""

    target: str
    executions: int
    seconds: int
    features: int
    inputs: int
    is_finding: bool
    log: str


def write_seeds(seeds: Path, stores: Path) -> None:
    """Write the vectors as inputs of the targets, and their trust stores."""
    for directory in (stores, *(seeds / kind for kind in MAX_INPUT_BYTES)):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    write_stores(stores)
    # Both kinds of targets number the stores by their sorted names.
    numbers = {name: number for number, name in enumerate(sorted(INDEX["trust"]))}
    for number, vector in enumerate(INDEX["vectors"]):
        data = bytes((numbers[vector["trust"]],)) + b64decode(vector["file"])
        (seeds / "object" / f"{number:04}").write_bytes(data)
    for number, seed in enumerate(RUN_SEEDS):
        (seeds / "run" / f"{number}").write_bytes(seed)
    for kind in ("trust", "badTrust"):
        for name, files in INDEX[kind].items():
            for file, text in files.items():
                selector = bytes((file.endswith(".pub"),))
                (seeds / "policy" / f"{kind}-{name}-{file}").write_bytes(selector + text.encode())


def run_target(target: str, seconds: int, clang: Path, work: Path) -> Outcome:
    """Run one target for *seconds*; the result has the log of a finding."""
    language, _, kind = target.partition("-")
    corpus, findings = work / "corpus" / target, work / "findings"
    for directory in (corpus, findings):
        directory.mkdir(parents=True, exist_ok=True)
    argv: list[str | Path] = [build_c_verifier(clang, f"fuzz-{kind}")]
    if language == "both":
        checks = ":".join(map(str, (build_c_verifier(clang), *build_installed())))
        argv = [sys.executable, HERE / "differential.py", kind, checks, work / "stores"]
    argv += [f"-max_total_time={seconds}", "-print_final_stats=1", "-timeout=20", "-rss_limit_mb=4096"]
    argv += [f"-max_len={MAX_INPUT_BYTES[kind]}", f"-artifact_prefix={findings}/{target}-"]
    if language == "c":
        argv += [f"-dict={HERE.parents[1] / 'loader/fuzz/json.dict'}"]
    # libFuzzer writes new inputs to the first directory, and reads those that the other language kept.
    others = [path for path in (work / "corpus").glob(f"*-{kind}") if path != corpus]
    argv += [corpus, work / "seeds" / kind, *others]
    env = os.environ | {"FUZZ_STORES": str(work / "stores")}
    done = subprocess.run(argv, capture_output=True, env=env, check=False)
    log = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    return Outcome(
        target=target,
        executions=_last_number(r"number_of_executed_units: *(\d+)", log),
        seconds=seconds,
        features=_last_number(r"ft: (\d+)", log),
        inputs=sum(1 for _ in corpus.iterdir()),
        is_finding=done.returncode != 0,
        log=log[-6000:],
    )


def _last_number(pattern: str, text: str) -> int:
    return int((re.findall(pattern, text) or ["0"])[-1])


def run_campaign(seconds: int, clang: Path, work: Path = BUILT) -> list[Outcome]:
    """Run all targets, one per processor at a time."""
    write_seeds(work / "seeds", work / "stores")
    for program in ("check", "fuzz-object", "fuzz-policy", "fuzz-run"):
        build_c_verifier(clang, program)
    build_installed()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda target: run_target(target, seconds, clang, work), TARGETS))


def main(arguments: Sequence[str]) -> int:
    """Run the campaign and print a table."""
    seconds = int(arguments[0]) if arguments else 600
    outcomes = run_campaign(seconds, find_clang())
    out = sys.stdout.write
    out(f"{'target':12} {'executions':>11} {'per second':>11} {'features':>9} {'inputs kept':>12}  result\n")
    for one in outcomes:
        result = "FINDING" if one.is_finding else "nothing found"
        rate = one.executions // max(one.seconds, 1)
        out(f"{one.target:12} {one.executions:11,} {rate:11,} {one.features:9,} {one.inputs:12,}  {result}\n")
    for one in outcomes:
        if one.is_finding:
            out(f"\n{one.target}:\n{one.log}\n")
    return int(any(one.is_finding for one in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
