# SPDX-License-Identifier: Apache-2.0
"""
Run one command on a chosen kernel in an emulated virtual machine, without root and KVM.

KVM is never used, so that results do not depend on the host.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from buildtool.check.vm.guest import find_modules, make_initrd
from buildtool.check.vm.kernels import Kernel
from buildtool.core.errors import FileAccessError, ToolMissingError, VmError, system_reason
from buildtool.core.platforms import MACHINES
from buildtool.core.process import Completed, run_console

KERNEL_ARGUMENTS = "quiet panic=-1 lsm=lockdown,capability,landlock,bpf random.trust_cpu=on"
MAX_OUTPUT_BYTES = 16 * 1024 * 1024
_TAIL_LINES = 8
_KILLED = -9
_TOKEN_SIGN = "@@vm-"  # noqa: S105 - the first part of the token of reports; the random part follows
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRequest:
    """
    A request to run *argv* (or a shell script) as root on *kernel*.

    Standard error goes to the output. *files* are copied into the machine by absolute path, and
    *modules* are loaded first. *collect* names files and directories to copy out. *append* is
    added to the kernel's command line.
    """

    kernel: Kernel
    argv: Sequence[str] | str
    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    modules: Sequence[str] = ()
    collect: Sequence[str] = ()
    memory_mib: int = 1024
    timeout_seconds: float = 300
    append: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmResult:
    """
    The result of a command: its exit *code* and its *output*, with replaced bytes that are not UTF-8.

    *release* is that of the running kernel. *files* holds the existing files of *collect*.
    """

    code: int
    output: str
    release: str
    files: Mapping[str, bytes]


def run_vm(
    request: VmRequest, *, on_line: Callable[[str], None] = lambda _: None, stop: int | None = None
) -> VmResult:
    """
    Boot the machine, run the command, power off, and return the result.

    *on_line* receives each line of the console on arrival. The machine is killed when descriptor
    *stop* is readable. No process remains.

    Raises: VmError, ToolMissingError, FileAccessError.
    """
    machine = MACHINES[request.kernel.arch]
    if shutil.which(machine.qemu[0]) is None:
        raise ToolMissingError(
            f"{machine.qemu[0]}: not found", hint=f"apt-get install --no-install-recommends {machine.package}"
        )
    token = _TOKEN_SIGN + secrets.token_hex(16)
    command = request.argv if isinstance(request.argv, str) else f"exec {shlex.join(request.argv)}"
    initrd = make_initrd(
        busybox=request.kernel.busybox,
        files=request.files,
        modules=find_modules(request.kernel.modules, request.modules),
        command=command + "\n",
        token=token,
        time=int(time.time()),
        collect=request.collect,
    )
    lines = _LineSplitter(on_line)
    with _temporary_file(initrd) as file:
        argv = [*machine.qemu, "-accel", "tcg", "-m", str(request.memory_mib)]
        argv += ["-display", "none", "-monitor", "none", "-serial", "stdio", "-net", "none", "-no-reboot"]
        argv += ["-kernel", str(request.kernel.image), "-initrd", f"/proc/self/fd/{file.fileno()}"]
        argv += ["-append", f"console={machine.console} {KERNEL_ARGUMENTS} {request.append}".strip()]
        done = run_console(
            argv,
            timeout_seconds=request.timeout_seconds,
            max_bytes=MAX_OUTPUT_BYTES,
            on_output=lines.feed,
            stop=stop,
            keep=[file.fileno()],
        )
    return _read_console(request, done, token)


class _LineSplitter:
    """Splits chunks of bytes into lines of text."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._on_line(_clean(line.decode(errors="replace")))


def _temporary_file(data: bytes) -> IO[bytes]:
    """Return an unnamed file with *data*, which needs no removal. Raises: FileAccessError."""
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's `with` closes it
        file.write(data)
        file.flush()
    except OSError as error:
        reason = system_reason(error)
        raise FileAccessError(f"{tempfile.gettempdir()}: cannot write: {reason}") from error
    return file


def _read_console(request: VmRequest, done: Completed, token: str) -> VmResult:
    """Return the result in the console's reports, whose form is in `guest.INIT`. Raises: VmError."""
    mark = token.encode()
    name = f"{request.kernel.arch} {request.kernel.release or request.kernel.name}"
    before, begun, rest = done.stdout.partition(b"\n" + mark + b" begin ")
    if fault := re.search(re.escape(mark) + rb" fault (.*)", before):
        raise VmError(f"virtual machine ({name}): {fault[1].decode(errors='replace')}", detail=_tail(before))
    if not begun:
        raise _explain(request, done, name, "before its command ran", done.stdout)
    release, _, body = rest.partition(b"\n")
    output, ended, reports = body.rpartition(b"\n" + mark + b" end ")
    if not ended or mark + b" done" not in reports:
        raise _explain(request, done, name, "while its command ran", body)
    code, _, collected = reports.partition(b"\n")
    return VmResult(
        code=int(code),
        output=output.decode(errors="replace"),
        release=release.decode(errors="replace").strip(),
        files=_read_files(collected.partition(mark + b" done")[0], mark, name),
    )


def _read_files(text: bytes, mark: bytes, name: str) -> dict[str, bytes]:
    files = {}
    for part in text.split(mark + b" file ")[1:]:
        path, _, encoded = part.partition(b"\n")
        try:
            files[os.fsdecode(path).strip()] = base64.b64decode(b"".join(encoded.split()), validate=True)
        except binascii.Error as error:
            raise VmError(f"virtual machine ({name}): {os.fsdecode(path)}: incomplete output file") from error
    return files


def _explain(request: VmRequest, done: Completed, name: str, when: str, said_last: bytes) -> VmError:
    """Return the error for a console that ends too early. *said_last* is its last part."""
    panic = re.search(rb"Kernel panic - not syncing: ([^\r\n]*)", said_last)
    # Only registers follow the line of a panic.
    detail = _tail(said_last[: panic.end()] if panic else said_last) or None
    if panic:
        reason = panic[1].decode(errors="replace")
        return VmError(f"virtual machine ({name}): the kernel panicked {when}: {reason}", detail=detail)
    if done.returncode != _KILLED:
        said = done.stderr.decode(errors="replace").strip()
        message = said.splitlines()[-1] if said else f"it ended {when}"
        return VmError(f"virtual machine ({name}): {message}", detail=detail)
    if len(done.stdout) > MAX_OUTPUT_BYTES:
        return VmError(f"virtual machine ({name}): more than {MAX_OUTPUT_BYTES} bytes of output {when}")
    return VmError(
        f"virtual machine ({name}): still running after {request.timeout_seconds:g} seconds, stopped {when}",
        hint="give it more time, or more memory",
        detail=detail,
    )


def _tail(console: bytes) -> str:
    lines = [_clean(line) for line in console.decode(errors="replace").splitlines()]
    shown = [line for line in lines if line.strip() and not line.startswith(_TOKEN_SIGN)]
    return "\n".join(shown[-_TAIL_LINES:])


def _clean(line: str) -> str:
    return "".join(char for char in _ESCAPES.sub("", line) if char.isprintable() or char == "\t")
