# SPDX-License-Identifier: Apache-2.0
"""Files swapped between check and use: the loader loads the bytes that it verified, or nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from labs.handsig import sign
from labs.loader import PREFIX, Lab
from labs.step import run_with_event

pytestmark = pytest.mark.usefixtures("nothing_left")

STARTS = 1000
SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("raw_tp/sys_enter") int {name}(void *c) {{ return 0; }}
"""
RETURN_0, RETURN_1 = (bytes((0xB7, 0, 0, 0, value, 0, 0, 0, 0x95)) for value in (0, 1))
# The workload inherits the link. Its fdinfo has the tag of the program that the kernel runs.
TELL = ("--no-map-fds", "--", "/bin/sh", "-c", "cat /proc/$$/fdinfo/* 2>/dev/null; exit 0")
# Swaps good and bad bytes in a loop until it is killed. Argument: the directory.
SWAPPER = """
import itertools, os, pathlib, sys
os.nice(5)
top = pathlib.Path(sys.argv[1])
path, good, bad = top / "objects/race.bpf.o", (top / "good").read_bytes(), (top / "bad").read_bytes()
at = next(i for i in range(len(good)) if good[i] != bad[i])
def rename(data):
    (top / "new").write_bytes(data)
    (top / "new").rename(path)
def write(data):
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), data[at:at + 1], at)
def link(data):
    (top / "new").unlink(missing_ok=True)
    (top / "new").symlink_to(top / ("good" if data is good else "bad"))
    (top / "new").rename(path)
    rename(data)
def cut(data):
    with path.open("r+b") as file:
        file.truncate(at)
        file.seek(0)
        file.write(data)
print("ready", flush=True)
for number in itertools.count():
    change = (rename, write, link, cut)[number // 8 % 4]
    change(bad if number % 2 else good)
"""


@pytest.fixture
def place(lab: Lab, tmp_path: Path) -> Path:
    """Return a directory with a good object, and one whose code differs in one byte."""
    good = sign(lab.compile(tmp_path, SOURCE.format(name=f"{PREFIX}_race")), [lab.key], name="race.bpf.o")
    assert good.count(RETURN_0) == 1
    (tmp_path / "good").write_bytes(good)
    (tmp_path / "bad").write_bytes(good.replace(RETURN_0, RETURN_1))
    lab.put(tmp_path)
    (tmp_path / "objects/race.bpf.o").write_bytes(good)
    return tmp_path


def tag_of(stdout: str) -> str:
    """Return the tag of the one program whose link the workload held."""
    (tag,) = re.findall(r"^prog_tag:\t(\w+)$", stdout, re.MULTILINE)
    return str(tag)


def test_other_code_has_another_tag(lab: Lab, place: Path) -> None:
    """The other code, when signed, has another tag, so a successful swap would be visible."""
    good = tag_of(lab.run(place, *TELL).stdout)
    other = lab.compile(place, SOURCE.format(name=f"{PREFIX}_race").replace("return 0", "return 1"))
    (place / "objects/race.bpf.o").write_bytes(sign(other, [lab.key], name="race.bpf.o"))
    assert tag_of(lab.run(place, *TELL).stdout) != good


def test_a_thousand_starts_against_a_swapper(lab: Lab, place: Path) -> None:
    """1,000 starts race with renames, links, writes and truncation: each loads the good code or refuses."""
    good = lab.run(place, *TELL)
    tag, digest = tag_of(good.stdout), good.events("verify")[0]["digest"]
    accepted = 0
    argv = [sys.executable, "-c", SWAPPER, str(place)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as swapper:
        assert swapper.stdout
        assert swapper.stdout.readline() == "ready\n"
        try:
            for _ in range(STARTS):
                result = lab.run(place, *TELL)
                decided = [line for line in result.events("verify") if line["decision"] == "accepted"]
                assert all(line["digest"] == digest for line in decided)
                if result.code == 0:
                    assert tag_of(result.stdout) == tag
                else:
                    assert result.stdout == ""
                # A file cut during the read is an error without a decision.
                assert result.code in (0, 3) or result.message.startswith("cannot read: the file changes"), (
                    result.lines
                )
                accepted += result.code == 0
        finally:
            assert swapper.poll() is None
            swapper.kill()
    # Both outcomes must be frequent, or there was no race.
    assert STARTS // 20 < accepted < STARTS - STARTS // 20


def swap_by_rename(place: Path, name: str) -> None:
    """Rename another file to the object's name."""
    (place / "new").write_bytes((place / name).read_bytes())
    (place / "new").rename(place / "objects/race.bpf.o")


def swap_in_place(place: Path, name: str) -> None:
    """Overwrite the object in place, while the loader may have it open."""
    with (place / "objects/race.bpf.o").open("r+b") as file:
        file.write((place / name).read_bytes())


@pytest.mark.parametrize("swap", [swap_by_rename, swap_in_place])
@pytest.mark.parametrize(("before", "after"), [("good", "bad"), ("bad", "good")])
def test_swapped_at_every_step(
    lab: Lab, place: Path, swap: Callable[[Path, str], None], before: str, after: str
) -> None:
    """A swap at any system call boundary runs the program of the good bytes, or none."""
    tag = tag_of(lab.run(place, *TELL).stdout)
    log, codes = place / "stderr", []
    argv = lab.argv(place, *TELL)
    came, is_workload = True, False

    def event() -> None:
        nonlocal is_workload
        is_workload = '"event":"exec"' in log.read_text()
        swap(place, after)

    while came and not is_workload:
        (place / "objects/race.bpf.o").write_bytes((place / before).read_bytes())
        code, stdout, came = run_with_event(argv, len(codes) + 1, event, log)
        assert code in (0, 3), log.read_text()
        if code == 0:
            assert tag_of(stdout) == tag
        else:
            assert stdout == ""
        codes.append(code)
    assert len(codes) > 50
    first, last = (3, 0) if before == "good" else (0, 3)
    assert codes[0] == first
    assert codes[-1] == last
    assert codes == sorted(codes, reverse=first == 3), "there is one moment at which the file is read"
