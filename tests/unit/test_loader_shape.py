# SPDX-License-Identifier: Apache-2.0
"""The shape of the loader's sources, by tools/includes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from labs import TOP

CHECK = TOP / "tools/includes"


def check(loader: Path) -> tuple[int, list[str]]:
    """Return the exit code and the lines for a directory of sources."""
    done = subprocess.run([sys.executable, CHECK, loader], capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def loader(tmp_path: Path) -> Path:
    """Give a copy of the loader's sources to break."""
    return shutil.copytree(TOP / "loader", tmp_path / "loader")


def append(path: Path, text: str) -> None:
    """Add *text* to the end of a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_the_sources_are_in_shape() -> None:
    """The sources of the repository have no fault."""
    assert check(TOP / "loader") == (0, [])


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("base/file.c", '#include "verify/trust.h"', "verify/trust.h: base/ stands below it"),
        ("verify/code.c", '#include "pin/pins.h"', "pin/pins.h: verify/ stands below it"),
        ("verify/code.h", '#include "base/log.h"', "base/log.h: verify/ stands below it"),
        ("attach/plan.c", '#include "load/load.h"', "load/load.h: attach/ stands below it"),
        ("pin/bpffs.h", '#include "run/options.h"', "run/options.h: pin/ stands below it"),
        ("load/unit.c", '#include "run/health.h"', "run/health.h: load/ stands below it"),
        ("load/unit.c", '#include "../run/health.h"', "../run/health.h: load/ stands below it"),
        ("run/run.c", '#include "load/missing.h"', "load/missing.h: no such file below loader/"),
    ],
)
def test_a_wrong_include_is_named(loader: Path, name: str, line: str, fault: str) -> None:
    """An include upwards, of what verification must not have, or of nothing, is a fault."""
    append(loader / name, f"\n{line}\n")
    assert check(loader) == (1, [f"{name}: includes {fault}"])


def test_a_misplaced_function_is_named(loader: Path) -> None:
    """A public function has the name of its file; static ones have any."""
    append(
        loader / "pin/pins.c", "\nstatic void ours(void)\n{\n}\n\nint other__more(void)\n{\n\treturn 0;\n}\n"
    )
    assert check(loader) == (1, ["pin/pins.c: other__more: a public function is called pins__verb"])


def test_two_files_of_one_name_are_named(loader: Path) -> None:
    """The prefix of a function leads to one file."""
    (loader / "load/plan.c").write_text("")
    assert check(loader) == (1, ["load/plan.c: attach/plan.c has its name"])


def test_a_circle_of_calls_is_named(loader: Path) -> None:
    """Files that call each other are one subject, or wrongly cut."""
    append(loader / "load/unit.c", "\nstatic void back(struct unit *unit)\n{\n\tshare__release(unit);\n}\n")
    code, (line,) = check(loader)
    assert code == 1
    assert line.startswith("files call each other in a circle: ")
    assert {"load/unit.c", "load/share.c"} <= set(line.partition(": ")[2].split(" -> "))


def test_an_empty_directory_is_no_success(tmp_path: Path) -> None:
    """A check that looks at nothing fails."""
    code, (line,) = check(tmp_path)
    assert (code, "no C files" in line) == (1, True)


def lines_of_code(path: Path) -> int:
    """Return how many lines of a C file are neither blank nor comment alone."""
    text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match[0].count("\n"), path.read_text(), flags=re.DOTALL)
    return sum(1 for line in text.splitlines() if line.strip() and not line.lstrip().startswith("//"))


def test_security_states_the_lines_from_bytes_to_verdict() -> None:
    """The number is that of the library's C files and of our headers that they include."""
    sources = [TOP / "loader" / name for name in (TOP / "loader/verify/sources.txt").read_text().split()]
    waiting, found = list(sources), set(sources)
    while waiting:
        for name in re.findall(r'^#include "([^"]+)"', waiting.pop().read_text(), re.MULTILINE):
            if (header := TOP / "loader" / name) not in found:
                found.add(header)
                waiting.append(header)
    number = sum(lines_of_code(path) for path in found)
    assert f"{number:,} lines" in (TOP / "SECURITY.md").read_text(), f"SECURITY.md must say {number:,} lines"


def test_lines_are_counted_by_the_rule(tmp_path: Path) -> None:
    """Blank lines and comments do not count; code with a comment does."""
    (tmp_path / "x.c").write_text("// one\n\n/* two\n * three */\nint a; /* four */\nint b; // five\n\t}\n")
    assert lines_of_code(tmp_path / "x.c") == 3
