# SPDX-License-Identifier: Apache-2.0
"""
Find kernels for virtual machines: Debian's by name, or a file.

A kernel is downloaded once, with its modules and a static busybox, into a cache directory that
several processes may share.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from buildtool.core.cache import tools_directory
from buildtool.core.errors import (
    ConfigError,
    FileAccessError,
    PackageUnavailableError,
    ToolFailedError,
    UsageError,
    VmError,
    system_reason,
)
from buildtool.core.files import make_directory, read_bounded
from buildtool.core.platforms import MACHINES, PLATFORMS, find_platform, host_platform
from buildtool.core.process import Runner
from buildtool.runtime.apt import CHECK_NETWORK, PackageSource
from buildtool.runtime.debian import Archive, find_system_mirror

# Kernels of Debian's releases. newest is the kernel of Debian unstable.
SUITES: Mapping[str, str] = MappingProxyType({"6.1": "bookworm", "6.12": "trixie", "newest": "sid"})
# A kernel image is larger than its header.
MIN_IMAGE_BYTES = 0x210
# Dependencies of a kernel's package that hold the kernel or a part of it.
_PARTS = re.compile(r"linux-(image|binary|modules|base)-[a-z0-9.+-]+")
_RECORD = "kernel.json"
_ELF = b"\x7fELF"
# Magic bytes of images, with their offsets (Linux Documentation/arch/*/boot*.rst). s390x: the initial PSW.
_MAGICS = (
    ("amd64", 0x202, b"HdrS"),
    ("arm64", 0x38, b"ARM\x64"),
    ("riscv64", 0x38, b"RSC\x05"),
    ("arm", 0x24, b"\x18\x28\x6f\x01"),
    ("s390x", 0, b"\x00\x08\x00\x00\x80"),
    # EFI images, compressed ones and those of U-Boot do not name their architecture.
    ("", 0, b"MZ"),
    ("", 0, b"\x1f\x8b\x08"),
    ("", 0, b"\x27\x05\x19\x56"),
)
_ET_REL = 1  # objects of compilers, and kernel modules
_BTF_MAGICS = (b"\x9f\xeb\x01", b"\xeb\x9f\x01")

_IMAGE_HINT = f"--kernel takes host, {', '.join(SUITES)}, or the file of a kernel image (bzImage, Image)"
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """
    A kernel to boot: *image* for QEMU, *modules* (lib/modules/RELEASE, or None), a static *busybox*.

    *name* and *arch* are those of the request. *release* is the output of uname -r, or empty if
    unknown.
    """

    name: str
    arch: str
    release: str
    image: Path
    modules: Path | None
    busybox: Path


def find_kernel(
    name: str,
    arch: str,
    cache: Path | None = None,
    on_progress: Progress = lambda _: None,
    *,
    modules: Path | None = None,
    runner: Runner | None = None,
) -> Kernel:
    """
    Return the kernel *name*: a key of SUITES, or the path of an image with its *modules*.

    A kernel that *cache* lacks is downloaded. *on_progress* receives a line for each slow step.

    Raises: UsageError, ConfigError, FileAccessError, ToolMissingError, ToolFailedError, VmError.
    """
    arch = find_platform(arch).arch
    store = _Store(cache=cache or tools_directory(), on_progress=on_progress, runner=runner or Runner())
    if name in SUITES:
        if not has_kernel(name, arch):
            names = [other for other in SUITES if has_kernel(other, arch)]
            raise UsageError(
                f"Debian has no kernel {name} for {arch}", hint="choose from " + ", ".join(names)
            )
        return store.debian_kernel(name, arch)
    if "/" not in name and not (name and Path(name).exists()):
        raise UsageError(
            f"unknown kernel {name!r}",
            hint=f"choose from host, {', '.join(SUITES)}, or name the file of a kernel image",
        )
    return Kernel(
        name=name,
        arch=arch,
        release=modules.name if modules else "",
        image=_check_image(Path(name), arch),
        modules=modules,
        busybox=store.busybox(arch),
    )


def image_arch(path: Path) -> str:
    """
    Return the architecture of kernel image *path*, or empty text if unknown.

    Raises: FileAccessError, also for a file that is no kernel image.
    """
    if path.is_dir():
        raise FileAccessError(f"{path}: a directory, not a file", hint=_IMAGE_HINT)
    head = read_bounded(path, MIN_IMAGE_BYTES)
    if head.startswith(_BTF_MAGICS):
        raise FileAccessError(f"{path}: BTF, not a kernel image: a dry run boots a kernel", hint=_IMAGE_HINT)
    found: str | None = None
    if head.startswith(_ELF):
        kind, machine = (_read_number(head, at) for at in (16, 18))
        if kind != _ET_REL:
            found = next((p.arch for p in PLATFORMS.values() if p.elf_machine == machine), None)
    elif len(head) >= MIN_IMAGE_BYTES:
        found = next((arch for arch, at, magic in _MAGICS if head.startswith(magic, at)), None)
    if found is None:
        raise FileAccessError(f"{path}: not a kernel image", hint=_IMAGE_HINT)
    return found


def _read_number(head: bytes, at: int) -> int:
    """Return the 16-bit number at offset *at* of an ELF header."""
    return int.from_bytes(head[at : at + 2], "little" if head[5:6] == b"\x01" else "big")


def _check_image(path: Path, arch: str) -> Path:
    found = image_arch(path)
    if found not in ("", arch):
        raise UsageError(f"{path}: a kernel for {found}, not for {arch}", hint=f"add --arch {found}")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Store:
    """The directory *cache*. Each entry is made under a lock in a temporary directory, then renamed."""

    cache: Path
    on_progress: Progress
    runner: Runner

    def debian_kernel(self, name: str, arch: str) -> Kernel:
        suite = SUITES[name]
        place = self.cache / f"kernel-{suite}-{arch}"
        self._ensure(place, lambda work: self._fetch_kernel(work, suite, arch))
        record = _read_record(place)
        return Kernel(
            name=name,
            arch=arch,
            release=record["release"],
            image=place / record["image"],
            modules=place / record["modules"],
            busybox=place / "busybox",
        )

    def busybox(self, arch: str) -> Path:
        """Return a static busybox: that of a cached kernel, or of this machine, or a downloaded one."""
        for suite in SUITES.values():
            found = self.cache / f"kernel-{suite}-{arch}" / "busybox"
            if found.exists():
                return found
        own = Path("/bin/busybox")
        if find_own_arch() == arch and own.exists() and is_static(own):
            return own
        place = self.cache / f"busybox-{arch}"
        suite = next(suite for name, suite in SUITES.items() if has_kernel(name, arch))

        def fill(work: Path) -> None:
            self._fetch_busybox(self._source(work, suite, arch), work)

        self._ensure(place, fill)
        return place / "busybox"

    def _ensure(self, place: Path, fill: Callable[[Path], None]) -> None:
        """Make directory *place*, filled by *fill*, unless it exists. Only one process makes it."""
        if place.exists():
            return
        make_directory(self.cache)
        with self._locked(place.name):
            if place.exists():
                return
            try:
                with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=self.cache) as work:
                    made = Path(work, "made")
                    made.mkdir()
                    fill(made)
                    made.rename(place)
            except OSError as error:
                raise FileAccessError(f"{place}: cannot write: {system_reason(error)}") from error

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        try:
            descriptor = os.open(self.cache / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise FileAccessError(f"{self.cache}: cannot write: {system_reason(error)}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.on_progress(f"wait for another process that fetches {name}")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _source(self, work: Path, suite: str, arch: str) -> PackageSource:
        try:
            mirror = find_system_mirror()
        except ConfigError as error:
            error.hint = "Debian kernels come through this machine's apt sources; otherwise name a file"
            raise
        architecture = find_platform(arch).debian
        source = PackageSource(
            archive=Archive(suite=suite, mirror=mirror),
            architecture=architecture,
            # In the temporary directory, so that apt's state is removed with it.
            state=work.parent / "apt",
            report=self.on_progress,
            runner=self.runner,
        )
        self.on_progress(f"read the package lists of Debian {suite} for {architecture}")
        try:
            source.update()
        except ToolFailedError as error:
            if error.hint == CHECK_NETWORK:
                error.hint += (
                    f"; without one, bring {self.cache} from another machine, or name a kernel's file"
                )
            raise
        return source

    def _fetch_kernel(self, work: Path, suite: str, arch: str) -> None:
        source, tree = self._source(work, suite, arch), work / "tree"
        try:
            packages = self._unpack_kernel(source, tree, arch)
        except PackageUnavailableError as error:
            packages = self._unpack_under_alias(source, tree, arch, error)
        self._fetch_busybox(source, work)
        record = _sort_tree(tree, work)
        shutil.rmtree(tree)
        (work / _RECORD).write_text(json.dumps({**record, "packages": packages}, indent=1) + "\n")

    def _unpack_under_alias(
        self, source: PackageSource, tree: Path, arch: str, cause: PackageUnavailableError
    ) -> list[str]:
        """Unpack the kernel of the suite's alias, whose packages have the version in their names."""
        alias = source.under_alias()
        if alias is None:
            raise cause
        self.on_progress(f"{cause.message}; read the package lists of the alias {alias.archive.name}")
        try:
            alias.update()
            return self._unpack_kernel(alias, tree, arch)
        except PackageUnavailableError:
            raise cause from None

    def _unpack_kernel(self, source: PackageSource, tree: Path, arch: str) -> list[str]:
        """Unpack the packages of the kernel for *arch*, and return their names."""
        packages = _kernel_packages(source, f"linux-image-{MACHINES[arch].flavour}")
        self.on_progress(
            "download " + next((name for name in packages if re.search(r"-\d", name)), packages[0])
        )
        source.unpack(packages, tree)
        return packages

    def _fetch_busybox(self, source: PackageSource, work: Path) -> None:
        tree = work / "busybox-tree"
        self.on_progress("download busybox-static")
        source.unpack(["busybox-static"], tree)
        found = next((path for path in sorted(tree.rglob("busybox")) if is_static(path)), None)
        if found is None:
            raise VmError("Debian's busybox-static has no static busybox")
        found.rename(work / "busybox")
        shutil.rmtree(tree)


def has_kernel(name: str, arch: str) -> bool:
    """Return whether Debian has kernel *name* (a key of SUITES) for *arch*."""
    suites = list(SUITES.values())
    return suites.index(SUITES[name]) >= suites.index(MACHINES[arch].since)


def find_own_arch() -> str:
    """Return the architecture of this machine, or empty text if the table lacks it."""
    found = host_platform(os.uname().machine)
    return found.arch if found else ""


def is_static(path: Path) -> bool:
    """Return whether *path* is a regular ELF file without a dynamic linker."""
    try:
        if not path.is_file() or path.is_symlink():
            return False
        data = path.read_bytes()
    except OSError:
        return False
    return data.startswith(_ELF) and b"/ld-linux" not in data[:4096] and b"/ld64" not in data[:4096]


def _kernel_packages(source: PackageSource, package: str) -> list[str]:
    """Return *package* and those of its dependencies that hold parts of the kernel."""
    order, waiting = [], [package]
    while waiting:
        name = waiting.pop()
        if name in order:
            continue
        order.append(name)
        fields = source.describe(name)
        depends = f"{fields.get('Depends', '')},{fields.get('Pre-Depends', '')}"
        words = [part.split()[0] for part in depends.split(",") if part.strip()]
        waiting += [word for word in words if _PARTS.fullmatch(word)]
    return order


def _sort_tree(tree: Path, work: Path) -> dict[str, str]:
    """Move kernel image and modules of the unpacked *tree* into *work*, and return their names."""
    modules = next((path for path in sorted(tree.glob("**/lib/modules/*")) if path.is_dir()), None)
    images = sorted(path for path in tree.rglob("vmlinu[xz]*") if path.is_file())
    if modules is None or not images:
        raise VmError("Debian's kernel package: unknown layout")
    image = images[0].rename(work / "vmlinuz")
    modules.rename(work / modules.name)
    return {"release": modules.name, "image": image.name, "modules": modules.name}


def _read_record(place: Path) -> dict[str, str]:
    try:
        record = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        return {key: str(record[key]) for key in ("release", "image", "modules")}
    except (OSError, ValueError, KeyError) as error:
        raise FileAccessError(
            f"{place}: damaged", hint=f"rm -r {place}; the next run fetches it again"
        ) from error
