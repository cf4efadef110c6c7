# SPDX-License-Identifier: Apache-2.0
"""
A hostile workload: it attacks the pins of other containers and its own loader, and reports each answer.

The arguments are directories of pins, under any path by which this process sees them. The output is one JSON
object: the name of each attempt, and the name of the kernel's error, or "" for an attempt that succeeded.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

BPF, TGKILL, TKILL, SIGQUEUE, TGSIGQUEUE, PIDFD_OPEN, PIDFD_SIGNAL = 321, 234, 200, 129, 297, 434, 424
MAP_LOOKUP, MAP_UPDATE, OBJ_PIN, OBJ_GET, LAST_COMMAND = 1, 2, 6, 7, 48
# Commands that the filter allows: read and write map elements, single or in batches, and describe a
# descriptor.
ALLOWED = {1, 2, 3, 4, 15, 21, 24, 25, 26, 27}
UNSHARE, CLONE, CLONE_NEWUSER = 272, 56, 0x10000000
RENAME_EXCHANGE, F_SETSIG, PTRACE_ATTACH, PR_SET_PDEATHSIG = 2, 10, 16, 1
libc = ctypes.CDLL(None, use_errno=True)
found: dict[str, str] = {}


def attempt(name: str, action: Callable[[], Any]) -> None:
    """Run *action* and record the kernel's answer."""
    try:
        action()
    except OSError as error:
        found[name] = errno.errorcode[error.errno or 0]
    else:
        found[name] = ""


def call(number: int, *arguments: Any) -> int:
    """Make a system call."""
    done = int(libc.syscall(number, *arguments))
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return done


def bpf(command: int, attributes: bytes = b"") -> int:
    """Make the system call of eBPF."""
    return call(BPF, command, ctypes.create_string_buffer(attributes, 128), 128)


def on_path(command: int, path: Path, descriptor: int = 0) -> int:
    """Pin *descriptor* at a path, or open the pin there."""
    text = ctypes.create_string_buffer(str(path).encode() + b"\0")
    return bpf(command, struct.pack("=QII", ctypes.addressof(text), descriptor, 0))


def exchange(one: Path, other: Path) -> None:
    """Exchange two names in one system call."""
    if libc.renameat2(-100, str(one).encode(), -100, str(other).encode(), RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def attack_directory(top: Path) -> None:
    """List, read, remove, rename and create entries of a directory of pins."""
    entry, pins = top / os.environ["ENTRY"], [Path(top, name) for name in os.environ["PINS"].split(":")]
    attempt(f"list {top}", lambda: list(top.iterdir()))
    attempt(f"list {entry}", lambda: list(entry.iterdir()))
    attempt(f"lock {top}", lambda: os.close(os.open(top, os.O_RDONLY)))
    attempt(f"make {top}", (top / "made").mkdir)
    attempt(f"link in {top}", lambda: (top / "decoy").symlink_to("/"))
    attempt(f"rename {entry}", lambda: entry.rename(top / "away"))
    attempt(f"rename out of {top}", lambda: entry.rename("/tmp/away"))
    attempt(f"exchange {entry}", lambda: exchange(entry, Path("/tmp")))
    for pin in pins:
        attempt(f"open {pin}", lambda pin=pin: os.close(on_path(OBJ_GET, pin)))  # type: ignore[misc]
        attempt(f"read {pin}", lambda pin=pin: pin.read_bytes())  # type: ignore[misc]
        attempt(f"remove {pin}", lambda pin=pin: pin.unlink())  # type: ignore[misc]
        attempt(f"second name of {pin}", lambda pin=pin: os.link(pin, top / "second"))  # type: ignore[misc]
    for name, number in os.environ.items():
        if name.startswith("BUILDTOOL_FD_"):
            attempt(f"pin {name} in {top}", lambda number=number: on_path(OBJ_PIN, top / "p", int(number)))  # type: ignore[misc]


def attack_descriptors() -> None:
    """List the inherited descriptors, and use each of them as a directory."""
    for number in sorted(int(path.name) for path in Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            kind = str(Path(f"/proc/self/fd/{number}").readlink())
            if number > 2 and "/proc/" not in kind:
                found[f"descriptor {number}"] = kind
                attempt(f"make in {number}", lambda number=number: os.mkdir("made", dir_fd=number))  # type: ignore[misc]
                attempt(
                    f"up from {number}",
                    lambda number=number: list(Path(f"/proc/self/fd/{number}/..").iterdir()),
                )  # type: ignore[misc]
                if kind.startswith("/"):
                    found[f"entries of {number}"] = " ".join(entry.name for entry in os.scandir(number))


def attack_commands() -> None:
    """Call every other command of bpf(2) without attributes: the filter answers before the kernel does."""
    for command in range(LAST_COMMAND):
        if command not in ALLOWED:
            attempt(f"command {command}", lambda command=command: bpf(command))  # type: ignore[misc]
    attempt("command with a high half", lambda: bpf(OBJ_GET | 1 << 40))


def attack_others(*, with_pins: bool) -> None:
    """Type into the terminal, limit another process, and enter a user namespace."""
    attempt("type", lambda: fcntl.ioctl(0, termios.TIOCSTI, b"x"))
    attempt("limit of another", lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU))
    if with_pins:
        attempt("unshare", lambda: call(UNSHARE, CLONE_NEWUSER))
        attempt("clone", lambda: call(CLONE, CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0) or os._exit(0))
        found["plain fork"] = str(os.waitstatus_to_exitcode(os.system("true")))  # noqa: S605


def attack_loader() -> None:
    """Try every way in which a process can end another process of the same user."""
    parent = os.getppid()
    group = os.getpgid(parent)
    info = ctypes.create_string_buffer(struct.pack("=iii", signal.SIGKILL, 0, -1), 128)
    attempt("forget to die with the loader", call_prctl)
    attempt("kill", lambda: os.kill(parent, signal.SIGKILL))
    attempt("kill 0", lambda: os.kill(parent, 0))
    attempt("kill group", lambda: os.killpg(group, 0))
    attempt("kill all", lambda: os.kill(-1, 0))
    attempt("tkill", lambda: call(TKILL, parent, signal.SIGKILL))
    attempt("tgkill", lambda: call(TGKILL, parent, parent, signal.SIGKILL))
    attempt("tgkill by thread", lambda: call(TGKILL, -1, parent, signal.SIGKILL))
    attempt("queue", lambda: call(SIGQUEUE, parent, signal.SIGKILL, info))
    attempt("queue to thread", lambda: call(TGSIGQUEUE, parent, parent, signal.SIGKILL, info))
    attempt("pidfd", lambda: call(PIDFD_SIGNAL, call(PIDFD_OPEN, parent, 0), signal.SIGKILL, 0, 0))
    proc = os.open(f"/proc/{parent}", os.O_RDONLY)
    attempt("pidfd of proc", lambda: call(PIDFD_SIGNAL, proc, signal.SIGKILL, 0, 0))
    attempt("limit", lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (0, 0)))
    attempt("own limit", lambda: resource.prlimit(0, resource.RLIMIT_CPU))
    attempt("join the group", lambda: os.setpgid(0, group))
    attempt("signal of input", lambda: fcntl.fcntl(1, F_SETSIG, signal.SIGKILL))
    attempt("own flags", lambda: fcntl.fcntl(1, fcntl.F_GETFL))
    attempt("trace", lambda: trace(parent))
    attempt("memory", lambda: Path(f"/proc/{parent}/mem").open("rb").close())
    attempt("when memory ends", lambda: Path(f"/proc/{parent}/oom_score_adj").write_text("1000"))


def call_prctl() -> None:
    """Clear the signal that this process receives when its parent dies."""
    libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)


def trace(parent: int) -> None:
    """Attach to the parent as a debugger does."""
    if libc.ptrace(PTRACE_ATTACH, parent, None, None) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def main() -> None:
    """Run every attack."""
    found["maps"] = " ".join(sorted(name for name in os.environ if name.startswith("BUILDTOOL_FD_")))
    found["identity"] = f"{os.getuid()}:{os.getgid()} {os.getgroups()}"
    attack_descriptors()
    attack_commands()
    for top in sys.argv[1:]:
        attack_directory(Path(top))
    attack_others(with_pins=len(sys.argv) > 1)
    if os.environ.get("SUPERVISED"):
        attack_loader()
    for name, number in os.environ.items():
        if name.startswith("BUILDTOOL_FD_"):
            key, room = ctypes.c_uint32(0), ctypes.create_string_buffer(4096)
            element = struct.pack("=IIQQQ", int(number), 0, ctypes.addressof(key), ctypes.addressof(room), 0)
            attempt(f"look up {name}", lambda element=element: bpf(MAP_LOOKUP, element))  # type: ignore[misc]
            attempt(f"update {name}", lambda element=element: bpf(MAP_UPDATE, element))  # type: ignore[misc]
    sys.stdout.write(json.dumps(found))


main()
