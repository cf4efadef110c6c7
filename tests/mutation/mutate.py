# SPDX-License-Identifier: Apache-2.0
"""
Change the code of the verifiers and of signing, one place at a time, and check that a test notices.

`c` is libsigverify, `loader` is the rest of the loader, and `known` is the list of known.toml. `python` is
buildtool/signing and buildtool/trust.

    python tests/mutation/mutate.py [c|loader|python|known] [OPTION]...       --help lists the options

A run goes on where the last one stopped; .cache/mutants/results.jsonl holds the outcomes, by the contents of
the files. --again tests the survivors once more, after tests were added. Exit code 1: fewer mutants than
needed were killed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mutation.checkout import WORK
from mutation.crun import CMutants
from mutation.knownrun import KnownMutants
from mutation.loaderrun import LoaderMutants
from mutation.mutants import Mutant, choose_sample
from mutation.pyrun import PythonMutants

RUNNERS = {"c": CMutants, "loader": LoaderMutants, "python": PythonMutants, "known": KnownMutants}
# The tests of the loader start whole programs, so each of its mutants meets only some of them.
NEEDED = {"c": 94.0, "loader": 70.0, "python": 95.0, "known": 100.0}
RESULTS = WORK / "results.jsonl"


def read_results() -> dict[str, dict[str, Any]]:
    """Return the outcomes of earlier runs by the mutants' keys; the last outcome of a mutant counts."""
    if not RESULTS.exists():
        return {}
    return {item["key"]: item for item in map(json.loads, RESULTS.read_text().splitlines())}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Count the mutants that the tests kill.")
    parser.add_argument("language", nargs="?", choices=RUNNERS, help="default: all four")
    parser.add_argument("--sample", type=int, help="so many mutants of each language; default: all")
    parser.add_argument("--seed", type=int, default=0, help="another sample")
    parser.add_argument("--file", action="append", help="only mutants of this file; may be repeated")
    parser.add_argument("--again", action="store_true", help="test survivors of earlier runs again")
    parser.add_argument("--need", type=float, help="least percentage of killed mutants; default: NEEDED")
    return parser.parse_args(arguments)


def run_mutants(language: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Test the chosen mutants of *language* and return their outcomes."""
    runner = RUNNERS[language]()
    known = read_results()
    wanted = [mutant for mutant in runner.mutants() if not options.file or mutant.file in options.file]
    chosen = choose_sample(wanted, options.sample, options.seed)
    outcomes = {}
    with RESULTS.open("a", encoding="utf-8", buffering=1) as log:
        # In an order without files, so that a run that is stopped has tested some mutants of each.
        for number, mutant in enumerate(sorted(chosen, key=lambda one: one.key)):
            item = known.get(mutant.key)
            if item is None or (options.again and item["outcome"] == "survived"):
                item = test_mutant(runner, mutant)
                log.write(json.dumps(item) + "\n")
            outcomes[mutant.key] = item
            sys.stderr.write(f"\r{language}: {number + 1} of {len(chosen)}")
    sys.stderr.write("\n")
    return [outcomes[mutant.key] for mutant in chosen]


def test_mutant(
    runner: CMutants | LoaderMutants | PythonMutants | KnownMutants, mutant: Mutant
) -> dict[str, Any]:
    """Test one mutant and return what is written down about it."""
    begun = time.monotonic()
    outcome, by = runner.run(mutant)
    seconds = round(time.monotonic() - begun, 2)
    text = mutant.describe()
    return {"key": mutant.key, "outcome": outcome, "by": by, "seconds": seconds, "mutant": text}


def report(outcomes: Sequence[dict[str, Any]]) -> float:
    """Print a line for each file and each survivor, and return the percentage of killed mutants."""
    files: dict[str, Counter[str]] = {}
    for item in outcomes:
        files.setdefault(item["mutant"].partition(":")[0], Counter())[item["outcome"]] += 1
    out = sys.stdout.write
    out(f"{'file':40} {'killed':>7} {'survived':>9} {'same code':>10}\n")
    for file, found in files.items():
        out(f"{file:40} {found['killed']:7} {found['survived']:9} {found['same']:10}\n")
    total = Counter(item["outcome"] for item in outcomes)
    tested = total["killed"] + total["survived"]
    share = 100 * total["killed"] / tested if tested else 100.0
    out(f"{'all':40} {total['killed']:7} {total['survived']:9} {total['same']:10}  {share:.1f} % killed\n")
    for item in outcomes:
        if item["outcome"] == "survived":
            out(f"{item['mutant']}{'  (' + item['by'] + ')' if item['by'] else ''}\n")
    return share


def main(arguments: Sequence[str]) -> int:
    """Test, print, and compare with what is needed."""
    options = parse(arguments)
    languages = [options.language] if options.language else list(RUNNERS)
    shares = [report(run_mutants(language, options)) for language in languages]
    needed = [NEEDED[language] if options.need is None else options.need for language in languages]
    return int(any(share < need for share, need in zip(shares, needed, strict=True)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
