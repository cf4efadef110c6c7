# SPDX-License-Identifier: Apache-2.0
"""
Make `vmlinux.h`, the types of a kernel, from BTF or from Debian's package linux-bpf-dev.

bpftool, a package of Debian, writes C from BTF with libbpf's own code. A writer here would be a second
implementation of libbpf's rules about order, padding and names.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from buildtool.compile.kerneltypes import HEADER_NAME, MAX_HEADER_BYTES, KernelTypes
from buildtool.core.errors import FileAccessError, ToolFailedError, ToolMissingError, UsageError
from buildtool.core.files import make_directory, read_bounded
from buildtool.core.platforms import DEBIAN_13, Platform
from buildtool.core.process import Runner, check_operand
from buildtool.runtime.apt import PackageSource
from buildtool.runtime.debian import KEYRING, Archive, check_options, find_system_mirror

PACKAGE = "linux-bpf-dev"
MAX_BTF_BYTES = 1024 * 1024 * 1024  # a kernel with its debug information
_ELF_MAGIC, _BTF_MAGIC = b"\x7fELF", (b"\x9f\xeb", b"\xeb\x9f")

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageRequest:
    """
    Where types of Debian come from: a *mirror* (None: this machine's) signed by a key in *keyring*.

    *cache* keeps the lists of packages. *report* receives a line about each download.
    """

    cache: Path
    mirror: str | None = None
    keyring: Path = KEYRING
    report: Report = field(default=lambda _: None)


def types_of_package(platform: Platform, request: PackageRequest, *, runner: Runner) -> KernelTypes:
    """
    Return the types of Debian's kernel for *platform*: of release 13, or of sid where that lacks it.

    Raises: ToolMissingError, ToolFailedError, PackageUnavailableError, ConfigError, FileAccessError.
    """
    suite = "trixie" if platform.arch in DEBIAN_13 else "sid"
    mirror = request.mirror or find_system_mirror()
    check_options(suite, mirror)
    state = request.cache / f"{suite}-{platform.debian}-types"
    make_directory(state)
    source = PackageSource(
        archive=Archive(suite=suite, mirror=mirror, keyring=request.keyring),
        architecture=platform.debian,
        state=state,
        report=request.report,
        runner=runner,
    )
    request.report(f"download {PACKAGE} for {platform.arch} from Debian {suite}")
    source.update()
    with tempfile.TemporaryDirectory(prefix="types-", dir=state) as work:
        (deb,) = source.download([PACKAGE], Path(work))
        source.unpack_files([deb], Path(work, "files"))
        found = sorted(Path(work, "files/usr/include").rglob(HEADER_NAME))
        if len(found) != 1:
            raise ToolFailedError(
                f"{PACKAGE} for {platform.arch}: has no {HEADER_NAME}",
                hint="--btf makes the types of a kernel's file",
            )
        data = _bounded(found[0])
        digest = hashlib.sha256(read_bounded(deb, MAX_HEADER_BYTES)).hexdigest()
        version = source.list_versions([PACKAGE])[PACKAGE]
        named = next((each.version for each in version if each.sha256 == digest), "of another list")
    return KernelTypes(data=data, source=f"{PACKAGE} {named}", source_sha256=digest)


def types_of_btf(path: Path, platform: Platform, *, runner: Runner) -> KernelTypes:
    """
    Return the types in file *path*: a kernel (vmlinux) with BTF for *platform*, or BTF alone.

    Raises: FileAccessError, UsageError, ToolMissingError, ToolFailedError.
    """
    check_operand(str(path))
    _check_file(path, platform)
    command = ["bpftool", "btf", "dump", "file", str(path), "format", "c"]
    try:
        data = runner.run(command).stdout
    except ToolMissingError as error:
        hint = "install bpftool (Debian: apt install bpftool), or leave --btf out for Debian's types"
        raise ToolMissingError(error.message, hint=hint) from error
    except ToolFailedError as error:
        raise ToolFailedError(
            f"{path}: bpftool reads no BTF in it",
            hint="--btf requires vmlinux with .BTF",
            detail=error.detail,
        ) from error
    if len(data) > MAX_HEADER_BYTES:
        raise FileAccessError(f"{path}: types of more than {MAX_HEADER_BYTES} bytes")
    # The name alone, because the record must not depend on a machine's directories.
    return KernelTypes(data=data, source=path.name, source_sha256=_digest(path))


def _check_file(path: Path, platform: Platform) -> None:
    head = read_bounded(path, 20)
    if head[:2] in _BTF_MAGIC:
        if (head[:2] == _BTF_MAGIC[0]) != platform.little_endian:
            raise UsageError(
                f"{path}: BTF of the other byte order than {platform.arch}",
                hint="name its architecture by --arch",
            )
        return
    if not head.startswith(_ELF_MAGIC):
        raise UsageError(
            f"{path}: neither BTF nor an uncompressed kernel (vmlinux)",
            hint="scripts/extract-vmlinux of Linux unpacks a vmlinuz; /sys/kernel/btf/vmlinux is BTF",
        )
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    if machine != platform.elf_machine:
        raise UsageError(
            f"{path}: a file for another machine than {platform.arch}: ELF machine {machine}",
            hint="name its architecture by --arch",
        )


def _digest(path: Path) -> str:
    data = read_bounded(path, MAX_BTF_BYTES)
    if len(data) > MAX_BTF_BYTES:
        raise FileAccessError(f"{path}: larger than {MAX_BTF_BYTES} bytes")
    return hashlib.sha256(data).hexdigest()


def _bounded(path: Path) -> bytes:
    data = read_bounded(path, MAX_HEADER_BYTES)
    if len(data) > MAX_HEADER_BYTES:
        raise FileAccessError(f"{path.name}: larger than {MAX_HEADER_BYTES} bytes")
    return data
