# SPDX-License-Identifier: Apache-2.0
"""
Compile on this machine, unless the cache holds an object of the same input.

An entry names each file that clang read, with its digest, including the system's headers. The
key covers all other input: compiler, flags, and the names of all files that could be included,
because a new header can hide an old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from buildtool.compile import toolchain as tools
from buildtool.compile.outside import place_include
from buildtool.compile.record import CompiledObject, SourceInfo, ToolchainInfo
from buildtool.compile.sources import CompileOptions, compile_sources
from buildtool.compile.toolchain import Toolchain
from buildtool.config.project import Unit
from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.errors import FileAccessError
from buildtool.core.files import read_bounded
from buildtool.core.platforms import Platform
from buildtool.objects.elf import read_object_file

KIND = "objects"
# Increase this number when the same input gives another object.
VERSION = 3
MAX_INPUT_BYTES = 64 * 1024 * 1024
CLOCK_STEP_NS = 10_000_000  # the kernel stamps files with the time of its last tick

Compiled = tuple[CompiledObject, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSet:
    """
    The *objects* of a run by path and architecture, and clang's *warnings* of this run.

    *inputs* are the files that the compiler read, as clang names them from the root.
    """

    objects: dict[tuple[str, str], Compiled]
    warnings: str = ""
    inputs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """Digests and times of files below *root*, each read once."""

    root: Path
    known: dict[str, str] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)

    def digest(self, name: str) -> str:
        if name not in self.known:
            try:
                data = read_bounded(self.root / name, MAX_INPUT_BYTES)
                self.known[name] = hashlib.sha256(data).hexdigest()
            except FileAccessError:
                self.known[name] = ""  # an unreadable file matches no entry
        return self.known[name]

    def changed_since(self, time_ns: int, names: Sequence[str]) -> bool:
        """Return whether one of *names* may have changed after *time_ns*, and so after clang read it."""
        return any(self._changed_at(name) >= time_ns for name in names)

    def _changed_at(self, name: str) -> int:
        if name not in self.times:
            try:
                found = (self.root / name).stat()
                self.times[name] = max(found.st_mtime_ns, found.st_ctime_ns)
            except OSError:
                self.times[name] = sys.maxsize
        return self.times[name]


def compile_cached(
    toolchain: Toolchain,
    plans: Sequence[tuple[Platform, Sequence[Unit]]],
    options: CompileOptions,
    *,
    cache: Cache,
    on_step: Callable[[], None] = lambda: None,
) -> ObjectSet:
    """
    Return the objects of *plans*, the units of each platform, from *cache* or compiled now.

    Raises: the errors of `compile_sources`.
    """
    inputs = _Inputs(root=options.root)
    common = _common_key(toolchain, [unit for _, units in plans for unit in units], options)
    keys = {
        (unit.path, platform.arch): _key(common, toolchain, unit, platform, options)
        for platform, units in plans
        for unit in units
    }
    found: dict[tuple[str, str], Compiled] = {}
    read: set[str] = set()
    for job, key in keys.items():
        entry = cache.read(KIND, key)
        if entry is not None and (kept := _decode(entry, inputs)) is not None:
            found[job], names = kept
            read.update(names)
    missing = keys.keys() - found.keys()
    if not missing:
        return ObjectSet(objects=found, inputs=frozenset(read))
    started = time.time_ns()
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        late = [
            (
                platform,
                Path(work, platform.arch),
                [unit for unit in units if (unit.path, platform.arch) in missing],
            )
            for platform, units in plans
        ]
        outputs = [output for output in late if output[2]]
        done = compile_sources(toolchain, outputs, options, on_step=on_step)
        jobs = [(unit.path, platform.arch) for platform, _, units in outputs for unit in units]
        # Digests from before the compilation are useless: a file may have changed before clang read it.
        inputs = _Inputs(root=options.root)
        for job, compiled, files in zip(jobs, done.objects, done.inputs, strict=True):
            data = read_object_file(compiled.path)
            found[job] = (compiled, data)
            read.update(files)
            # Warnings must appear in each run, so objects with warnings are never cached.
            if done.warnings:
                continue
            # Read digests before times. A file that changes after its time was read has another digest later.
            entry = _encode(compiled, data, files, inputs)
            if not inputs.changed_since(started - CLOCK_STEP_NS, files):
                cache.write(KIND, keys[job], entry)
    # An entry holds what the compiler made. Declarations are of the configuration.
    for platform, units in plans:
        for unit in units:
            compiled, data = found[unit.path, platform.arch]
            found[unit.path, platform.arch] = replace(compiled, declared=unit.declared), data
    return ObjectSet(objects=found, warnings=done.warnings, inputs=frozenset(read))


def _common_key(toolchain: Toolchain, units: Sequence[Unit], options: CompileOptions) -> str:
    """Return the digest of the input that all keys of a run share, such as the names of all headers."""
    value = {
        "version": VERSION,
        "toolchain": repr(toolchain),
        "programs": [_identify(program) for program in (toolchain.clang, toolchain.strip)],
        # libbpf's linker, for objects of several sources.
        "linker": _identify(str(options.linker)) if options.linker else [],
        "headers": _list_headers(units, options),
    }
    return _hash_json(value)


def _key(common: str, toolchain: Toolchain, unit: Unit, platform: Platform, options: CompileOptions) -> str:
    argv: list[str] = []
    for piece in unit.pieces:
        argv += tools.compile_command(
            toolchain,
            platform,
            source=piece.source,
            output=Path("object.o"),
            root=options.root,
            headers=options.headers,
            include=[(name, place_include(name, options.root, options.outside)) for name in piece.include],
            flags=piece.flags,
        )
    root = os.path.realpath(options.root)
    return _hash_json([common, platform.oci, unit.path, [word.replace(root, ".") for word in argv]])


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode(errors="surrogateescape")).hexdigest()


def _identify(program: str) -> list[Any]:
    """Return path, size and time of *program*: an updated package may print the same version."""
    if not program:
        return []
    try:
        found = Path(program).stat()
    except OSError:
        return [program]
    return [program, found.st_size, found.st_mtime_ns]


def _list_headers(units: Sequence[Unit], options: CompileOptions) -> list[str]:
    """Return the names of all files beside the sources and in the include directories."""
    pieces = [piece for unit in units for piece in unit.pieces]
    include = {name for piece in pieces for name in piece.include}
    directories = {os.path.normpath(place_include(name, options.root, options.outside)) for name in include}
    directories |= {os.path.normpath(Path(piece.source).parent) for piece in pieces}
    names = []
    for directory in sorted(directories):
        for parent, below, files in os.walk(options.root / directory):
            below.sort()
            names += [f"{os.path.relpath(parent, options.root)}/{name}" for name in sorted(files)]
    return names


def _encode(compiled: CompiledObject, data: bytes, files: Sequence[str], inputs: _Inputs) -> bytes:
    head = {
        "name": compiled.name,
        "platform": compiled.platform,
        "compiler": compiled.toolchain.compiler,
        "flags": compiled.toolchain.flags,
        "source": [compiled.source.path, compiled.source.sha256],
        "headers": dict(compiled.headers),
        "inputs": {name: inputs.digest(name) for name in files},
    }
    return json.dumps(head).encode() + b"\n" + data


def _decode(entry: bytes, inputs: _Inputs) -> tuple[Compiled, list[str]] | None:
    """Return the object of *entry* and its input files, or None if one of these files has changed."""
    line, _, data = entry.partition(b"\n")
    head = json.loads(line)  # trusted: only this user can write entries, and the cache compared the digest
    if any(not digest or inputs.digest(name) != digest for name, digest in head["inputs"].items()):
        return None
    path, sha256 = head["source"]
    compiled = CompiledObject(
        path=Path(head["name"]),
        name=head["name"],
        platform=head["platform"],
        sha256=Digest(hashlib.sha256(data).hexdigest()),
        toolchain=ToolchainInfo(compiler=head["compiler"], flags=tuple(head["flags"])),
        source=SourceInfo(path=path, sha256=Digest(sha256)),
        headers=head["headers"],
    )
    return (compiled, data), list(head["inputs"])
