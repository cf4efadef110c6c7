# SPDX-License-Identifier: Apache-2.0
"""
Virtual machines of the tests: one for each kernel and architecture, which runs all cases in a single boot.

guest_script.sh is the program of a guest. This module makes its input and reads its output.
"""

from __future__ import annotations

import base64
import json
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildtool.check.vm.kernels import Kernel, find_kernel
from buildtool.check.vm.machine import VmRequest, VmResult, run_vm
from buildtool.compile.headers import carried_headers, read_headers
from buildtool.compile.sources import CompileOptions, compile_sources
from buildtool.compile.toolchain import find_toolchain
from buildtool.config.project import make_units
from buildtool.config.settable import parse_settable
from buildtool.core.platforms import PLATFORMS, Platform
from buildtool.objects.elf import parse_object
from buildtool.signing.keys import SigningKey, generate_key
from buildtool.signing.sign import Origin, ReleaseInfo, sign_object
from labs import TOP, refusals
from labs.opcua import CASES
from labs.vectors.index import INDEX

HERE = TOP / "tests/vm"
CACHE = TOP / ".cache/vm"
WRITES, FORKS = 20, 10
MAX_OBJECTS = 256  # of the loader, in one directory
CREATED = 1_767_225_600  # 2026-01-01
# Shipped programs that require a target. The sections of the others contain their targets.
PACKETS = ("opcua_monitor.bpf.o", "cgroup_traffic.bpf.o")
SETTINGS = "vm_settings.bpf.o"
# What its signers let be set, all of it.
SETTABLE = dict.fromkeys(("flag", "s8", "u16", "s32", "u64", "label"), True) | {
    "settings_seen": {"max-entries": 64}
}
MODULES = ("af_packet", "sch_fq_codel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """An entry of a map: its *key*, and the 64-bit *words* of its value, summed over all processors."""

    key: bytes
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """The output of a boot: *files* of /out by name. *platform* determines their byte order."""

    kernel: str
    platform: Platform
    release: str
    files: dict[str, str]

    def lines(self, case: str) -> list[dict[str, Any]]:
        """Return the decision lines of *case*."""
        return [json.loads(line) for line in self.files[f"{case}.log"].splitlines()]

    def code(self, case: str) -> int:
        """Return the exit code of *case*."""
        return int(self.files[f"{case}.code"])

    def map(self, case: str, name: str) -> list[Sum]:
        """Return the entries of map *name* (cut to 15 bytes) at the end of *case*."""
        order = "<" if self.platform.little_endian else ">"
        for line in self.files[f"{case}.maps"].splitlines():
            found = json.loads(line)
            if found["name"] == name[:15]:
                return [self._sum(order, key, values) for key, values in found["entries"]]
        raise AssertionError(f"{case}: no map {name}: {self.files[f'{case}.log']}")

    def counts(self, case: str, name: str) -> dict[int, tuple[int, ...]]:
        """Return an array's values by index, without those that are zero."""
        order = "little" if self.platform.little_endian else "big"
        sums = self.map(case, name)
        return {int.from_bytes(s.key, order): s.words for s in sums if any(s.words)}  # type: ignore[arg-type]

    @staticmethod
    def _sum(order: str, key: str, values: list[str]) -> Sum:
        copies = [struct.unpack(f"{order}{len(text) // 16}Q", bytes.fromhex(text)) for text in values]
        return Sum(key=bytes.fromhex(key), words=tuple(map(sum, zip(*copies, strict=True))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """Makes guests, with *clang*, the headers of *sysroot_of*, and files in *directory*."""

    directory: Path
    clang: Path
    sysroot_of: Callable[[Platform], Path]

    def boot(self, kernel_name: str, arch: str) -> Guest:
        """Run all cases on one kernel."""
        platform = PLATFORMS[arch]
        kernel = find_kernel(kernel_name, arch, CACHE)
        files = self._files(platform)
        result = run_vm(
            VmRequest(
                kernel=kernel,
                argv="sh /vmtest/script",
                files=files,
                modules=_wanted_modules(kernel),
                collect=["/out"],
                timeout_seconds=600,
            )
        )
        assert result.code == 0, result.output
        return Guest(kernel=kernel_name, platform=platform, release=result.release, files=_outputs(result))

    def loader(self, platform: Platform) -> Path:
        """Build the loader for *platform* as in images: static and stripped."""
        output = TOP / ".cache/loader" / platform.arch / "verify-and-load"
        argv = ["make", "-C", TOP / "loader", f"SYSROOT={self.sysroot_of(platform)}", f"CLANG={self.clang}"]
        _call([*argv, f"TARGET={platform.triple}", f"OUT={output}"])
        return output

    def tool(self, platform: Platform) -> Path:
        """Build the guest's tool."""
        output = self.directory / f"guest_tool-{platform.arch}"
        argv = [self.clang, f"--target={platform.triple}", f"--sysroot={self.sysroot_of(platform)}"]
        argv += ["-fuse-ld=lld", "-static", "-O2", "-Wall", "-Wextra", "-Werror"]
        _call([*argv, "-o", output, HERE / "guest_tool.c"])
        return output

    def objects(self, platform: Platform) -> dict[str, bytes]:
        """Return the unsigned objects of the tests' sources and of the shipped programs, by name."""
        output = self.directory / "objects" / platform.arch
        sources = [*sorted(HERE.glob("bpf/*.bpf.c")), *sorted(TOP.glob("bpf/*.bpf.c"))]
        result = compile_sources(
            find_toolchain(str(self.clang)),
            [(platform, output, make_units(str(path.relative_to(TOP)) for path in sources))],
            CompileOptions(root=TOP, headers=read_headers(carried_headers())),
        )
        return {item.path.name: item.path.read_bytes() for item in result.objects}

    def _files(self, platform: Platform) -> dict[str, Path | bytes]:
        key = generate_key()
        files: dict[str, Path | bytes] = {
            "/vmtest/script": HERE / "guest_script.sh",
            "/vmtest/verify-and-load": self.loader(platform),
            "/vmtest/guest_tool": self.tool(platform),
            "/vmtest/trust/test.pub": key.public.pem,
            "/vmtest/frames": b"".join(struct.pack(">H", len(frame)) + frame for frame, _ in CASES.values()),
            "/vmtest/now": INDEX["now"].encode(),
        }
        objects = self.objects(platform)
        for name, data in objects.items():
            place = "packets" if name in PACKETS else "settings" if name == SETTINGS else "objects"
            files[f"/vmtest/{place}/{name}"] = sign_for(platform, name, data, key)
        other = PLATFORMS["arm64" if platform.arch == "amd64" else "amd64"]
        for name, case in refusals.make(objects["vm_regs.bpf.o"], platform.oci, other.oci).items():
            for path, data in case.items():
                files[f"/vmtest/refused/{name}/{path}"] = data
        return {**files, **_vector_files()}


def sign_for(platform: Platform, name: str, data: bytes, key: SigningKey) -> bytes:
    """Return object *data*, signed by the product for *platform*."""
    settable = parse_settable({SETTINGS: SETTABLE})
    release = ReleaseInfo(project="tests", version=1, release="1.0", created=CREATED, settable=settable)
    return sign_object(parse_object(data), name, key, release, Origin(platform=platform))[0]


def vector_groups() -> dict[str, list[int]]:
    """Return groups of vectors, by name: the numbers of vectors that one run of the loader can verify."""
    groups: dict[tuple[str, str], list[list[int]]] = {}
    for number, vector in enumerate(INDEX["vectors"]):
        parts = groups.setdefault((vector["trust"], vector["platform"]), [[]])
        if len(parts[-1]) == MAX_OBJECTS:
            parts.append([])
        parts[-1].append(number)
    flat = [part for parts in groups.values() for part in parts]
    return {f"group{index}": part for index, part in enumerate(flat)}


def _vector_files() -> dict[str, Path | bytes]:
    """Return the files of the vectors, named by number, in groups, with trust stores and a list of groups."""
    files: dict[str, Path | bytes] = {}
    for group, numbers in vector_groups().items():
        for number in numbers:
            data = base64.b64decode(INDEX["vectors"][number]["file"])
            files[f"/vmtest/vectors/{group}/{number}"] = data
    lines = []
    for group, (first, *_) in vector_groups().items():
        vector = INDEX["vectors"][first]
        lines.append(f"{group} {vector['trust']} {vector['platform']}\n")
    for store, texts in INDEX["trust"].items():
        for name, text in texts.items():
            files[f"/vmtest/stores/{store}/{name}"] = text.encode()
    return {**files, "/vmtest/vectors.list": "".join(lines).encode()}


def _wanted_modules(kernel: Kernel) -> list[str]:
    """Return those of MODULES that the kernel has as modules. It has the others built in, or not at all."""
    assert kernel.modules is not None
    return [name for name in MODULES if any(kernel.modules.rglob(f"{name}.ko*"))]


def _outputs(result: VmResult) -> dict[str, str]:
    return {Path(path).name: data.decode(errors="replace") for path, data in result.files.items()}


def _call(argv: list[Any]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
