# SPDX-License-Identifier: Apache-2.0
"""QEMU's programs that run one program of another architecture (`qemu-user`)."""

from __future__ import annotations

import platform as host
import subprocess
from pathlib import Path

from buildtool.core.platforms import Platform, host_platform
from buildtool.runtime.apt import PackageSource
from buildtool.runtime.debian import Archive, find_system_mirror
from labs import TOP

# Debian's, of the release that knows every processor here: a loong64 program needs QEMU 8 or newer.
QEMU = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "arm": "arm",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "ppc64le": "ppc64le",
    "loong64": "loongarch64",
}


def provide_emulators() -> Path:
    """Return a directory with the emulators, downloaded once; they are static themselves."""
    directory = TOP / ".cache/qemu-user"
    programs = [directory / "usr/bin" / f"qemu-{name}" for name in QEMU.values()]
    if all(program.exists() for program in programs):
        return directory / "usr/bin"
    own = host_platform(host.machine())
    assert own is not None
    source = PackageSource(
        archive=Archive(suite="trixie", mirror=find_system_mirror()),
        architecture=own.debian,
        state=directory / "apt",
    )
    source.update()
    (package,) = source.download(["qemu-user"], directory / "debs")
    unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    names = [f"./usr/bin/{program.name}" for program in programs]
    subprocess.run(["tar", "-x", "-C", directory, *names], stdin=unpack.stdout, check=True)
    unpack.communicate()
    package.unlink()
    return directory / "usr/bin"


def emulator_of(platform: Platform, directory: Path) -> Path:
    """Return the emulator in *directory* that runs programs of *platform*."""
    return directory / f"qemu-{QEMU[platform.arch]}"
