# SPDX-License-Identifier: Apache-2.0
"""
Test mutants of the rest of the loader: all folders but those of libsigverify.

A first run of the tests, with an instrumented loader, writes down which functions each test enters. The tests
that enter a mutant's function then test it, one of each file in turn, up to a budget of seconds.

The tests of mutants run as root on this kernel, and a mutant may remove, signal or attach what it should not.
They therefore see a file system that is read-only outside the copy, and processes and devices of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labs.compile import find_clang
from labs.libbpf import compile_libbpf
from mutation.checkout import WORK, Done, copy_checkout, run_limited, run_pytest
from mutation.csource import make_mutants
from mutation.mutants import Mutant

from buildtool.core.platforms import host_platform
from buildtool.runtime.carried import LINKED_FROM

FOLDERS = ("attach", "base", "load", "operate", "pin", "probe", "run")
# Of the tests on this kernel, those of the loader on other architectures, of virtual machines, of the shipped
# programs and of the whole tool are left out: they repeat others, or take minutes.
_LEFT_OUT = (
    "attach_vm",
    "core_dumps",
    "demo",
    "handover_loaders",
    "loader_binary",
    "loaders_static",
    "loaders_vectors",
    "programs_capabilities",
    "programs_cgroup",
    "programs_compile",
    "programs_opcua",
    "programs_tx",
    "race",
    "share_storm",
    "skeleton",
    "ziglang",
)
_ALSO = ("tests/vectors/test_state_c.py", "tests/kernel/test_loader_binary.py::test_help")
_MARKS = "not (vm or docker or architectures or weekly)"
# It makes the headers and the sysroot, for which the other tests would need a network.
_FIRST_TEST = "tests/kernel/test_loader_load.py"
_NOTE_BYTES = 1 << 22
_COMPILE_SECONDS = 120.0
_MEASURE_SECONDS = 1800.0
# The tests of a mutant usually take no longer than this in all. They may take several times as long.
_BUDGET_SECONDS = 60.0
_SECONDS = 45.0
_SLOWER = 4.0
_FREE_SECONDS = 10.0
_FIRST_SECONDS = 120.0
_PROGRAMS = {
    "verify-and-load": ("run/main.c",),
    "ebpf-pins": ("operate/main.c", "operate/commands.c"),
}
_PROBE = "bpf-probe"
_PROBE_SOURCES = tuple(source for source in LINKED_FROM["probe"] if source.endswith(".c"))
_UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")
# A line of the map that lld writes: address, load address, size, alignment, object file, section.
MAP_LINE = re.compile(
    r"\s*(?P<address>[0-9a-f]+)\s.*?(?P<object>[^/\s]+\.o):\(\.text\.(?:unlikely\.)?(?P<name>\w+)\)$"
)
# The fixture of the sysroot locks and looks at the lists of packages, which lie outside the copy.
# A number of its own for the first process keeps the names of programs apart from those of other tests.
_SANDBOX = """\
set -e
copy=$1 number=$2
shift 2
mount --bind "$copy" "$copy"
awk '{ print $5 }' /proc/self/mountinfo | while read -r place; do
  case $place in
    /proc | /proc/* | /sys | /sys/* | /dev | /dev/* | "$copy") ;;
    *) mount -o remount,bind,ro "$place" 2>/dev/null || : ;; # a mount of another process may be gone by now
  esac
done
if [ -w / ]; then
  echo "the file system is still writable" >&2
  exit 1
fi
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir /run/above /run/work
lists=$copy/.cache/apt
mount -t overlay -o "lowerdir=$lists,upperdir=/run/above,workdir=/run/work" overlay "$lists"
ip link set lo up
echo "$number" >/proc/sys/kernel/ns_last_pid
setsid "$@" & # a process group inside: tests ask for its number
wait $!
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A test's usual time, and the functions that it enters, each a file and a number."""

    seconds: float
    passed: bool
    functions: frozenset[tuple[str, int]]


class LoaderMutants:
    """A copy of the checkout with the unchanged loader's objects, and the functions that each test enters."""

    def __init__(self) -> None:
        self._copy = copy_checkout("loader")
        self._loader = self._copy / "loader"
        self._built = self._copy / ".cache/loader"
        self._clang = find_clang()
        own = host_platform(os.uname().machine)
        if own is None or os.geteuid() != 0:
            raise RuntimeError("the loader's tests need root and a platform of the loader")
        self._arch = own.arch
        self._sysroot = self._copy / ".cache/sysroot" / own.debian
        flags = (self._loader / "flags.txt").read_text().split()
        self._link_flags = [
            own.static_option,
            *(flag for flag in flags if flag.startswith(("-Wl,", "-fuse", "-l"))),
        ]
        self._flags = [flag for flag in flags if flag not in (*self._link_flags, "-Werror")]
        self._verified = (self._loader / "verify/sources.txt").read_text().split()
        self._shared = [*(self._loader / "sources.txt").read_text().split(), *self._verified]
        self._prepare()
        self._libbpf = compile_libbpf(self._clang, f"--sysroot={self._sysroot}")
        measured = self._measure()
        self._compile_all()
        self._link_all()
        # Some tests look at what a loader maps or opens, and fail with the instrumented one.
        self._measured = {name: one for name, one in measured.items() if one.passed or self._passes(name)}

    def mutants(self) -> Iterator[Mutant]:
        """Yield all mutants, of one file after another. Those of libsigverify's sources belong to `c`."""
        for folder in FOLDERS:
            for path in sorted((self._loader / folder).glob("*.c")):
                if str(path.relative_to(self._loader)) not in self._verified:
                    yield from make_mutants(str(path.relative_to(self._copy)), path.read_text())

    def run(self, mutant: Mutant) -> tuple[str, str]:
        """Return the outcome of *mutant*, and what killed it."""
        path = self._copy / mutant.file
        source = str(path.relative_to(self._loader))
        object_ = self._object(source)
        known = object_.read_bytes()
        path.write_text(mutant.text)
        try:
            if not self._compile(source):
                return "invalid", ""
            # Equal objects of an optimizing compiler do the same.
            if object_.read_bytes() == known:
                return "same", ""
            return self._test(self._tests_of(mutant)) if self._link_all() else ("invalid", "")
        finally:
            path.write_text(mutant.source)
            object_.write_bytes(known)

    def _test(self, tests: Sequence[str]) -> tuple[str, str]:
        """Run *tests* and return the outcome. A failure counts if the test fails once more."""
        if not tests:
            return "survived", "no test enters this function"
        left = list(tests)
        while left:
            outcome, by = self._run_tests(left)
            if outcome == "survived" or by not in left:
                return outcome, by
            if self._run_tests([by])[0] == "killed":
                return "killed", by
            left.remove(by)
        return "survived", ""

    def _run_tests(self, tests: Sequence[str]) -> tuple[str, str]:
        seconds = _SECONDS + _SLOWER * sum(self._measured[test].seconds for test in tests)
        done = self._pytest(seconds, *tests)
        _, by = outcome = done.outcome()
        # The line of a failed test names it up to the first space, which a parameter may contain.
        line = next(
            (line for line in done.output.decode(errors="replace").splitlines() if by and by in line), ""
        )
        return outcome[0], next((test for test in tests if f" {test} - " in f"{line} - "), by)

    def _tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that enter the function of *mutant*, up to the budget."""
        file = mutant.file.removeprefix("loader/")
        number, is_function = part_of(mutant.source, mutant.line)
        # A table may matter to each function of its file.
        wanted = (
            {(file, number)}
            if is_function
            else {one for each in self._measured.values() for one in each.functions if one[0] == file}
        )
        tests = [name for name, one in self._measured.items() if one.functions & wanted]
        chosen, left = [], _BUDGET_SECONDS
        for test in self._in_turns(tests):
            left -= self._measured[test].seconds
            if left < 0:
                break
            chosen.append(test)
        return chosen

    def _in_turns(self, tests: Sequence[str]) -> list[str]:
        """Return the fastest test of each file, then the next of each: a file has a subject of its own."""
        turns = []
        for file in {test.partition("::")[0] for test in tests}:
            own = [test for test in tests if test.startswith(f"{file}::")]
            own.sort(key=lambda name: (self._measured[name].seconds, name))
            turns += [(turn, self._measured[name].seconds, name) for turn, name in enumerate(own)]
        return [name for _, _, name in sorted(turns)]

    def _pytest(self, seconds: float, *arguments: str, **environment: str) -> Done:
        """Run tests in the sandbox."""
        number = str(10_000 + os.getpid() % 10_000)
        before = (*_UNSHARE, _SANDBOX, "sandbox", str(self._copy), number)
        settings = {"PYTEST_DEBUG_TEMPROOT": "/tmp", "TEST_HEADERS": str(self._headers)}
        settings |= {"TEST_FREE_SECONDS": str(_FREE_SECONDS), **environment}
        return run_pytest(self._copy, seconds, *arguments, before=before, **settings)

    def _passes(self, test: str) -> bool:
        return not self._pytest(_FIRST_SECONDS, test).failed

    def _prepare(self) -> None:
        """Make what the tests need from the network."""
        done = run_pytest(self._copy, _MEASURE_SECONDS, _FIRST_TEST, "-k", "xdp")
        if done.failed:
            raise RuntimeError(f"a test of the unchanged loader fails:\n{done.output.decode()[-3000:]}")
        self._headers = self._copy / "buildtool/data/headers"

    # Building

    def _object(self, source: str) -> Path:
        return self._built / "objects" / f"{source.replace('/', '-')}.o"

    def _compile(self, source: str, *more: str) -> bool:
        object_ = self._object(source)
        object_.parent.mkdir(parents=True, exist_ok=True)
        argv = [self._clang, f"--sysroot={self._sysroot}", *self._flags, *more, "-c", source, "-o", object_]
        return not run_limited(argv, self._loader, _COMPILE_SECONDS).failed

    def _compile_all(self, *more: str) -> None:
        for source in {
            *self._shared,
            *_PROBE_SOURCES,
            *(one for sources in _PROGRAMS.values() for one in sources),
        }:
            if not self._compile(source, *more):
                raise RuntimeError(f"{source}: does not compile unchanged")

    def _programs(self) -> dict[str, Path]:
        """Return the places of the programs, where the fixtures of the tests build them if they are old."""
        return {name: self._built / name for name in _PROGRAMS} | {_PROBE: self._built / self._arch / _PROBE}

    def _link_all(self) -> bool:
        return all(self._link(name, self._link_flags) for name in self._programs())

    def _link(self, name: str, flags: Sequence[str | Path]) -> bool:
        path = self._programs()[name]
        sources = _PROBE_SOURCES if name == _PROBE else (*_PROGRAMS[name], *self._shared)
        path.parent.mkdir(parents=True, exist_ok=True)
        objects = [*map(self._object, sources), self._libbpf]
        argv = [self._clang, f"--sysroot={self._sysroot}", *objects, *flags, "-o", path]
        return not run_limited(argv, self._loader, _COMPILE_SECONDS).failed

    # Measuring

    def _measure(self) -> dict[str, _Measured]:
        """Return each test with what the instrumented loader tells. A changed file is measured again."""
        found = {}
        files = [
            f"tests/kernel/{path.name}" for path in sorted((self._copy / "tests/kernel").glob("test_*.py"))
        ]
        files = [file for file in files if Path(file).stem.removeprefix("test_") not in _LEFT_OUT]
        common = _digest(
            self._copy, "loader", "tests/labs", "tests/conftest.py", "tests/kernel/conftest.py", "bpf"
        )
        functions: dict[str, dict[int, tuple[str, int]]] = {}
        for number, file in enumerate([*files, *_ALSO]):
            log = (
                WORK
                / "reached"
                / f"{Path(file).stem}-{common}-{_digest(self._copy, file.partition('::')[0])}.jsonl"
            )
            if not log.exists():
                functions = functions or self._build_instrumented()
                self._measure_file(file, log, functions)
            for line in map(json.loads, log.read_text().splitlines()):
                found[line["test"]] = _Measured(
                    seconds=line["seconds"],
                    passed=line["passed"],
                    functions=frozenset((name, place) for name, place in line["functions"]),
                )
            sys.stderr.write(f"\rloader: measured {number + 1} of {len(files) + len(_ALSO)} files of tests")
        sys.stderr.write("\n")
        return found

    def _note(self, name: str) -> Path:
        return self._built / f"{name}.reached"

    def _build_instrumented(self) -> dict[str, dict[int, tuple[str, int]]]:
        """Build programs that note their functions. Return each program's functions by their addresses."""
        # The checked functions of the C library are overloads, which instrumented code leaves undefined.
        self._compile_all("-finstrument-functions", "-U_FORTIFY_SOURCE")
        functions = {}
        for name in self._programs():
            note, map_ = self._note(name), self._note(name).with_suffix(".map")
            note.write_bytes(bytes(_NOTE_BYTES))
            note.chmod(0o666)  # loaders of other users write it
            object_ = self._object(f"{name}.reached")
            argv = [self._clang, f"--sysroot={self._sysroot}", "-fPIE", "-Os", f'-DREACHED_FILE="{note}"']
            argv += [
                f"-DREACHED_SIZE={_NOTE_BYTES}",
                "-c",
                self._copy / "tests/mutation/reached.c",
                "-o",
                object_,
            ]
            flags = [flag for flag in self._link_flags if flag != "-Wl,--icf=safe"]
            if run_limited(argv, self._loader, _COMPILE_SECONDS).failed or not self._link(
                name, [object_, f"-Wl,-Map={map_}", *flags]
            ):
                raise RuntimeError(f"{name}: does not build with notes of its functions")
            functions[note.name] = dict(self._addresses(map_))
        return functions

    def _addresses(self, map_: Path) -> Iterator[tuple[int, tuple[str, int]]]:
        """Yield the functions of the linker's map, with their addresses."""
        sources = {self._object(source).name: source for source in [*self._shared, *_PROBE_SOURCES]}
        sources |= {self._object(one).name: one for each in _PROGRAMS.values() for one in each}
        for line in map_.read_text().splitlines():
            found = MAP_LINE.match(line)
            if found and found["object"] in sources:
                source = sources[found["object"]]
                text = (self._loader / source).read_text()
                defined = re.search(rf"^\w[^;\n]*\b{found['name']}\((?:[^;]*?)\n{{", text, re.MULTILINE)
                if defined:
                    place, _ = part_of(text, text.count("\n", 0, defined.start()) + 1)
                    yield int(found["address"], 16), (source, place)

    def _measure_file(self, file: str, log: Path, functions: dict[str, dict[int, tuple[str, int]]]) -> None:
        """Run the tests of *file* and write down what each enters."""
        raw = self._built / "reached.jsonl"
        raw.unlink(missing_ok=True)
        notes = ":".join(str(self._note(name)) for name in self._programs())
        arguments = ["-p", "mutation.reached", "--maxfail=1000", "-m", _MARKS]
        settings = {"REACHED_FILES": notes, "REACHED_LOG": str(raw)}
        done = self._pytest(_MEASURE_SECONDS, file, *arguments, **settings)
        lines = [json.loads(line) for line in raw.read_text().splitlines()] if raw.exists() else []
        if not lines:
            raise RuntimeError(f"{file}: its tests do not run:\n{done.output.decode()[-3000:]}")
        log.parent.mkdir(parents=True, exist_ok=True)
        text = ""
        for line in lines:
            reached = {
                functions[note].get(one) for note, found in line.pop("reached").items() for one in found
            }
            text += json.dumps(line | {"functions": sorted(place for place in reached if place)}) + "\n"
        log.write_text(text)


def part_of(text: str, line: int) -> tuple[int, bool]:
    """
    Return the number of the part of *text* that holds *line*, and whether the part is a function.

    A part ends with a closing brace at the start of a line. clang-format puts none elsewhere, and indents the
    lines inside.
    """
    lines = text.splitlines()
    number = sum(one.startswith("}") for one in lines[: line - 1])
    end = next((one for one in lines[line - 1 :] if one.startswith("}")), "")
    return number, end == "}" and lines[line - 1][:1].isspace()


def _digest(top: Path, *names: str) -> str:
    """Return 16 hex digits for the contents of files and directories of the copy at *top*."""
    files = sorted(
        path for name in names for path in [top / name, *(top / name).rglob("*")] if path.is_file()
    )
    parts = [
        str(path.relative_to(top)).encode() + b"\0" + path.read_bytes()
        for path in files
        if path.suffix != ".pyc"
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
