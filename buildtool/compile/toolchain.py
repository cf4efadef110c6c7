# SPDX-License-Identifier: Apache-2.0
"""Find clang and llvm-strip, and make their arguments. Each forced flag has its reason beside it."""

from __future__ import annotations

import os
import platform as host
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildtool.compile import ziglang
from buildtool.compile.headers import Headers
from buildtool.core.errors import FileAccessError, ToolFailedError, ToolMissingError, UsageError
from buildtool.core.platforms import Platform, host_platform
from buildtool.core.process import Runner

MIN_CLANG = 14
_CONFIG_FLAG_SINCE = 16
_SYSTEM_HEADERS = "/usr/include"
_NO_SYSTEM = "remove compile.system-headers (--system-headers)"
_INSTALL_HINT = "install clang (Debian: apt install clang; anywhere: pip install ziglang)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """
    A compiler: program *clang*, *major* version, *version* line, and *strip* (llvm-strip, or empty).

    *words* are the first arguments. *carries* is true for the compiler of package ziglang.
    """

    clang: str
    major: int
    version: str
    strip: str
    words: tuple[str, ...] = ()
    carries: bool = False

    @property
    def name(self) -> str:
        """
        Compiler and version for statements, without the revision of a distribution's package.

        Packages of one version make the same objects, so the revision must not change statements.
        """
        found = re.search(r"clang version (\d+(?:\.\d+)*)", self.version)
        return f"clang {found[1]}" if found else self.version


def find_toolchain(clang: str = "", *, runner: Runner | None = None) -> Toolchain:
    """
    Return the toolchain of *clang* (name or path), or the newest on PATH, or that of package ziglang.

    Raises: ToolMissingError, whose hint names a package; ToolFailedError.
    """
    runner = runner or Runner()
    if clang == ziglang.NAME:
        zig = ziglang.find_zig()
        if zig is None:
            raise ToolMissingError("ziglang: not installed", hint="pip install ziglang")
        return _inspect_zig(zig, runner)
    if clang:
        program = shutil.which(clang)
        if program is None:
            raise ToolMissingError(f"{clang}: not found, or not a program", hint=_INSTALL_HINT)
        return _inspect(program, runner)
    programs = list(_candidates())
    if not programs and (zig := ziglang.find_zig()):
        return _inspect_zig(zig, runner)
    if not programs:
        raise ToolMissingError("clang: not found", hint=_INSTALL_HINT)
    # The version of a plain clang, which only clang --version shows, may be older or newer than the numbered.
    return max((_inspect(program, runner) for program in programs), key=lambda found: found.major)


def _candidates() -> Iterator[str]:
    """Yield the plain clang of PATH, and the clang-N with the highest number."""
    plain = shutil.which("clang")
    if plain:
        yield plain
    numbered: dict[int, str] = {}
    for directory in os.get_exec_path():
        try:
            programs = list(Path(directory or ".").glob("clang-*"))
        except OSError:
            continue
        for program in programs:
            found = re.fullmatch(r"clang-(\d+)", program.name, re.ASCII)
            if found and os.access(program, os.X_OK):
                numbered.setdefault(int(found[1]), str(program))
    if numbered:
        yield numbered[max(numbered)]


def _inspect(clang: str, runner: Runner) -> Toolchain:
    major, line = _ask_version([clang], runner)
    return Toolchain(clang=clang, major=major, version=line, strip=_find_strip(clang, major))


def _inspect_zig(zig: Path, runner: Runner) -> Toolchain:
    words = ziglang.WORDS
    major, line = _ask_version([str(zig), *words], runner)
    return Toolchain(clang=str(zig), major=major, version=line, strip="", words=words, carries=True)


def _ask_version(command: list[str], runner: Runner) -> tuple[int, str]:
    text = runner.run([*command, "--version"]).stdout.decode(errors="replace")
    line = text.partition("\n")[0].strip()
    found = re.search(r"clang version (\d+)", line)
    if found is None:
        raise ToolFailedError(f"{command[0]}: not a clang", hint=_INSTALL_HINT)
    major = int(found[1])
    if major < MIN_CLANG:
        raise ToolMissingError(
            f"{command[0]}: version {major} is too old", hint=f"install clang {MIN_CLANG} or newer"
        )
    return major, line


def _find_strip(clang: str, major: int) -> str:
    """Return the llvm-strip beside *clang*, or of its version, or any on PATH, or empty text."""
    beside = Path(clang).resolve().parent
    for name in (f"llvm-strip-{major}", "llvm-strip"):
        if os.access(beside / name, os.X_OK):
            return str(beside / name)
    return shutil.which(f"llvm-strip-{major}") or shutil.which("llvm-strip") or ""


def forced_flags(platform: Platform) -> list[str]:
    """Return the flags of all objects of *platform*. They depend on the platform only."""
    return [
        "-target",
        platform.bpf_target,  # the byte order of the kernel that loads the object
        "-mcpu=v3",  # 32-bit ALU and jumps (Linux 5.10); the default differs between versions of clang
        "-g",  # clang makes BTF from debug information; DWARF is stripped afterwards
        # BTF contains source lines. Without these flags the back end reads them from the paths in the
        # object, and /usr/include/bpf/usdt.bpf.h may be another file on this machine.
        "-gdwarf-5",
        "-gembed-source",
        "-O2",  # the kernel verifier cannot follow unoptimised code
        f"-D{platform.target_define}",  # register names of bpf_tracing.h
        *(f"-D{macro}" for macro in platform.header_macros),  # without them asm/ chooses 32 bits
        "-Wall",
        # vmlinux.h of Linux 7 has members without a name and with a tag. Without -fms-extensions, clang drops
        # them with a warning, and the struct has another size.
        "-fms-extensions",
        "-Wno-microsoft-anon-tag",
        "-Werror=date-time",  # __DATE__ and __TIME__ would make each build different
        "-fno-ident",  # no compiler banner in the object
        "-fdebug-compilation-dir=.",  # otherwise .BTF contains the path of this directory
        "-fno-stack-protector",  # distributions enable it, but the BPF back end does not support it
    ]


def compile_command(
    toolchain: Toolchain,
    platform: Platform,
    *,
    source: str,
    output: Path,
    root: Path,
    headers: Headers | None,
    include: Sequence[tuple[str, str]] = (),
    flags: Sequence[str] = (),
) -> list[str]:
    """
    Return clang's arguments for one object. clang also writes a .d file beside *output*.

    *source* is relative to *root*. clang must run in *root*, so that the object contains no path of this
    machine. *include* has name and place of each directory: those outside the project appear in the object by
    their names. Without *headers*, clang searches this machine's.

    Raises: UsageError or FileAccessError, if this machine's headers are not for *platform*.
    """
    argv = [toolchain.clang, *toolchain.words]
    if toolchain.major >= _CONFIG_FLAG_SINCE:
        argv.append("--no-default-config")  # a clang.cfg of this machine would change objects
    argv += forced_flags(platform)
    argv.append(f"-ffile-prefix-map={root.resolve()}=.")  # replaces absolute names
    for name, place in include:
        argv += ["-I", place]
        argv += [f"-ffile-prefix-map={place}={name}"] if place != name else []
    argv += _system_headers(toolchain, platform) if headers is None else _own_headers(toolchain)
    argv += [] if headers is None else headers.flags(platform)
    # Last, so that no flag of the project hides a dropped member, which changes the size of a struct.
    argv += [*flags, "-Wmissing-declarations"]
    return [*argv, "-MD", "-MF", str(output.with_suffix(".d")), "-c", source, "-o", str(output)]


def strip_command(toolchain: Toolchain, objects: Sequence[Path]) -> list[str]:
    """Return llvm-strip's arguments that remove DWARF from *objects*, and keep BTF and symbols."""
    return [toolchain.strip, "-g", *map(str, objects)]


def clean_environment() -> dict[str, str]:
    """Return the environment of compilers, without CPATH, HOME and others that could change objects."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "TERM") if name in os.environ}
    return {**kept, "LC_ALL": "C"}


def _own_headers(toolchain: Toolchain) -> list[str]:
    """Return the flags that leave clang its own headers (stddef.h, stdint.h) and none of this machine."""
    return ziglang.header_flags(Path(toolchain.clang)) if toolchain.carries else ["-nostdlibinc"]


def _system_headers(toolchain: Toolchain, platform: Platform) -> list[str]:
    """
    Return the flags for this machine's asm/, which clang does not look for when the target is BPF.

    Those of another architecture would compile, to wrong sizes and byte order.
    """
    if toolchain.carries:
        raise UsageError(
            "system headers: not supported by the compiler of ziglang", hint=f"install clang, or {_NO_SYSTEM}"
        )
    places = [
        f"{_SYSTEM_HEADERS}/{platform.triple}",
        f"/usr/lib/linux/uapi/{platform.target_arch}",
        f"/usr/{platform.triple}/include",
    ]
    found = next((place for place in places if Path(place, "asm/types.h").exists()), None)
    is_own = host_platform(host.machine()) == platform
    # A distribution without directories for architectures has its own asm/ where clang looks first.
    if not is_own and (found is None or Path(_SYSTEM_HEADERS, "asm").exists()):
        raise FileAccessError(
            f"headers of Linux for {platform.arch}: not on this machine",
            hint=f"Debian: apt install linux-libc-dev-{platform.debian}-cross; or {_NO_SYSTEM}",
        )
    return ["-idirafter", found] if found else []
