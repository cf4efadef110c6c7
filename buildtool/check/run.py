# SPDX-License-Identifier: Apache-2.0
"""
Check objects by rules, and load their programs on kernels.

A dry run loads each program alone and attaches none. The kernel is this host's, or that of a virtual
machine, which is booted once for all objects. Several machines run at once.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from buildtool.check.kernelfacts import Release
from buildtool.check.lines import LineInfo, read_line_info
from buildtool.check.memory import estimate_maps
from buildtool.check.model import (
    RULES,
    CheckReport,
    Finding,
    Level,
    LoadVerdict,
    ProgramRun,
)
from buildtool.check.opened import open_objects, opening_findings
from buildtool.check.probe import ProbedProgram, ProbeOutput, probe_argv, read_probe
from buildtool.check.static import StaticCheck, check_object
from buildtool.check.vm.kernels import SUITES, Kernel, find_kernel, has_kernel, image_arch
from buildtool.check.vm.machine import VmRequest, run_vm
from buildtool.core.errors import (
    BuildtoolError,
    FileAccessError,
    ObjectFormatError,
    ToolFailedError,
    ToolMissingError,
    UsageError,
    VmError,
)
from buildtool.core.files import write_atomic
from buildtool.core.platforms import Platform, find_platform, host_platform, this_platform
from buildtool.core.process import Runner
from buildtool.objects.constants import write_constants
from buildtool.objects.describe import ProgramInfo, describe_object
from buildtool.objects.elf import parse_object
from buildtool.objects.optional import EVERYTHING, Selection
from buildtool.objects.types import Declaration
from buildtool.runtime.probe import ProbeFinder
from buildtool.signing.settings import NO_SETTINGS, LoadSettings
from buildtool.signing.statement import describe_stated

HOST = "host"
NEAR_LIMIT = 500_000  # half of the instructions that the kernel verifier processes at most
_CAP_SYS_ADMIN, _CAP_BPF = 21, 39
_GUEST_PROBE = "/probe/bpf-probe"
_GUEST_OBJECTS = "/probe/objects"
# Memory of a virtual machine. Some architectures cannot address more than 3 GiB.
_GUEST_MIB, _MAX_GUEST_MIB = 1024, 3072
_GUEST_STEP_MIB = 256  # QEMU's ppc64le requires a multiple


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTarget:
    """
    An object to check: its *path*, *name*, *data*, and *arch* (empty if it is for all).

    *stale* says why it is older than its sources, and is empty if it is not. *size* is that of a file
    which is larger than *data*. *declared* are the types of sections that libbpf does not know. Dry runs load
    the object with *settings*.
    """

    path: Path
    name: str
    data: bytes
    arch: str = ""
    stale: str = ""
    size: int = 0
    declared: tuple[Declaration, ...] = ()
    settings: LoadSettings = NO_SETTINGS

    @property
    def loaded(self) -> bytes:
        """The object with the constants of *settings*. Raises: ObjectFormatError."""
        return write_constants(self.data, self.settings.constants)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """
    A request to check *targets* at time *now* on each of *kernels* for each of *arches*.

    A kernel is `host`, a key of `check.vm.kernels.SUITES`, or the file of an image. *oldest* is
    the oldest supported Linux release. *modules* are loaded into virtual machines first.
    *timeout_seconds* bounds the time of each kernel.

    Dry runs have *capabilities* and no other. Without any, they have what all targets for that
    architecture need together, which is the label of an image of them. Kernels may refuse optional
    programs that are not of *selection*.
    """

    targets: Sequence[CheckTarget]
    now: int
    kernels: Sequence[str] = ()
    arches: Sequence[str] = ()
    oldest: Release | None = None
    modules: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    selection: Selection = EVERYTHING
    timeout_seconds: float = 300
    cache: Path | None = None  # by default this user's cache


def check_objects(
    request: CheckRequest,
    *,
    environ: Mapping[str, str] = os.environ,
    runner: Runner | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """
    Return the findings and the kernels' verdicts. *on_progress* receives a line for each slow step.

    Raises: any BuildtoolError, if no kernel can run the programs.
    """
    runner = runner or Runner()
    finder = ProbeFinder(cache=request.cache, environ=environ, runner=runner, on_progress=on_progress)
    checks = [_check_statically(request, target) for target in request.targets]
    # Do not boot a kernel for files that are no objects.
    facts = {id(t): check.facts for t, check in zip(request.targets, checks, strict=True) if check.facts}
    readable = [target for target in request.targets if id(target) in facts]
    is_stale = any(target.stale for target in request.targets)
    if is_stale and request.kernels:
        on_progress("no kernel is asked: an object is older than its source")
    plan = [
        (kernel, target_platform, _choose(readable, target_platform, kernel))
        for kernel, target_platform in _plan(request, on_progress)
        if readable and not is_stale
    ]
    largest = max(map(_map_bytes, readable), default=0)
    asker = _Asker(
        request=request,
        finder=finder,
        runner=runner,
        on_progress=on_progress,
        memory_mib=_guest_memory(largest),
    )
    errors = [finding for check in checks for finding in check.findings if finding.level is Level.ERROR]
    if plan and errors:
        # The rest takes minutes, which nobody needs to wait for before correcting this.
        number = f"{len(errors)} error{'' if len(errors) == 1 else 's'}"
        on_progress(f"{number} by the rules, first {errors[0].rule} {errors[0].object}: {errors[0].message}")
    # Download everything first, so that a missing kernel is reported before minutes of booting the others.
    asks = []
    for kernel, wanted, chosen in plan:
        needed = {name for target in chosen for name in facts[id(target)].capabilities}
        given = tuple(sorted(set(request.capabilities) or needed))
        try:
            asks.append(asker.prepare(kernel, wanted, chosen, given))
        except (FileAccessError, ToolFailedError, ToolMissingError, VmError) as error:
            if not errors:
                raise
            # The errors that the rules found are of more use than the reason why no kernel can be asked.
            asker.silent.append((f"{kernel} {wanted.arch}", error))
    # After the probe was built for a dry run, which this needs too.
    opened = list(_check_opening(request, checks, finder))
    asker.ask_all(asks)
    if asker.silent and not asker.runs and not errors:
        raise asker.silent[0][1]
    findings = [*(finding for check in checks for finding in check.findings), *opened]
    findings += [_as_finding(run) for run in asker.runs if not run.loads]
    findings += [
        _as_warning(run) for run in asker.runs if run.loads and run.verdict.instructions > NEAR_LIMIT
    ]
    findings += [_as_silence(name, error) for name, error in asker.silent]
    return CheckReport(
        objects=tuple(check.facts for check in checks if check.facts),
        findings=tuple(findings),
        runs=tuple(asker.runs),
    )


def _map_bytes(target: CheckTarget) -> int:
    """Return the memory of the maps of *target*, with the sizes of its settings."""
    obj, entries = parse_object(target.data), target.settings.entries
    maps = describe_object(obj).maps
    sized = (replace(item, max_entries=entries.get(item.name, item.max_entries)) for item in maps)
    return estimate_maps(obj, tuple(sized)).fixed


def _check_statically(request: CheckRequest, target: CheckTarget) -> StaticCheck:
    # A name with a directory is already unique.
    is_whole = "/" in target.name or not target.arch
    name = target.name if is_whole else f"{target.arch}/{target.name}"
    path = str(target.path)
    found = check_object(
        name,
        path,
        target.data,
        now=request.now,
        oldest=request.oldest,
        size=target.size,
        declared=target.declared,
    )
    stale = [RULES["BT060"].finding(name, target.stale)] if target.stale else []
    if target.arch:  # so that the hint is a command to copy
        stale = [replace(finding, hint=finding.hint.replace("ARCH", target.arch)) for finding in stale]
    findings = (*stale, *found.findings)
    return replace(found, findings=tuple(replace(finding, path=path) for finding in findings))


def _check_opening(
    request: CheckRequest, checks: Sequence[StaticCheck], finder: ProbeFinder
) -> Iterator[Finding]:
    """Open each object of this machine's byte order with the carried libbpf, and yield findings."""
    pairs = [(t, check.facts) for t, check in zip(request.targets, checks, strict=True) if check.facts]
    own = host_platform(os.uname().machine)
    probe = finder.find_made(own) if own and pairs else None
    if probe is None or own is None:
        if pairs:
            yield RULES["BT008"].finding("libbpf", "this installation has no bpf-probe to open objects with")
        return
    fitting = [pair for pair in pairs if parse_object(pair[0].data).is_little_endian == own.little_endian]
    if len(fitting) < len(pairs):
        order = "big" if own.little_endian else "little"
        others = f"{len(pairs) - len(fitting)} of {len(pairs)} objects"
        yield RULES["BT008"].finding("libbpf", f"{others} are {order}-endian, and this machine is not")
    contents = [target.data for target, _ in fitting]
    found = open_objects(probe, contents, finder.runner, request.timeout_seconds)
    for (target, facts), opened in zip(fitting, found, strict=True):
        yield from opening_findings(facts, opened, path=str(target.path))


def _plan(request: CheckRequest, on_progress: Callable[[str], None]) -> Iterator[tuple[str, Platform]]:
    """Yield each kernel with each architecture for which it exists. The host has its own only."""
    for kernel in dict.fromkeys(request.kernels):
        if kernel == HOST:
            yield kernel, this_platform()
            continue
        there = [arch for arch in request.arches if _is_for(kernel, arch)]
        for arch in request.arches:
            # If the kernel exists for none of them, yield it, so that find_kernel raises the error.
            if arch in there or not there:
                yield kernel, find_platform(arch)
            else:
                why = "Debian has no such kernel" if kernel in SUITES else "the image is for another"
                on_progress(f"leave out {kernel} {arch}: {why}")


def _is_for(kernel: str, arch: str) -> bool:
    if kernel in SUITES:
        return has_kernel(kernel, arch)
    path = Path(kernel)
    return not path.is_file() or image_arch(path) in ("", arch)


def _choose(targets: Sequence[CheckTarget], wanted: Platform, kernel: str) -> list[CheckTarget]:
    """
    Return the targets for platform *wanted*, which *kernel* is to load.

    Raises: UsageError if there are none, which is no success.
    """
    chosen = [target for target in targets if _fits(target, wanted)]
    if not chosen:
        hint = f"buildtool compile --arch {wanted.arch} makes some"
        if kernel == HOST:
            hint += "; --kernel 6.12 boots a kernel of the objects' own architecture"
        raise UsageError(f"no object is compiled for {wanted.arch}", hint=hint)
    return chosen


def _fits(target: CheckTarget, wanted: Platform) -> bool:
    if target.arch:
        return target.arch == wanted.arch
    return parse_object(target.data).is_little_endian == wanted.little_endian


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """
    A dry run of *targets* on *kernel* (None for this host's), named *name* in the request.

    The programs have *capabilities* and no other.
    """

    name: str
    arch: str
    probe: Path
    targets: Sequence[CheckTarget]
    kernel: Kernel | None
    capabilities: tuple[str, ...]
    selection: Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Performs dry runs. *runs* collects the verdicts, and *silent* the kernels without an answer."""

    request: CheckRequest
    finder: ProbeFinder
    runner: Runner
    on_progress: Callable[[str], None]
    runs: list[ProgramRun] = field(default_factory=list)
    silent: list[tuple[str, BuildtoolError]] = field(default_factory=list)
    memory_mib: int = _GUEST_MIB

    def prepare(
        self, kernel: str, wanted: Platform, targets: Sequence[CheckTarget], capabilities: tuple[str, ...]
    ) -> _Ask:
        """Return the dry run of *targets* on *kernel*, after finding or fetching kernel and probe."""
        found = None
        if kernel != HOST:
            found = find_kernel(kernel, wanted.arch, self.request.cache, self.on_progress)
        elif not _may_load():
            raise ToolFailedError(
                "this user may not load eBPF programs: CAP_BPF is missing",
                hint="run it with sudo; --kernel 6.12 asks a kernel in a virtual machine, without root",
            )
        probe = self.finder.find(wanted)
        return _Ask(
            name=kernel,
            arch=wanted.arch,
            probe=probe,
            targets=targets,
            kernel=found,
            capabilities=capabilities,
            selection=self.request.selection,
        )

    def ask_all(self, asks: Sequence[_Ask]) -> None:
        """
        Perform all dry runs, as many at a time as processors and memory allow.

        If one machine fails, the verdicts of the others, which took minutes, are kept.
        """
        reading, writing = os.pipe()
        with ThreadPoolExecutor(_places(self.memory_mib)) as pool:
            try:
                guests = [pool.submit(self._ask_guest, ask, reading) if ask.kernel else None for ask in asks]
                for ask, guest in zip(asks, guests, strict=True):
                    try:
                        # This host's run stays in this thread, because only the main thread gets interrupts.
                        output = guest.result() if guest else self._ask_host(ask)
                        self.runs.extend(_name_runs(output, ask))
                    except (VmError, ToolFailedError, ToolMissingError) as error:
                        if guest is None:
                            raise
                        self.silent.append((f"{ask.name} {ask.arch}", error))
            finally:
                # After an interrupt, this ends the running machines. Otherwise no machine runs.
                os.close(writing)
                pool.shutdown(cancel_futures=True)
                os.close(reading)

    def _ask_host(self, ask: _Ask) -> ProbeOutput:
        with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
            paths = [Path(work, f"{number}.bpf.o") for number in range(len(ask.targets))]
            for path, target in zip(paths, ask.targets, strict=True):
                write_atomic(path, target.loaded)
            argv = probe_argv(str(ask.probe), _with_declared(map(str, paths), ask), ask.capabilities)
            done = self.runner.run(argv, timeout_seconds=self.request.timeout_seconds)
        return read_probe(done.stdout.decode())

    def _ask_guest(self, ask: _Ask, stop: int) -> ProbeOutput:
        assert ask.kernel is not None
        self.on_progress(f"boot {ask.name} {ask.arch}, {len(ask.targets)} objects")
        paths = [f"{_GUEST_OBJECTS}/{number}.bpf.o" for number in range(len(ask.targets))]
        files: dict[str, Path | bytes] = {_GUEST_PROBE: ask.probe}
        files |= {path: target.loaded for path, target in zip(paths, ask.targets, strict=True)}
        result = run_vm(
            VmRequest(
                kernel=ask.kernel,
                argv=probe_argv(_GUEST_PROBE, _with_declared(paths, ask), ask.capabilities),
                files=files,
                modules=self.request.modules,
                memory_mib=self.memory_mib,
                timeout_seconds=self.request.timeout_seconds,
            ),
            stop=stop,
        )
        return read_probe(result.output)


def _with_declared(
    paths: Iterable[str], ask: _Ask
) -> Iterator[tuple[str, Iterable[tuple[str, str]], Mapping[str, int]]]:
    """Yield each of *paths* with the sections that its object declares to be loaded as others, and sizes."""
    for path, target in zip(paths, ask.targets, strict=True):
        found = (item for item in _read_programs(target) if item.declared)
        sections = dict.fromkeys((item.section.removeprefix("?"), item.declared) for item in found)
        yield path, sections, target.settings.entries


def _read_programs(target: CheckTarget) -> tuple[ProgramInfo, ...]:
    try:
        return describe_stated(parse_object(target.data), target.declared).programs
    except ObjectFormatError:
        return ()


def _guest_memory(map_bytes: int) -> int:
    """Return the memory in MiB of a machine for maps of *map_bytes*: twice these, and room for a kernel."""
    wanted = _GUEST_MIB + 2 * map_bytes // 2**20
    return min(-(-wanted // _GUEST_STEP_MIB) * _GUEST_STEP_MIB, _MAX_GUEST_MIB)


def _places(memory_mib: int) -> int:
    """Return the number of machines with *memory_mib* that may run at once on this host."""
    found = re.search(r"^MemAvailable: +(\d+) kB$", _read_proc("meminfo"), re.MULTILINE)
    room = int(found[1]) // 1024 // memory_mib if found else 1
    return max(min(len(os.sched_getaffinity(0)), room), 1)


def _read_proc(name: str) -> str:
    try:
        return Path("/proc", name).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _may_load() -> bool:
    text = _read_proc("self/status")
    if not text:
        return True  # without /proc, let the kernel decide
    bits = int(text.partition("CapEff:")[2].split(maxsplit=1)[0], 16)
    return bool(bits >> _CAP_BPF & 1 or bits >> _CAP_SYS_ADMIN & 1)


def _name_runs(output: ProbeOutput, ask: _Ask) -> Iterator[ProgramRun]:
    lines = [_read_lines(target.data) for target in ask.targets]
    spare = [_find_spare(target, ask.selection) for target in ask.targets]
    for program in output.programs:
        number = int(Path(program.path).name.partition(".")[0])
        yield ProgramRun(
            object=ask.targets[number].name,
            path=str(ask.targets[number].path),
            program=program.program,
            section=program.section,
            kernel=ask.name,
            release=output.release,
            arch=ask.arch,
            duration_us=program.duration_us,
            verdict=_locate(program, lines[number]),
            capabilities=ask.capabilities,
            is_spare=program.program in spare[number],
        )


def _find_spare(target: CheckTarget, selection: Selection) -> set[str]:
    """Return the programs of *target* that *selection* leaves out. libbpf does not name optional ones."""
    programs = _read_programs(target)
    return {item.name for item in programs if not selection.loads(item.name, item.section, target.name)}


def _read_lines(data: bytes) -> LineInfo:
    try:
        return read_line_info(parse_object(data))
    except ObjectFormatError:
        return LineInfo()


def _locate(program: ProbedProgram, lines: LineInfo) -> LoadVerdict:
    verdict = program.verdict
    if verdict.source is None:
        return verdict
    return replace(verdict, source=lines.locate(program.section, verdict.source))


def _as_finding(run: ProgramRun) -> Finding:
    reason = run.verdict.reason
    if missing := run.verdict.missing:
        reason = f"requires {' '.join(missing)} beside {' '.join(run.capabilities)}: {reason}"
    message = f"{run.kernel} {run.arch} ({run.release}): {reason}"
    return RULES[run.verdict.rule].finding(
        run.object,
        message,
        program=run.program,
        path=run.path,
        source=run.verdict.source,
        level=Level.WARNING if run.is_spare else None,
    )


def _as_warning(run: ProgramRun) -> Finding:
    message = f"{run.kernel} {run.arch} ({run.release}): looked at {run.verdict.instructions} of a million"
    return RULES["BT103"].finding(run.object, message, program=run.program, path=run.path)


def _as_silence(name: str, error: BuildtoolError) -> Finding:
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    return RULES["BT102"].finding(name, message)
