# SPDX-License-Identifier: Apache-2.0
"""Check this machine for tools, and report missing ones with advice. Nothing is changed."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from buildtool.compile.toolchain import Toolchain, find_toolchain
from buildtool.config.file import DEFAULT_BASE
from buildtool.core.errors import BuildtoolError, ConfigError
from buildtool.core.platforms import PLATFORMS, host_platform
from buildtool.core.process import Runner
from buildtool.image.docker.prepare import find_prepared
from buildtool.runtime.carried import find_base, find_loader, find_tini, named_directory
from buildtool.runtime.headers import find_headers
from buildtool.runtime.link import INSTALL_COMPILER, find_linker
from buildtool.runtime.provide import check_linkable, find_parts

MIN_ENGINE = 23  # the first Docker with BuildKit by default and RUN --network
MIN_KERNEL = (5, 10)  # for -mcpu=v3 and CAP_BPF
# Bits of the capability sets, linux/capability.h.
CAPABILITIES = {"NET_ADMIN": 12, "SYS_ADMIN": 21, "PERFMON": 38, "BPF": 39}


class Use(StrEnum):
    """The use of a part. Only the parts for `build` decide doctor's exit code, and one engine suffices."""

    DOCKER = "build --engine docker"
    LOCAL = "build --engine local"
    COMPILE = "compile"
    LOAD = "load"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result for a part: its *name*, its use, what was *found*, and *advice* if it is not *ok*."""

    name: str
    needed_for: Use
    ok: bool
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """
    The machine to check: *root* of the file system, *environ*, the configured *clang*, *runner*.

    Images are for *architectures* (by default this machine's) and based on image *base*.
    """

    root: Path
    environ: Mapping[str, str]
    clang: str
    runner: Runner
    architectures: tuple[str, ...] = ()
    base: str = DEFAULT_BASE


def examine(machine: Host) -> list[Check]:
    """Return all results, in the order of work. A part that cannot be checked counts as missing."""
    return [
        *_check_toolchain(machine),
        _check_headers(machine),
        *_check_engine(machine),
        _check_carried(machine),
        _check_kernel(),
        _check_btf(machine.root),
        _check_bpffs(machine.root),
        _check_capabilities(machine.root),
        _check_lsm(machine.root),
        _check_unprivileged(machine.root),
    ]


def is_ready(checks: list[Check]) -> bool:
    """Return whether `build` can work, by Docker or by the local engine with a compiler."""
    missing = {check.needed_for for check in checks if not check.ok}
    return Use.DOCKER not in missing or missing.isdisjoint((Use.LOCAL, Use.COMPILE))


def _check_toolchain(machine: Host) -> list[Check]:
    advice = "apt install clang lld, or pip install ziglang; `build` with Docker brings its own"
    tools: Toolchain | None = None
    try:
        tools = find_toolchain(machine.clang, runner=machine.runner)
        found = f"{tools.version} ({tools.clang})"
    except BuildtoolError as error:
        found = error.message
    lld = find_linker(tools)
    return [
        _check("clang", Use.COMPILE, tools is not None, found, advice),
        _check("lld", Use.OPTIONAL, bool(lld), lld or "not found", "links the loader for `load`; " + advice),
    ]


def _check_engine(machine: Host) -> list[Check]:
    """Check the engine. If it does not answer, its image store and prepared images are left out."""
    start = "install Docker 23 or newer and start it, or let DOCKER_HOST name one that runs"
    answer, said = _ask(machine.runner, ["docker", "version", "--format", "{{.Server.Version}}"])
    version = said.strip()
    major = int(found[0]) if answer and (found := re.match(r"\d+", version)) else 0
    buildx, buildx_said = _ask(machine.runner, ["docker", "buildx", "version"])
    checks = [
        _check("docker engine", Use.DOCKER, major >= MIN_ENGINE, version or "no answer", start),
        _check(
            "buildx",
            Use.DOCKER,
            buildx,
            buildx_said,
            "install docker-buildx (Debian) or docker-buildx-plugin",
        ),
    ]
    if not answer:
        return checks
    return [*checks, _check_image_store(machine.runner), _check_prepared()]


def _check_headers(machine: Host) -> Check:
    """Look for the headers that programs include; a checkout fetches them when it first compiles."""
    advice = "the first compilation fetches them from Debian; a release's wheel carries them"
    try:
        found = find_headers(machine.environ)
    except BuildtoolError as error:
        return _check("headers", Use.OPTIONAL, ok=False, found=error.message, advice=advice)
    text = ", ".join(f"{name} {version}" for name, version in found.packages.items()) if found else "none"
    return _check("headers", Use.OPTIONAL, found is not None, text, advice)


def _check_carried(machine: Host) -> Check:
    """Check the parts of images that the local engine needs. A damaged part counts as missing."""
    here = host_platform(platform.machine())
    wanted = machine.architectures or ((here.arch,) if here else ())
    finders = (
        (find_loader, find_tini, find_base) if machine.base == DEFAULT_BASE else (find_loader, find_tini)
    )
    advice = f"the first build links them; it needs a compiler: {INSTALL_COMPILER}"
    whole, errors = [], {}
    try:
        data = find_parts(machine.environ)
    except ConfigError as error:  # of a variable, which linking does not mend
        return _check(
            "carried loaders", Use.LOCAL, ok=False, found=error.message, advice=error.hint or advice
        )
    for arch in PLATFORMS:
        try:
            for find in finders:
                find(PLATFORMS[arch], data)
            whole.append(arch)
        except BuildtoolError as error:
            errors[arch] = error.message
    lacking = next((errors[arch] for arch in wanted if arch in errors), "")
    ok = bool(wanted) and not lacking
    found = lacking or ", ".join(whole) or "none"
    # No build writes into a directory that a variable names.
    if lacking and named_directory(machine.environ) is None:
        have = ", ".join(whole) or "none"
        try:
            compiler = check_linkable(machine.environ, machine.runner)
            found, ok = f"{have}; the first build links them, with {compiler} and packages of Debian", True
        except BuildtoolError as error:
            found = f"{have}, and this machine cannot link them: {error.message}"
            advice = error.hint or advice
    return _check("carried loaders", Use.LOCAL, ok, found, advice)


def _check_image_store(runner: Runner) -> Check:
    _, said = _ask(runner, ["docker", "info", "--format", "{{json .DriverStatus}}"])
    ok = "io.containerd.snapshotter" in said
    advice = 'for images of several platforms: "features": {"containerd-snapshotter": true} in daemon.json'
    return _check("containerd image store", Use.OPTIONAL, ok, "in use" if ok else "not in use", advice)


def _check_prepared() -> Check:
    try:
        found = find_prepared()
    except BuildtoolError as error:
        return _check("prepared images", Use.OPTIONAL, ok=False, found=error.message)
    text = f"{found.builder}, {found.base} for {', '.join(found.platforms)}" if found else "none"
    advice = "where images cannot be pulled: buildtool images prepare"
    return _check("prepared images", Use.OPTIONAL, found is not None, text, advice)


def _check_kernel() -> Check:
    release, machine = platform.release(), platform.machine()
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    known = host_platform(machine)
    found = f"{release} on {machine}"
    if known is None:
        return _check(
            "kernel", Use.LOAD, ok=False, found=found, advice="no loader is made for this architecture"
        )
    least = ".".join(map(str, MIN_KERNEL))
    return _check("kernel", Use.LOAD, numbers >= MIN_KERNEL, found, f"programs need Linux {least} or newer")


def _check_btf(root: Path) -> Check:
    path = root / "sys/kernel/btf/vmlinux"
    found = _try(lambda: f"{path.stat().st_size} bytes")
    advice = "a kernel with CONFIG_DEBUG_INFO_BTF=y: programs that read kernel structures need it"
    return _check("kernel BTF", Use.LOAD, bool(found), found or f"no {path}", advice)


def _check_bpffs(root: Path) -> Check:
    mounts = _try(lambda: (root / "proc/mounts").read_text(encoding="utf-8", errors="replace"))
    places = [
        fields[1] for line in mounts.splitlines() if len(fields := line.split()) > 2 and fields[2] == "bpf"
    ]
    advice = "mount -t bpf bpf /sys/fs/bpf; only pinned maps need it"
    return _check("bpffs", Use.OPTIONAL, bool(places), ", ".join(places) or "not mounted", advice)


def _check_capabilities(root: Path) -> Check:
    status = _try(lambda: (root / "proc/self/status").read_text(encoding="utf-8", errors="replace"))
    line = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    bits = int(line[1], 16) if line else 0
    have = [name for name, bit in CAPABILITIES.items() if bits >> bit & 1]
    # CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON.
    ok = "NET_ADMIN" in have and ("SYS_ADMIN" in have or {"BPF", "PERFMON"} <= set(have))
    advice = "run as root; a container needs --cap-add BPF, NET_ADMIN (network) and PERFMON (tracing)"
    return _check(
        "capabilities", Use.LOAD, ok, ", ".join(have) or "none of " + ", ".join(CAPABILITIES), advice
    )


def _check_lsm(root: Path) -> Check:
    path = root / "sys/kernel/security/lsm"
    names = _try(lambda: path.read_text(encoding="ascii", errors="replace").strip())
    advice = "boot with lsm=...,bpf; only an in-kernel guard against unsigned programs needs it"
    return _check("BPF LSM", Use.OPTIONAL, "bpf" in names.split(","), names or f"no {path}", advice)


def _check_unprivileged(root: Path) -> Check:
    path = root / "proc/sys/kernel/unprivileged_bpf_disabled"
    value = _try(lambda: path.read_text(encoding="ascii", errors="replace").strip())
    advice = "sysctl kernel.unprivileged_bpf_disabled=2: else every user may load programs past this one"
    return _check("unprivileged BPF off", Use.OPTIONAL, value in ("1", "2"), value or f"no {path}", advice)


def _check(name: str, use: Use, ok: bool, found: str, advice: str = "") -> Check:  # noqa: FBT001 - a table's row
    return Check(name=name, needed_for=use, ok=ok, found=found, advice="" if ok else advice)


def _ask(runner: Runner, argv: list[str]) -> tuple[bool, str]:
    """Run *argv*. Return whether it succeeded, and the first line of its output or error."""
    try:
        done = runner.run(argv, check=False)
    except BuildtoolError as error:
        return False, error.message
    text = (done.stdout if done.returncode == 0 else done.stderr).decode(errors="replace").strip()
    return done.returncode == 0 and bool(text), text.partition("\n")[0]


def _try(look: Callable[[], str]) -> str:
    try:
        return look()
    except OSError:
        return ""
