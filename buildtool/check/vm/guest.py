# SPDX-License-Identifier: Apache-2.0
"""
Make the initial RAM disk of a virtual machine, with the modules in it.

The first process mounts file systems, runs one command and reports on the console. Each report
begins with a random token. While the command runs, the token is in no file and no environment, so
the command cannot forge a report.

The RAM disk is a cpio archive of the form "newc" (kernel documentation,
driver-api/early-userspace/buffer-format.rst). The same files give the same bytes.
"""

from __future__ import annotations

import lzma
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from buildtool.core.errors import FileAccessError, VmError, system_reason

MODULE_DIRECTORY = "/vm/modules"
_SCRIPTS = (b"#!", b"\x7fELF")
_DEPENDS = re.compile(rb"(?:^|\0)depends=([^\0]*)\0")

# `dmesg -n 1`: the kernel then writes to the console only when it panics.
# The second and third `stty` wait until the console has all output, before a panic or the power-off.
# `kill -KILL -1`: no process of the command may write between the reports. The first process receives SIGCHLD
# for each, and its shell drops output that a signal interrupts. Therefore a child of it writes the reports.
INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /etc /var /root
/bin/busybox mount -t devtmpfs dev /dev
exec < /dev/console > /dev/console 2>&1
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs trace /sys/kernel/tracing
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t securityfs security /sys/kernel/security
stty -opost -echo
read -r token < /vm/token
rm /vm/token
date -s "@$(cat /vm/time)" > /dev/null
for module in /vm/modules/*; do
  [ -e "$module" ] || continue
  insmod "$module" || printf '\\n%s fault cannot load %s\\n' "$token" "${module##*/}"
done
ip link set lo up
dmesg -n 1
printf '\\n%s begin %s\\n' "$token" "$(uname -r)"
stty -opost
cd /root
env -i PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root sh /vm/command < /dev/null 2>&1
code=$?
kill -KILL -1
(
  printf '\\n%s end %s\\n' "$token" "$code"
  while read -r place; do
    [ -e "$place" ] && find "$place" -type f
  done < /vm/collect | while read -r path; do
    printf '%s file %s\\n' "$token" "$path"
    base64 < "$path"
  done
  printf '%s done\\n' "$token"
)
stty -opost
poweroff -f
"""


def make_initrd(
    *,
    busybox: Path,
    files: Mapping[str, Path | bytes],
    modules: Sequence[Path],
    command: str,
    token: str,
    time: int,
    collect: Sequence[str],
) -> bytes:
    """
    Return the RAM disk that runs shell script *command* with the clock at *time*.

    *files* maps absolute paths to contents. A directory is copied with all its files, and symbolic
    links are followed.

    Raises: FileAccessError, VmError.
    """
    entries = {
        "/init": CpioFile(data=INIT.encode(), mode=0o755),
        "/bin/busybox": CpioFile(data=_read(busybox), mode=0o755),
        "/vm/command": CpioFile(data=command.encode()),
        "/vm/collect": CpioFile(data="".join(f"{path}\n" for path in collect).encode()),
        "/vm/token": CpioFile(data=f"{token}\n".encode()),
        "/vm/time": CpioFile(data=f"{time}\n".encode()),
    }
    for number, module in enumerate(modules):
        name = module.name.partition(".ko")[0]
        entries[f"{MODULE_DIRECTORY}/{number:03}-{name}.ko"] = CpioFile(data=_read_module(module))
    for place, source in files.items():
        if not place.startswith("/") or ".." in Path(place).parts or not place.isprintable():
            raise VmError(f"{place!r}: not an absolute path in the virtual machine")
        entries |= _add(place, source)
    return make_cpio(entries)


def find_modules(tree: Path | None, names: Sequence[str]) -> list[Path]:
    """
    Return the files of modules *names* and their dependencies in *tree*, in loading order.

    Modules that are built into the kernel have no files.

    Raises: VmError, FileAccessError.
    """
    if not names:
        return []
    found = {} if tree is None else {_module_name(path): path for path in tree.rglob("*.ko*")}
    built_in = _builtin_modules(tree)
    order: list[Path] = []

    def add(name: str) -> None:
        path = found.get(name)
        if path is None:
            # Without a tree, assume that the module is built in. Otherwise the kernel reports an error.
            if tree is not None and name not in built_in:
                raise VmError(
                    f"kernel {tree.name} has no module {name}",
                    hint=f"leave --module {name} out: a part that is built into the kernel needs no module",
                )
            return
        for needed in _needed_modules(path):
            add(needed)
        if path not in order:
            order.append(path)

    for name in names:
        add(name.replace("-", "_"))
    return order


def _add(place: str, source: Path | bytes) -> dict[str, CpioFile]:
    if isinstance(source, bytes):
        return {place: CpioFile(data=source, mode=0o755 if source.startswith(_SCRIPTS) else 0o644)}
    if not source.is_dir():
        return {place: CpioFile(data=_read(source), mode=_mode(source))}
    entries = {}
    for path in sorted(source.rglob("*")):
        if path.is_file():
            name = f"{place.rstrip('/')}/{path.relative_to(source)}"
            entries[name] = CpioFile(data=_read(path), mode=_mode(path))
    return entries


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileAccessError(f"{path}: cannot read: {system_reason(error)}") from error


def _mode(path: Path) -> int:
    return 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644


def _read_module(path: Path) -> bytes:
    data = _read(path)
    if path.suffix != ".xz":
        return data
    try:
        return lzma.decompress(data)
    except lzma.LZMAError as error:
        raise FileAccessError(f"{path}: damaged") from error


def _module_name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _needed_modules(path: Path) -> list[str]:
    match = _DEPENDS.search(_read_module(path))
    return [name.replace("-", "_") for name in match[1].decode().split(",") if name] if match else []


def _builtin_modules(tree: Path | None) -> set[str]:
    file = tree / "modules.builtin" if tree else None
    if file is None or not file.exists():
        return set()
    return {_module_name(Path(line)) for line in _read(file).decode(errors="replace").splitlines()}


_TRAILER = "TRAILER!!!"
_DIRECTORY = stat.S_IFDIR | 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class CpioFile:
    """A regular file of root: its *data* and permission bits *mode*."""

    data: bytes
    mode: int = 0o644


def make_cpio(files: Mapping[str, CpioFile]) -> bytes:
    """Return a cpio archive of *files*, by absolute path, and of their directories."""
    entries = {str(PurePosixPath(path)).strip("/"): file for path, file in files.items()}
    parents = {str(parent) for path in entries for parent in PurePosixPath(path).parents}
    parts: list[bytes] = []
    for number, path in enumerate(sorted({*entries, *parents} - {"."}), start=1):
        file = entries.get(path)
        mode = _DIRECTORY if file is None else stat.S_IFREG | file.mode
        parts += _entry(path, number, mode, b"" if file is None else file.data)
    parts += _entry(_TRAILER, 0, 0, b"")
    return b"".join(parts)


def _entry(name: str, number: int, mode: int, data: bytes) -> Iterator[bytes]:
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device and its node (two each), length of the name, checksum
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    yield b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
    yield bytes(-(110 + len(encoded)) % 4)
    yield data
    yield bytes(-len(data) % 4)
