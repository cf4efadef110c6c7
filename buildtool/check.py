# SPDX-License-Identifier: Apache-2.0
"""
Will it load there? What rules an object breaks, and what kernels say of its programs.

A kernel is asked by loading each program alone, attaching none: this host's, or
one in a virtual machine, which is booted once for all objects.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from buildtool.check_static import StaticCheck, check_object
from buildtool.checkmodel import CheckReport, Finding, Outcome, ProgramRun, Verdict
from buildtool.checkrules import RULES
from buildtool.elfobj import parse_object
from buildtool.errors import BuildtoolError, ObjectFormatError, ToolFailedError, UsageError, VmError
from buildtool.fsio import write_atomic
from buildtool.helperfacts import Release, parse_release
from buildtool.kernels import SUITES, Kernel, default_cache, find_kernel, has_kernel
from buildtool.lineinfo import LineInfo, read_line_info
from buildtool.platforms import Platform, find_platform, host_platform
from buildtool.probes import ProbedProgram, ProbeFinder, ProbeOutput, read_probe
from buildtool.process import Runner
from buildtool.vm import VmRequest, run_vm

HOST = "host"
_CAP_SYS_ADMIN, _CAP_BPF = 21, 39
_GUEST_PROBE = "/probe/bpf-probe"
_GUEST_OBJECTS = "/probe/objects"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTarget:
    """An object to check: its *path*, *name*, *data*; *arch* where it is for one only, else empty."""

    path: Path
    name: str
    data: bytes
    arch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """
    What to check: *targets*, at time *now*, on each of *kernels* for each of *arches*.

    A kernel is `host`, a name of buildtool.kernels, or the file of an image.
    *releases* are Linux releases that the objects are meant for besides.
    *modules* are loaded in virtual machines before. Each of them may take
    *timeout_seconds*.
    """

    targets: Sequence[CheckTarget]
    now: int
    kernels: Sequence[str] = ()
    arches: Sequence[str] = ()
    releases: Sequence[Release] = ()
    modules: Sequence[str] = ()
    timeout_seconds: float = 300
    cache: Path = field(default_factory=default_cache)


def check_objects(
    request: CheckRequest,
    *,
    environ: Mapping[str, str] = os.environ,
    runner: Runner | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """
    Return what is found; *on_progress* hears of each step that takes a while.

    Raises: every BuildtoolError, when a kernel cannot be asked.
    """
    runs_on = list(_plan(request, on_progress))
    checks = [_check_statically(request, target) for target in request.targets]
    # What is no object needs no kernel to say so.
    readable = [t for t, check in zip(request.targets, checks, strict=True) if check.facts]
    runner = runner or Runner()
    finder = ProbeFinder(cache=request.cache, environ=environ, runner=runner, on_progress=on_progress)
    asker = _Asker(request=request, finder=finder, runner=runner, on_progress=on_progress)
    for kernel, target_platform in runs_on:
        chosen = [target for target in readable if _fits(target, target_platform)]
        if chosen:
            asker.ask(kernel, target_platform, chosen)
    if asker.silent and not asker.runs:
        raise asker.silent[0][1]
    findings = [finding for check in checks for finding in check.findings]
    findings += [_as_finding(run) for run in asker.runs if not run.loads]
    findings += [RULES["BT102"].finding(name, error.message) for name, error in asker.silent]
    return CheckReport(
        objects=tuple(check.facts for check in checks if check.facts),
        findings=tuple(findings),
        runs=tuple(asker.runs),
    )


def _check_statically(request: CheckRequest, target: CheckTarget) -> StaticCheck:
    asked = [parse_release(kernel) for kernel in request.kernels if "/" not in kernel]
    releases = sorted({release for release in (*request.releases, *asked) if release})
    name = f"{target.arch}/{target.name}" if target.arch else target.name
    # The oldest says all that the others would.
    return check_object(name, str(target.path), target.data, now=request.now, releases=releases[:1])


def _plan(request: CheckRequest, on_progress: Callable[[str], None]) -> Iterator[tuple[str, Platform]]:
    """Yield each kernel with each architecture that has it; the host has but its own."""
    for kernel in dict.fromkeys(request.kernels):
        if kernel == HOST:
            yield kernel, _own_platform()
            continue
        there = [arch for arch in request.arches if kernel not in SUITES or has_kernel(kernel, arch)]
        for arch in request.arches:
            # None at all is an error, which finding the kernel explains.
            if arch in there or not there:
                yield kernel, find_platform(arch)
            else:
                on_progress(f"leave out {kernel} {arch}: Debian has no such kernel")


def _own_platform() -> Platform:
    own = host_platform(platform.machine())
    if own is None:
        raise UsageError(f"{platform.machine()}: this machine's architecture is not in the table")
    return own


def _fits(target: CheckTarget, wanted: Platform) -> bool:
    if target.arch:
        return target.arch == wanted.arch
    return parse_object(target.data).is_little_endian == wanted.little_endian


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Asks one kernel after the other; *runs* grow, and *silent* has those that did not answer."""

    request: CheckRequest
    finder: ProbeFinder
    runner: Runner
    on_progress: Callable[[str], None]
    runs: list[ProgramRun] = field(default_factory=list)
    silent: list[tuple[str, BuildtoolError]] = field(default_factory=list)

    def ask(self, kernel: str, wanted: Platform, targets: Sequence[CheckTarget]) -> None:
        """Ask *kernel* about *targets*. A machine that fails does not cost what the others said: minutes."""
        if kernel == HOST:
            output = self._ask_host(self.finder.find(wanted), targets)
        else:
            found = find_kernel(kernel, wanted.arch, self.request.cache, self.on_progress)
            probe = self.finder.find(wanted)
            self.on_progress(f"boot {kernel} {wanted.arch}, {len(targets)} objects")
            try:
                output = self._ask_guest(probe, targets, found)
            except (VmError, ToolFailedError) as error:
                self.silent.append((f"{kernel} {wanted.arch}", error))
                return
        self.runs.extend(_name_runs(output, targets, kernel, wanted.arch))

    def _ask_host(self, probe: Path, targets: Sequence[CheckTarget]) -> ProbeOutput:
        if not _may_load():
            raise ToolFailedError(
                "this user may not load eBPF programs: CAP_BPF is missing",
                hint="run it with sudo; --kernel 6.12 asks a kernel in a virtual machine, without root",
            )
        with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
            paths = [Path(work, f"{number}.bpf.o") for number in range(len(targets))]
            for path, target in zip(paths, targets, strict=True):
                write_atomic(path, target.data)
            argv = [str(probe), *map(str, paths)]
            done = self.runner.run(argv, timeout_seconds=self.request.timeout_seconds)
        return read_probe(done.stdout.decode())

    def _ask_guest(self, probe: Path, targets: Sequence[CheckTarget], kernel: Kernel) -> ProbeOutput:
        paths = [f"{_GUEST_OBJECTS}/{number}.bpf.o" for number in range(len(targets))]
        files: dict[str, Path | bytes] = {_GUEST_PROBE: probe}
        files |= {path: target.data for path, target in zip(paths, targets, strict=True)}
        result = run_vm(
            VmRequest(
                kernel=kernel,
                argv=[_GUEST_PROBE, *paths],
                files=files,
                modules=self.request.modules,
                timeout_seconds=self.request.timeout_seconds,
            )
        )
        return read_probe(result.output)


def _may_load() -> bool:
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True  # the kernel will say
    bits = int(text.partition("CapEff:")[2].split(maxsplit=1)[0], 16)
    return bool(bits >> _CAP_BPF & 1 or bits >> _CAP_SYS_ADMIN & 1)


def _name_runs(
    output: ProbeOutput, targets: Sequence[CheckTarget], kernel: str, arch: str
) -> Iterator[ProgramRun]:
    lines = [_read_lines(target.data) for target in targets]
    for program in output.programs:
        number = int(Path(program.path).name.partition(".")[0])
        yield ProgramRun(
            object=targets[number].name,
            program=program.program,
            section=program.section,
            kernel=kernel,
            release=output.release,
            arch=arch,
            duration_us=program.duration_us,
            verdict=_locate(program, lines[number]),
        )


def _read_lines(data: bytes) -> LineInfo:
    try:
        return read_line_info(parse_object(data))
    except ObjectFormatError:
        return LineInfo()


def _locate(program: ProbedProgram, lines: LineInfo) -> Verdict:
    verdict = program.verdict
    if verdict.source is None:
        return verdict
    return replace(verdict, source=lines.locate(program.section, verdict.source))


def _as_finding(run: ProgramRun) -> Finding:
    rule = "BT100" if run.verdict.outcome is Outcome.REFUSED else "BT101"
    message = f"{run.kernel} {run.arch} ({run.release}): {run.verdict.reason}"
    return RULES[rule].finding(run.object, message, program=run.program, source=run.verdict.source)
