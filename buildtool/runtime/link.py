# SPDX-License-Identifier: Apache-2.0
"""
Make the parts that `carried` finds: static programs for each platform, tini and the base layer.

The inputs are loader/ and unpacked Debian packages. The compiler is the builder image's, so that
both engines ship the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from buildtool.compile.toolchain import Toolchain, clean_environment, find_toolchain
from buildtool.core.digests import Digest
from buildtool.core.errors import (
    BuildtoolError,
    FileAccessError,
    ObjectFormatError,
    ToolFailedError,
    ToolMissingError,
)
from buildtool.core.files import hold_lock, make_directory, read_bounded, write_atomic
from buildtool.core.platforms import DEBIAN_13, PLATFORMS, Platform
from buildtool.core.process import Runner
from buildtool.core.resources import resource_path
from buildtool.runtime import debian
from buildtool.runtime.apt import PackageSource, linking_packages
from buildtool.runtime.baselayer import base_layer, read_tini
from buildtool.runtime.carried import (
    LIBBPF_FROM,
    LIBBPF_NAME,
    LINKED_FROM,
    LIST_VERSION,
    MAX_PART_BYTES,
    libbpf_digest,
    list_path,
    loader_digest,
    part_path,
    read_libbpf_version,
    read_list,
)
from buildtool.runtime.debian import Archive, Package
from buildtool.runtime.packagelock import LockedPackage, PackageLock, make_lock, read_lock

# The compiler of the Debian release from which the builder image is made.
CLANG_MAJOR = 19
INSTALL_COMPILER = f"apt-get install clang-{CLANG_MAJOR} lld-{CLANG_MAJOR} llvm-{CLANG_MAJOR}"
_SUITE = "trixie"
_NEXT_SUITE = "sid"  # for architectures that trixie lacks
_TINI = {"trixie": "tini", "sid": "tini-static"}
_PT_INTERP = 3

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsRequest:
    """
    A request for parts of *platforms* in directory *data*. Packages are kept in directory *cache*.

    *mirror* replaces this machine's Debian mirror. A key in *keyring* must have signed the archive.
    With *update*, packages are downloaded again. *lock* names the versions, by default those of
    tools/packages.lock.
    """

    platforms: tuple[Platform, ...]
    data: Path
    cache: Path
    mirror: str | None = None
    keyring: Path = debian.KEYRING
    update: bool = False
    lock: PackageLock = field(default_factory=read_lock)
    report: Report = field(default=lambda _: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeParts:
    """The result of a run: the platforms *made*, and the error of each platform that *failed*."""

    made: tuple[Platform, ...]
    failed: Mapping[Platform, BuildtoolError]


def make_parts(request: PartsRequest, *, runner: Runner | None = None) -> MadeParts:
    """
    Make all parts that are missing, or that were made from other sources or another lock.

    A platform that fails does not stop the others. Its error is in the result.

    Raises: ToolMissingError, ConfigError, FileAccessError.
    """
    runner = runner or Runner()
    toolchain = _find_compiler(runner)
    make_directory(request.cache)
    made: list[Platform] = []
    failed: dict[Platform, BuildtoolError] = {}
    with hold_lock(request.cache / "lock"):
        for platform in request.platforms:
            if not request.update and _is_current(request, platform, toolchain):
                continue
            request.report(f"make the loader for {platform.arch}")
            try:
                _publish(request.data, platform, _make(request, platform, toolchain, runner))
                made.append(platform)
            except (ToolFailedError, ObjectFormatError) as error:
                failed[platform] = error
    return MadeParts(made=tuple(made), failed=failed)


def lock_packages(request: PartsRequest, *, runner: Runner | None = None) -> tuple[PackageLock, MadeParts]:
    """
    Return a lock of the versions in the mirror's present lists, and the platforms of those lists.

    A platform without lists keeps its entries of *request.lock*.

    Raises: ToolMissingError, ConfigError, FileAccessError.
    """
    runner = runner or Runner()
    make_directory(request.cache)
    found: list[LockedPackage] = []
    made: list[Platform] = []
    failed: dict[Platform, BuildtoolError] = {}
    with hold_lock(request.cache / "lock"):
        for platform in request.platforms:
            source = _package_source(request, platform, runner)
            request.report(f"read the package list of Debian {source.archive.suite} for {platform.debian}")
            try:
                found += _list_present(source)
                made.append(platform)
            except ToolFailedError as error:
                failed[platform] = error
    replaced = {platform.debian for platform in made}
    kept = [each for each in request.lock.packages.values() if each.architecture not in replaced]
    return make_lock([*kept, *found]), MadeParts(made=tuple(made), failed=failed)


def _list_present(source: PackageSource) -> list[LockedPackage]:
    source.update()
    names = [*linking_packages(source), *_other_packages(source.archive.suite)]
    listed = source.list_versions(names)
    if lacking := [name for name, versions in listed.items() if not versions]:
        raise ToolFailedError(
            f"Debian {source.archive.suite} {source.architecture} has no package {', '.join(lacking)}"
        )
    return [versions[0] for versions in listed.values()]


def check_tools(runner: Runner) -> str:
    """
    Return the compiler that would link the parts, after checking that this machine has all programs for it.

    The packages of Debian are not fetched, so a build may still find that no mirror answers.

    Raises: ToolMissingError, ToolFailedError; ConfigError, if this machine's mirror is unknown.
    """
    compiler = _find_compiler(runner)
    for name in ("apt-get", "dpkg-deb"):
        if shutil.which(name) is None:
            raise ToolMissingError(f"{name}: not found", hint="link the loader on a Debian machine")
    debian.find_system_mirror()
    return compiler.name


def find_linker(toolchain: Toolchain | None) -> str:
    """Return the path of lld, beside *toolchain* or in PATH, or empty text."""
    beside = str(Path(toolchain.clang).resolve().parent / "ld.lld") if toolchain else "ld.lld"
    return shutil.which(beside) or shutil.which("ld.lld") or ""


def _find_compiler(runner: Runner) -> Toolchain:
    try:
        found = find_toolchain(f"clang-{CLANG_MAJOR}", runner=runner)
    except ToolMissingError:
        found = find_toolchain(runner=runner)
    if found.major != CLANG_MAJOR:
        raise ToolMissingError(
            f"clang {CLANG_MAJOR} is needed, another makes other bytes than the builder image",
            hint=INSTALL_COMPILER,
        )
    if not find_linker(found):
        raise ToolMissingError("lld: not found", hint=INSTALL_COMPILER)
    return found


def _is_current(request: PartsRequest, platform: Platform, toolchain: Toolchain) -> bool:
    try:
        entry = read_list(request.data)[platform.arch]
        digests = {
            kind: hashlib.sha256(read_bounded(part_path(request.data, kind, platform.arch), MAX_PART_BYTES))
            for kind in entry
        }
        same = all(digest.hexdigest() == entry[kind]["sha256"] for kind, digest in digests.items())
        # Compare the lines of the lock instead of the packages, because a mirror may have lacked a version.
        lock = _lock_digest(request, platform)
        locked = all(entry[kind]["lock"] == lock for kind in (*LINKED_FROM, "tini", "base"))
        made = {kind: (entry[kind]["source"], entry[kind]["compiler"]) for kind in _source_digests()}
        wanted = {kind: (digest, toolchain.name) for kind, digest in _source_digests().items()}
        return same and locked and made == wanted
    except (FileAccessError, KeyError, TypeError):
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """The bytes of a part, and its *record* in the list."""

    data: bytes
    record: dict[str, Any]


def _make(
    request: PartsRequest, platform: Platform, toolchain: Toolchain, runner: Runner
) -> dict[str, _Made]:
    source = _package_source(request, platform, runner)
    suite, place = source.archive.suite, source.state.parent
    packages, libraries = _fetch(request, source, place)
    tinis = [package for package in packages if package.name == _TINI[suite]]
    tini, _ = read_tini(tinis, platform, runner)
    base = base_layer(packages, platform, runner)
    assert base.data is not None
    used = _list_packages((package for package in packages if package not in tinis), platform)
    origin = {"suite": suite, "lock": _lock_digest(request, platform)}
    made = {
        "tini": _Made(data=tini, record={**origin, "packages": _list_packages(tinis, platform)}),
        "base": _Made(data=base.data, record={**origin, "packages": used, "diff_id": base.diff_id}),
    }
    linked = (package for package in libraries if package.name != debian.HEADER_PACKAGE)
    how = {
        **origin,
        "compiler": toolchain.name,
        "packages": _list_packages(linked, platform),
        "vendored": {"libbpf": {"version": read_libbpf_version(), "sha256": libbpf_digest()}},
    }
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        linker = _Linker(
            platform=platform,
            start=(toolchain.clang, "--no-default-config", f"--target={platform.triple}"),
            sysroot=place / "sysroot",
            libbpf=Path(work, LIBBPF_NAME),
            runner=runner,
        )
        linker.compile_libbpf()
        for kind, digest in _source_digests().items():
            program = linker.link(LINKED_FROM[kind], Path(work, kind))
            made[kind] = _Made(data=program, record={**how, "source": digest})
    return made


def _suite_of(platform: Platform) -> str:
    return _SUITE if platform.arch in DEBIAN_13 else _NEXT_SUITE


def _lock_digest(request: PartsRequest, platform: Platform) -> Digest:
    """Return the digest of the lock's lines for *platform*."""
    return request.lock.digest(_suite_of(platform), platform.debian)


def _package_source(request: PartsRequest, platform: Platform, runner: Runner) -> PackageSource:
    suite = _suite_of(platform)
    mirror = request.mirror or debian.find_system_mirror()
    return PackageSource(
        archive=Archive(suite=suite, mirror=mirror, keyring=request.keyring),
        architecture=platform.debian,
        state=request.cache / f"{suite}-{platform.debian}" / "apt",
        lock=request.lock,
        report=request.report,
        runner=runner,
    )


def _other_packages(suite: str) -> list[str]:
    """Return the names of the packages of base and tini, which are not linked."""
    return [*debian.BASE_PACKAGES, *debian.BASE_PACKAGES_PER_ARCH, _TINI[suite]]


def _fetch(request: PartsRequest, source: PackageSource, place: Path) -> tuple[list[Package], list[Package]]:
    """Return the packages of base and tini, and those for linking, which are also unpacked."""
    suite = source.archive.suite
    stamp, debs, libraries, sysroot = (place / name for name in ("complete", "debs", "libraries", "sysroot"))
    others = _other_packages(suite)
    # The name of libgcc's package may need the package lists, so the stamp covers it by the lock's digest.
    wanted = " ".join(
        (
            source.archive.shown,
            source.lock.digest(suite, source.architecture),
            *debian.CROSS_PACKAGES,
            *others,
        )
    )
    if request.update or not stamp.exists() or stamp.read_text("utf-8") != wanted:
        request.report(f"download Debian {suite} packages for {source.architecture}")
        stamp.unlink(missing_ok=True)
        for directory in (debs, libraries, sysroot):
            shutil.rmtree(directory, ignore_errors=True)
        source.update()
        source.download(others, debs)
        # Unpack only the packages for linking.
        source.unpack_files(source.download(linking_packages(source), libraries), sysroot)
        write_atomic(stamp, wanted.encode())
    return debian.read_packages(debs, source.runner), debian.read_packages(libraries, source.runner)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Linker:
    """Compiles and links for *platform* with the command *start*, the libraries in *sysroot* and *libbpf*."""

    platform: Platform
    start: tuple[str, ...]
    sysroot: Path
    libbpf: Path
    runner: Runner

    def compile_libbpf(self) -> None:
        """Make the relocatable object file of libbpf, which all programs of the platform share."""
        self._run(*LIBBPF_FROM, "-o", str(self.libbpf))

    def link(self, sources: Sequence[str], output: Path) -> bytes:
        """Return the static program of *sources*, which stays at *output*."""
        self._run(self.platform.static_option, str(self.libbpf), *sources, "-o", str(output))
        program = read_bounded(output, MAX_PART_BYTES)
        check_static(program, self.platform)
        return program

    def _run(self, *arguments: str) -> None:
        argv = [*self.start, f"--sysroot={self.sysroot}", *arguments]
        self.runner.run(argv, cwd=resource_path("loader"), env=clean_environment())


def check_static(program: bytes, platform: Platform) -> None:
    """
    Refuse a program of another architecture, or one that requires a dynamic linker.

    Raises: ToolFailedError.
    """
    order: Literal["little", "big"] = "little" if platform.little_endian else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(program[at : at + size], order)

    if program[:4] != b"\x7fELF" or number(18, 2) != platform.elf_machine:
        raise ToolFailedError(f"the linker made no program for {platform.arch}")
    table, entry, count = (number(32, 8), 54, 56) if program[4] == 2 else (number(28, 4), 42, 44)
    types = {number(table + index * number(entry, 2), 4) for index in range(number(count, 2))}
    if _PT_INTERP in types:
        raise ToolFailedError(f"the linker made a program for {platform.arch} that is not static")


def _publish(data: Path, platform: Platform, made: dict[str, _Made]) -> None:
    """Write the parts of *platform*, then the list, so that the parts of an interrupted run are not used."""
    entry = {}
    for kind, part in made.items():
        path = part_path(data, kind, platform.arch)
        make_directory(path.parent)
        write_atomic(path, part.data, mode=0o644 if kind == "base" else 0o755)
        digest = hashlib.sha256(part.data).hexdigest()
        entry[kind] = {"sha256": digest, "size": len(part.data), **part.record}
    try:
        entries = read_list(data)
    except FileAccessError:
        entries = {}
    entries = {arch: entries[arch] for arch in PLATFORMS if arch in entries} | {platform.arch: entry}
    text = json.dumps({"version": LIST_VERSION, "platforms": entries}, indent=1, sort_keys=True)
    write_atomic(list_path(data), text.encode() + b"\n")


def _list_packages(packages: Iterable[Package], platform: Platform) -> dict[str, dict[str, str]]:
    listed = {}
    for package in packages:
        version = re.search(rb"^Version: (.*)$", package.control, re.MULTILINE)
        digest = hashlib.sha256(read_bounded(package.path, MAX_PART_BYTES)).hexdigest()
        listed[package.name] = {"version": version[1].decode() if version else "", "sha256": digest}
        if package.architecture not in ("all", platform.debian):
            listed[package.name]["architecture"] = package.architecture
    return dict(sorted(listed.items()))


def _source_digests() -> dict[str, Digest]:
    return dict.fromkeys(LINKED_FROM, loader_digest())
