# SPDX-License-Identifier: Apache-2.0
"""
Objects, trust stores and runs of the loader for its tests.

The names of all programs and maps have a prefix of this process, so that tests find those that the loader
leaves behind.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labs import TOP
from labs.compile import include_options
from labs.handsig import Key, sign
from labs.kernel import list_bpf
from labs.run import wait_until

PREFIX = f"lt{os.getpid() % 100000}"
WAIT_SECONDS = 10.0
# Runs of mutants wait less for what a changed loader leaves behind.
FREE_SECONDS = float(os.environ.get("TEST_FREE_SECONDS", "60"))
_numbers = itertools.count()

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); }
    @_map SEC(".maps");
static __always_inline void count(void)
{
    __u32 zero = 0;
    __u64 *value = bpf_map_lookup_elem(&@_map, &zero);
    if (value)
        __sync_fetch_and_add(value, 1);
}
char LICENSE[] SEC("license") = "GPL";
"""
SOURCES = {
    "xdp": 'SEC("xdp") int @_xdp(struct xdp_md *c) { count(); return XDP_PASS; }',
    "tcx": 'SEC("tcx/ingress") int @_tcx(struct __sk_buff *c) { count(); return TCX_NEXT; }',
    "tc": 'SEC("tc") int @_tc(struct __sk_buff *c) { count(); return TCX_NEXT; }',
    "cgroup": 'SEC("cgroup_skb/egress") int @_cg(struct __sk_buff *c) { count(); return 1; }',
    "raw_tp": 'SEC("raw_tp/sys_enter") int @_raw(void *c) { count(); return 0; }',
    "raw_tp_2": 'SEC("raw_tp/sys_enter") int @_raw(void *c) { count(); count(); return 0; }',
    "nowhere": 'SEC("tracepoint") int @_tp(void *c) { count(); return 0; }',
    "optional": 'SEC("?xdp") int @_opt(struct xdp_md *c) { count(); return XDP_PASS; }'
    ' SEC("raw_tp/sys_enter") int @_raw(void *c) { count(); return 0; }',
    "refused": 'SEC("raw_tp/sys_enter") int @_bad(__u64 *c) { return *(__u64 *)(long)c[0]; }',
    # An allowed program beside a struct_ops map that replaces the scheduler without any program.
    "scheduler": "struct sched_ext_ops { char name[128]; };"
    ' SEC(".struct_ops.link") struct sched_ext_ops @_sched = { .name = "@" };'
    ' SEC("xdp") int @_pass(struct xdp_md *c) { return XDP_PASS; }',
    # libbpf initializes struct_ops maps only from their own sections, and crashes on this one.
    "lost_ops": "struct { __uint(type, BPF_MAP_TYPE_STRUCT_OPS); __uint(max_entries, 1); __type(key, __u32);"
    ' __type(value, __u64); __uint(map_flags, BPF_F_LINK); } @_lost SEC(".maps");'
    ' SEC("raw_tp/sys_enter") int @_raw(void *c) { return 0; }',
    "pinned": "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);"
    ' __type(value, __u64); __uint(pinning, LIBBPF_PIN_BY_NAME); } @_pin SEC(".maps");'
    ' SEC("raw_tp/sys_enter") int @_raw(void *c) { __u32 k = 0; bpf_map_lookup_elem(&@_pin, &k); return 0; }',
}


@dataclass(frozen=True)
class Result:
    """The result of a finished run of the loader: exit code, decision lines, stdout."""

    code: int
    lines: list[dict[str, Any]]
    stdout: str

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of one event."""
        return [line for line in self.lines if line["event"] == kind]

    @property
    def reasons(self) -> list[str]:
        """Return the reasons of all refused objects."""
        return [line["reason"] for line in self.lines if line.get("decision") == "refused"]

    @property
    def message(self) -> str:
        """Return the message of the one error line."""
        (line,) = self.events("error")
        return str(line["message"])


class Lab:
    """Compiles test objects once, and runs the loader on them."""

    def __init__(self, *, clang: Path, sysroot: Path, loader: Path, directory: Path) -> None:
        self.loader = loader
        self.key = Key()
        self._clang, self._sysroot, self._directory = clang, sysroot, directory
        self._objects: dict[str, bytes] = {}

    @property
    def pins(self) -> Path:
        """Return the path of ebpf-pins, beside the loader."""
        return self.loader.with_name("ebpf-pins")

    def object(self, kind: str) -> bytes:
        """Return the unsigned object of SOURCES[*kind*]."""
        if kind not in self._objects:
            self._objects[kind] = self.compile(self._directory, (HEAD + SOURCES[kind]).replace("@", PREFIX))
        return self._objects[kind]

    def compile(self, directory: Path, text: str) -> bytes:
        """Return the unsigned object of source *text*, compiled in *directory*."""
        source = directory / "source.bpf.c"
        source.write_text(text)
        output = source.with_suffix(".o")
        argv = [self._clang, "-target", "bpf", "-O2", "-g", *include_options(self._sysroot)]
        subprocess.run([*argv, "-c", source, "-o", output], check=True)
        return output.read_bytes()

    def signed(self, kind: str, **changes: Any) -> bytes:
        """Return the object signed by the lab's key."""
        return sign(self.object(kind), [self.key], name=f"{kind}.bpf.o", **changes)

    def replace(self, directory: Path, old: str, new: str, **changes: Any) -> None:
        """Replace object *old* by the code of *new*, signed under the name of *old*."""
        data = sign(self.object(new), [self.key], name=f"{old}.bpf.o", **changes)
        (directory / "objects" / f"{old}.bpf.o").write_bytes(data)

    def put(self, directory: Path, *kinds: str, **changes: Any) -> Path:
        """Write signed objects and the trust store into *directory*; return the objects' directory."""
        objects = directory / "objects"
        objects.mkdir(exist_ok=True)
        for kind in kinds:
            (objects / f"{kind}.bpf.o").write_bytes(self.signed(kind, **changes))
        self.trust(directory)
        return objects

    def trust(self, directory: Path) -> Path:
        """Write a trust store with the lab's key."""
        store = directory / "trust"
        store.mkdir(exist_ok=True)
        (store / "dev.pub").write_bytes(self.key.pem)
        return store

    def argv(self, directory: Path, *arguments: str) -> list[str]:
        """Return the command line for what `put` wrote."""
        paths = ["--objects", str(directory / "objects"), "--trust", str(directory / "trust")]
        return [str(self.loader), *paths, *arguments]

    def run(self, directory: Path, *arguments: str, before: Sequence[str] = ()) -> Result:
        """Run the loader to its end; *before* is a command that runs it."""
        argv = [*before, *self.argv(directory, *arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        return Result(done.returncode, parse(done.stderr), done.stdout)

    @contextmanager
    def started(
        self, directory: Path, *arguments: str, before: Sequence[str] = ()
    ) -> Iterator[tuple[subprocess.Popen[str], Callable[[int], Result]]]:
        """Run the loader until it is ready. Yield the process, and a function that signals and reaps it."""
        log = directory / f"stderr{next(_numbers)}"
        with log.open("w") as stream:
            argv = [*before, *self.argv(directory, *arguments)]
            process = subprocess.Popen(argv, stderr=stream, stdout=subprocess.PIPE, text=True)

        def stop(number: int = signal.SIGTERM) -> Result:
            process.send_signal(number)
            stdout, _ = process.communicate(timeout=WAIT_SECONDS)
            return Result(process.returncode, parse(log.read_text()), stdout)

        try:
            ready = wait_until(lambda: '"event":"ready"' in log.read_text() or process.poll() is not None)
            assert ready, log.read_text()
            assert process.poll() is None, log.read_text()
            yield process, stop
        finally:
            process.kill()
            process.communicate()


SCHEMA = TOP / "spec/decision-lines.schema.json"


@functools.cache
def _validator() -> Any:
    """Return a validator of decision lines, cached because the library is slow to import."""
    import jsonschema

    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check_line(line: dict[str, Any]) -> None:
    """Check a decision line against its schema. The error shows the causes for the line's event."""
    for error in _validator().iter_errors(line):
        causes = [cause.message for cause in error.context if "was expected" not in cause.message]
        raise AssertionError(f"{line}: {error.message[-200:]} {causes}")


def parse(stderr: str) -> list[dict[str, Any]]:
    """Return the decision lines, checked."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in stderr.splitlines()]
    for line in lines:
        check_line(line)
    return lines


def in_kernel() -> list[str]:
    """
    Return the names of this process's programs and maps in the kernel. A link keeps its program.

    Tables of tail calls are left out. The kernel takes a reference whenever the last descriptor of one is
    closed, and gives one back (prog_array_map_clear), so a second descriptor in that moment, as of a list of
    all maps, leaves the table there for ever.
    """
    return sorted(
        x["name"]
        for kind in ("prog", "map")
        for x in list_bpf(kind)
        if x.get("name", "").startswith(PREFIX) and x["type"] != "prog_array"
    )


def is_clean() -> bool:
    """Return whether the kernel has freed all of this process's programs and maps, after waiting for it."""
    return wait_until(lambda: not in_kernel(), FREE_SECONDS)


def counted() -> int:
    """Return the value of this process's only counting map."""
    (found,) = [m for m in list_bpf("map") if m.get("name") == f"{PREFIX}_map"]
    argv = ["bpftool", "-j", "map", "lookup", "id", str(found["id"]), "key", "0", "0", "0", "0"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return int.from_bytes(bytes(int(byte, 16) for byte in json.loads(done.stdout)["value"]), "little")


def program_ids() -> set[int]:
    """Return the ids of this process's programs in the kernel."""
    return {program["id"] for program in list_bpf("prog") if program.get("name", "").startswith(PREFIX)}
