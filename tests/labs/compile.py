# SPDX-License-Identifier: Apache-2.0
"""Compile BPF sources, with the machine's clang or by the product."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labs import TOP

SOURCE = """
typedef unsigned int __u32;
typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __ulong(name, val) enum { unique_##name = val } name
struct key { __u32 a; __u64 b; };
typedef struct key key_t;
struct { __uint(type, 1); __uint(max_entries, 128);
         __type(key, key_t); __type(value, __u64[3]); } counts SEC(".maps");
struct { __uint(type, 6); __uint(max_entries, 2);
         __uint(key_size, 4); __uint(value_size, 16); } per_cpu SEC(".maps");
struct { __uint(type, 27); __uint(max_entries, 4096); } events SEC(".maps");
struct inner { __uint(type, 2); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); };
struct { __uint(type, 12); __uint(max_entries, 3); __uint(key_size, 4);
         struct inner *values[]; } outer SEC(".maps");
static void *(*lookup)(void *map, const void *key) = (void *)1;
static long (*delete)(void *map, const void *key) = (void *)3;
static void *(*reserve)(void *map, __u64 size, __u64 flags) = (void *)131;
static void (*submit)(void *data, __u64 flags) = (void *)132;
extern void bpf_rcu_read_lock(void) __attribute__((section(".ksyms")));
extern void bpf_rcu_read_unlock(void) __attribute__((section(".ksyms")));
static __attribute__((noinline)) int sub(__u32 k)
{
    key_t key = {};
    key.a = k;
    __u64 *v = lookup(&counts, &key);
    return v ? (int)*v : 0;
}
__attribute__((noinline)) int global_sub(__u32 k) { return delete(&per_cpu, &k); }
SEC("xdp") int pass(void *ctx) { return sub(1) > 100 ? 1 : 2; }
SEC("?tracepoint/net/net_dev_queue") int trace(void *ctx)
{
    bpf_rcu_read_lock();
    __u64 *e = reserve(&events, 8, 0);
    if (e)
        submit(e, 0);
    bpf_rcu_read_unlock();
    return global_sub(2);
}
SEC("xdp") int second(void *ctx) { return lookup(&outer, ctx) ? 2 : 1; }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""

# The map of this object has another layout on arm64, so an agent would read wrong bytes there.
DIFFERS = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct event {
	__u32 pid;
#ifdef __TARGET_ARCH_arm64
	__u64 stamp;
#endif
	__u32 size;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event);
} events SEC(".maps");
SEC("socket") int differs(void *c) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""


def find_tool(*names: str) -> str:
    """Return the first of *names* that is on PATH, or skip."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"needs-tool: {names[0]}")
    return found


def compile_sample(
    directory: Path, *, target: str = "bpfel", source: str = SOURCE, strip: bool = True
) -> Path:
    """Compile *source* for *target* into *directory*."""
    clang = find_clang()
    text, obj = directory / "x.bpf.c", directory / "x.bpf.o"
    text.write_text(source)
    flags = ["-O2", "-g", "-Wall", "-Werror", "-Wno-unused-function", f"--target={target}"]
    subprocess.run([clang, *flags, "-c", text, "-o", obj], check=True)
    if strip:
        llvm_strip = find_tool(
            "llvm-strip", "llvm-strip-19", "llvm-strip-22", "llvm-strip-16", "llvm-strip-14"
        )
        subprocess.run([llvm_strip, "-g", obj], check=True)
    return obj


def find_clang() -> Path:
    """Return the newest clang of this machine, or skip."""
    return Path(find_tool("clang-22", "clang-21", "clang-20", "clang-19", "clang"))


def include_options(sysroot: Path) -> list[str]:
    """Return the options with which clang finds libbpf's and the kernel's headers of *sysroot*."""
    include = sysroot / "usr/include"
    return [f"-I{include}", *(f"-I{path}" for path in sorted(include.glob("*-linux-gnu*")))]


def compile_shipped(name: str, directory: Path, *options: str) -> Path:
    """Compile `bpf/NAME.bpf.c` by the product into *directory*, by default for this machine."""
    command = [sys.executable, "-m", "buildtool", "compile", f"bpf/{name}.bpf.c", "--output", str(directory)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, cwd=TOP)
    assert done.returncode == 0, done.stderr
    return directory / f"{name}.bpf.o"


def compile_object(
    directory: Path, clang: Path, sysroot: Path, source: str, name: str = "x", target: str = "bpfel"
) -> Path:
    """Compile *source* as bpf/NAME.bpf.c with libbpf's headers of *sysroot* to NAME.bpf.o in *directory*."""
    text = directory / "bpf" / f"{name}.bpf.c"
    text.parent.mkdir(exist_ok=True)
    text.write_text(source)
    flags = [f"--target={target}", "-O2", "-g", *include_options(sysroot)]
    # Like the product, run in the project's directory, so that clang finds the text of each line.
    flags += [f"-ffile-prefix-map={directory}=.", "-fdebug-compilation-dir=."]
    subprocess.run(
        [clang, *flags, "-c", f"bpf/{text.name}", "-o", f"{name}.bpf.o"], cwd=directory, check=True
    )
    return directory / f"{name}.bpf.o"
