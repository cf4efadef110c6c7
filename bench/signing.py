# SPDX-License-Identifier: Apache-2.0
"""Measure signing and verifying many objects, against minisign and openssl in a loop over the same files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from measure import BenchError, Command, Row, Timing, time_pair

BUILDTOOL = Path(sys.executable).with_name("buildtool")
OBJECTS = 1000
ROUNDS = 3
# These tools process one file at each start, so they run in a loop.
LIMITS = {"openssl pkeyutl": 0.3, "minisign": 1.0}

# Each run writes into a new directory. In a directory with recently removed files, ext4 needs a third of a
# millisecond for each new file, which would distort the times.
OURS = """
signed=$(mktemp -d run.XXXXXX)
"$1" sign objects/*.o --key key.pem --arch amd64 --project bench --output "$signed"
"$1" verify "$signed"/*.o --trust key.pub
"""
MINISIGN = """
signatures=$(mktemp -d run.XXXXXX)
for file in objects/*.o; do
  signature=$signatures/${file##*/}
  minisign -S -s minisign.key -x "$signature" -m "$file"
  minisign -V -q -p minisign.pub -x "$signature" -m "$file"
done
"""
OPENSSL = """
signatures=$(mktemp -d run.XXXXXX)
for file in objects/*.o; do
  signature=$signatures/${file##*/}
  openssl pkeyutl -sign -rawin -inkey key.pem -in "$file" -out "$signature"
  openssl pkeyutl -verify -rawin -pubin -inkey key.pub -in "$file" -sigfile "$signature"
done
"""


def bench_signing(work: Path, built: Path) -> list[Row]:
    """
    Measure signing and verifying copies of object *built* in directory *work*.

    buildtool runs one command for each step. The other tools run one process for each object and
    step, because they process one file.

    Raises: BenchError.
    """
    place = work / "signing"
    (place / "objects").mkdir(parents=True)
    for number in range(OBJECTS):
        shutil.copy(built, place / f"objects/x{number:04}.bpf.o")
    _run([BUILDTOOL, "keygen", "key", "--dir", "."], place)
    ours = _script(OURS, place)
    rows = []
    for name, script in (("openssl pkeyutl", OPENSSL), ("minisign", MINISIGN)):
        if shutil.which(name.split()[0]) is None:
            raise BenchError(f"{name.split()[0]} is not on this machine")
        if name == "minisign":
            _run(["minisign", "-G", "-W", "-p", "minisign.pub", "-s", "minisign.key"], place)
        rows.append(_row(name, *time_pair(ours, _script(script, place), rounds=ROUNDS)))
    return rows


def _row(name: str, ours: Timing, theirs: Timing) -> Row:
    return Row(
        name=f"sign + verify {OBJECTS} objects, per object, against {name}",
        unit="ms",
        ours=ours.wall / OBJECTS,
        theirs=theirs.wall / OBJECTS,
        limit=LIMITS[name],
        note=f"CPU time {ours.cpu / OBJECTS:.2f} against {theirs.cpu / OBJECTS:.2f} ms",
    )


def _script(text: str, place: Path) -> Command:
    return Command(argv=["sh", "-ec", text, "sh", BUILDTOOL], cwd=place)


def _run(argv: list[str | Path], place: Path) -> None:
    done = subprocess.run(argv, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{argv[0]} failed: {done.stderr.strip()[:300]}")
