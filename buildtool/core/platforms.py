# SPDX-License-Identifier: Apache-2.0
"""
The table of architectures. Other files take architecture names from this table.

Sources: OCI image specification (platform, GOARCH values), libbpf
bpf_tracing.h (__TARGET_ARCH_*), ELF e_machine registry, Debian architecture
names, GNU triplets (Debian multiarch).
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from buildtool.core.errors import UsageError

EM_BPF = 247
_NO_STATIC_PIE = ("arm", "ppc64le")  # glibc has no rcrt1.o for them
# Macros of the native compiler by which the kernel's headers choose sizes and structures, by __TARGET_ARCH_*.
# Clang defines none of them for eBPF; the headers of other architectures ask for none.
_MACROS = {
    "x86": ("__x86_64__",),
    "riscv": ("__riscv_xlen=64",),
    "s390": ("__s390x__",),
    # Without the second macro, Linux defines __u64 of powerpc as unsigned long.
    "powerpc": ("__powerpc64__", "__SANE_USERSPACE_TYPES__"),
}

# The number of bpf(2), by __TARGET_ARCH_*. Other architectures have that of asm-generic/unistd.h.
_BPF_SYSCALLS = {"x86": 321, "arm": 386, "s390": 351, "powerpc": 361}
_BPF_SYSCALL = 280


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """
    One target architecture.

    *arch* is the name on the command line, and equals BuildKit's TARGETARCH. *elf_machine* is
    the native e_machine of the loader. *little_endian* also selects the byte order of BPF objects.
    *uname* holds the names that uname -m prints.
    """

    arch: str
    variant: str
    target_arch: str
    debian: str
    elf_machine: int
    triple: str
    little_endian: bool
    uname: tuple[str, ...]

    @property
    def oci(self) -> str:
        """The OCI platform, for example linux/arm64 or linux/arm/v7."""
        return f"linux/{self.arch}/{self.variant}" if self.variant else f"linux/{self.arch}"

    @property
    def bpf_target(self) -> str:
        """Clang's target of BPF objects: bpfel or bpfeb."""
        return "bpfel" if self.little_endian else "bpfeb"

    @property
    def static_option(self) -> str:
        """Clang's option for a static program: -static-pie, if Debian's C library supports it."""
        return "-static" if self.arch in _NO_STATIC_PIE else "-static-pie"

    @property
    def target_define(self) -> str:
        """The macro by which bpf_tracing.h selects register names."""
        return f"__TARGET_ARCH_{self.target_arch}"

    @property
    def bpf_syscall(self) -> int:
        """The number of the system call bpf(2)."""
        return _BPF_SYSCALLS.get(self.target_arch, _BPF_SYSCALL)

    @property
    def header_macros(self) -> tuple[str, ...]:
        """Macros, perhaps with a value, that the kernel's headers expect of the architecture's compiler."""
        return _MACROS.get(self.target_arch, ())


def _platform(
    arch: str,
    target_arch: str,
    debian: str,
    elf_machine: int,
    triple: str,
    uname: tuple[str, ...],
    *,
    variant: str = "",
    little_endian: bool = True,
) -> Platform:
    return Platform(
        arch=arch,
        variant=variant,
        target_arch=target_arch,
        debian=debian,
        elf_machine=elf_machine,
        triple=triple,
        little_endian=little_endian,
        uname=uname,
    )


PLATFORMS: dict[str, Platform] = {
    p.arch: p
    for p in (
        _platform("amd64", "x86", "amd64", 62, "x86_64-linux-gnu", ("x86_64",)),
        _platform("arm64", "arm64", "arm64", 183, "aarch64-linux-gnu", ("aarch64",)),
        _platform("arm", "arm", "armhf", 40, "arm-linux-gnueabihf", ("armv7l",), variant="v7"),
        _platform("riscv64", "riscv", "riscv64", 243, "riscv64-linux-gnu", ("riscv64",)),
        _platform("s390x", "s390", "s390x", 22, "s390x-linux-gnu", ("s390x",), little_endian=False),
        _platform("ppc64le", "powerpc", "ppc64el", 21, "powerpc64le-linux-gnu", ("ppc64le",)),
        _platform("loong64", "loongarch", "loong64", 258, "loongarch64-linux-gnu", ("loongarch64",)),
    )
}

# The architectures of Debian 13, from which builder and base image are made. Debian 13 lacks loong64.
DEBIAN_13 = tuple(arch for arch in PLATFORMS if arch != "loong64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """
    The emulator of a platform: *qemu* command, its Debian *package*, the kernel's *console* and *flavour*.

    Debian's kernel package is named linux-image-FLAVOUR. *since* is the first Debian release that
    has this package: bookworm, trixie or sid.
    """

    qemu: tuple[str, ...]
    package: str
    console: str
    flavour: str
    since: str = "bookworm"


# Debian's cloud kernels have everything that BPF needs, and boot in half the time of others.
MACHINES: dict[str, Machine] = {
    # QEMU 7.2 (Debian 12) sometimes corrupts the flags after CMPXCHG16B. Linux allocates memory with this
    # instruction if the processor has it, and one boot in ten panicked or hung.
    "amd64": Machine(
        qemu=("qemu-system-x86_64", "-cpu", "max,cx16=off"),
        package="qemu-system-x86",
        console="ttyS0",
        flavour="cloud-amd64",
    ),
    # Emulating the architecture's own algorithm of pointer authentication costs most of the boot time.
    "arm64": Machine(
        qemu=("qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"),
        package="qemu-system-arm",
        console="ttyAMA0",
        flavour="cloud-arm64",
    ),
    # Debian's kernel has 32-bit addresses only.
    "arm": Machine(
        qemu=("qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "max"),
        package="qemu-system-arm",
        console="ttyAMA0",
        flavour="armmp",
    ),
    "riscv64": Machine(
        qemu=("qemu-system-riscv64", "-M", "virt"),
        package="qemu-system-misc",
        console="ttyS0",
        flavour="riscv64",
        since="trixie",
    ),
    "s390x": Machine(
        qemu=("qemu-system-s390x", "-cpu", "max"),
        package="qemu-system-misc",
        console="ttysclp0",
        flavour="s390x",
    ),
    "ppc64le": Machine(
        qemu=("qemu-system-ppc64", "-M", "pseries"),
        package="qemu-system-ppc",
        console="hvc0",
        flavour="powerpc64le",
    ),
    "loong64": Machine(
        qemu=("qemu-system-loongarch64", "-M", "virt", "-cpu", "la464"),
        package="qemu-system-misc",
        console="ttyS0",
        flavour="loong64",
        since="sid",
    ),
}


def find_platform(name: str) -> Platform:
    """
    Return the platform with *name*: an architecture (arm64) or an OCI platform (linux/arm64, linux/arm64/v8).

    Raises: UsageError, whose hint lists the architectures.
    """
    spelling = name.removeprefix("linux/")
    for found in PLATFORMS.values():
        # buildx also accepts the kernel's names, and a variant that is an architecture's only one.
        variant = found.variant or ("v8" if found.arch == "arm64" else "")
        if spelling in (found.arch, *found.uname, f"{found.arch}/{variant}"):
            return found
    raise UsageError(
        f"unknown architecture {name!r}",
        hint="choose from " + ", ".join(PLATFORMS),
    )


def oci_platform(name: str) -> Platform | None:
    """Return the platform with OCI platform *name* (linux/arm64), or None if the table lacks it."""
    return next((p for p in PLATFORMS.values() if p.oci == name), None)


def this_platform() -> Platform:
    """
    Return the platform of this machine.

    Raises: UsageError, if the table lacks it.
    """
    found = host_platform(platform.machine())
    if found is None:
        raise UsageError(
            f"{platform.machine()}: this machine's architecture is not supported",
            hint="choose another one by --arch: " + ", ".join(PLATFORMS),
        )
    return found


def host_platform(machine: str) -> Platform | None:
    """Return the platform of *machine*, a name that uname -m prints, or None if the table lacks it."""
    return next((p for p in PLATFORMS.values() if machine in p.uname), None)
