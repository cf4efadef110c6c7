# SPDX-License-Identifier: Apache-2.0
"""Finds clang and llvm-strip and knows how they are called; each forced flag has its reason beside it."""

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
_INSTALL_HINT = "install clang (Debian: apt install clang; anywhere: pip install 'ebpf-buildtool[clang]')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """
    A compiler: its program *clang*, *major* version and *version* line, and *strip* (llvm-strip), if any.

    *words* stand after the program's name; *carries* says that it is the one of package ziglang.
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
        Compiler and version as the statement says them, the same for each distribution's package.

        Packages of one version make the same objects; their revisions would make other statements.
        """
        found = re.search(r"clang version (\d+(?:\.\d+)*)", self.version)
        return f"clang {found[1]}" if found else self.version


def find_toolchain(clang: str = "", *, runner: Runner | None = None) -> Toolchain:
    """
    Return the toolchain of *clang* (name or path), or the newest one on PATH, or that of package ziglang.

    Raises: ToolMissingError with what to install; ToolFailedError.
    """
    runner = runner or Runner()
    if clang == ziglang.NAME:
        zig = ziglang.find_zig()
        if zig is None:
            raise ToolMissingError("ziglang: not installed", hint="pip install 'ebpf-buildtool[clang]'")
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
    # A plain clang may be older or newer than the numbered ones: only it can say.
    return max((_inspect(program, runner) for program in programs), key=lambda found: found.major)


def _candidates() -> Iterator[str]:
    """Give the plain clang of PATH, and the numbered one with the highest number."""
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
    """Return the llvm-strip of the same installation, or the nearest one; empty when there is none."""
    beside = Path(clang).resolve().parent
    for name in (f"llvm-strip-{major}", "llvm-strip"):
        if os.access(beside / name, os.X_OK):
            return str(beside / name)
    return shutil.which(f"llvm-strip-{major}") or shutil.which("llvm-strip") or ""


def forced_flags(platform: Platform) -> list[str]:
    """Return the flags that every object of *platform* is compiled with; they depend on nothing else."""
    return [
        "-target",
        platform.bpf_target,  # byte order of the kernel that will load it
        "-mcpu=v3",  # 32-bit ALU and jumps, kernel 5.10 and newer; the default differs between clangs
        "-g",  # BTF comes from debug information; DWARF is stripped afterwards
        # BTF has the text of lines. Without these flags the back end reads it from files of the names in the
        # object, and /usr/include/bpf/usdt.bpf.h may be another file on this machine.
        "-gdwarf-5",
        "-gembed-source",
        "-O2",  # the kernel verifier cannot follow unoptimised code
        f"-D{platform.target_define}",  # register names of bpf_tracing.h
        *(f"-D{macro}" for macro in platform.header_macros),  # without them asm/ chooses 32 bits
        "-Wall",
        "-Wno-missing-declarations",  # vmlinux.h has declarations without a name
        "-Werror=date-time",  # __DATE__ and __TIME__ would make each build different
        "-fno-ident",  # no compiler banner in the object
        "-fdebug-compilation-dir=.",  # the path of this directory would stay in .BTF
        "-fno-stack-protector",  # distributions turn it on; the BPF back end has none
    ]


def compile_command(
    toolchain: Toolchain,
    platform: Platform,
    *,
    source: str,
    output: Path,
    root: Path,
    headers: Headers | None,
    include: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> list[str]:
    """
    Return clang's arguments for one object; beside *output* clang writes a .d file of what it read.

    *source* and *include* are relative to *root*, which is where clang has to
    run, so that no name of a directory of this machine gets into the object.
    Without *headers* clang searches this machine's.

    Raises: UsageError or FileAccessError, when this machine's are not for *platform*.
    """
    argv = [toolchain.clang, *toolchain.words]
    if toolchain.major >= _CONFIG_FLAG_SINCE:
        argv.append("--no-default-config")  # a clang.cfg of this machine would change objects
    argv += forced_flags(platform)
    argv.append(f"-ffile-prefix-map={root.resolve()}=.")  # for names that are absolute all the same
    for directory in include:
        argv += ["-I", directory]
    argv += _system_headers(toolchain, platform) if headers is None else _own_headers(toolchain)
    argv += [] if headers is None else headers.flags(platform)
    return [*argv, *flags, "-MD", "-MF", str(output.with_suffix(".d")), "-c", source, "-o", str(output)]


def strip_command(toolchain: Toolchain, objects: Sequence[Path]) -> list[str]:
    """Return llvm-strip's arguments: drop DWARF, keep BTF and symbols of *objects*."""
    return [toolchain.strip, "-g", *map(str, objects)]


def clean_environment() -> dict[str, str]:
    """Return the environment of compilers: CPATH, HOME and others of ours would change objects."""
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
