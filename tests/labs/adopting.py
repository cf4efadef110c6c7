# SPDX-License-Identifier: Apache-2.0
"""
Projects in miniature, each with the layout, the build files and the settings of one kind of agent.

Their programs check by array sizes of -1 that flags and headers are those that the build file names: a wrong
setting is an error of the compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HEAD = """\
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
"""
PLAIN = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
"""
TYPES = """\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;
typedef unsigned long size_t;
typedef unsigned short __u16;
typedef unsigned char __u8;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
enum bpf_map_type {{ BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2 }};
struct pt_regs {{ unsigned long {register}; }};
struct __sk_buff {{ __u32 len; }};
struct iphdr {{ __u8 ttl; }};
struct ipv6hdr {{ __u8 ttl; }};
struct tcphdr {{ __u16 source; }};
{more}
#define TYPES_OF_{arch} 1
#endif
"""
_GO = "//go:generate go run github.com/cilium/ebpf/cmd/bpf2go@v0.21.0 -cc clang"
_TARGETS = "-target amd64,arm64"
_HEADERS = "-- -I../../bpf/headers"
USER = (
    '#include <stdio.h>\n#include <bpf/libbpf.h>\n#include "{name}.skel.h"\nint main(void) {{ return 0; }}\n'
)


def types(arch: str) -> str:
    """Return a small vmlinux.h for *arch*, a name of __TARGET_ARCH_*."""
    more = "struct user_pt_regs { __u64 regs[31]; };" if arch == "arm64" else ""
    return TYPES.format(arch=arch, register="di" if arch == "x86" else "regs", more=more)


def program(name: str, *checks: str, head: str = PLAIN, before: str = "", section: str = "socket") -> str:
    """Return a source with program *name*. It compiles only if all *checks*, constant expressions, hold."""
    sizes = "".join(f"char check_{name}_{at}[({each}) ? 1 : -1];\n" for at, each in enumerate(checks))
    return (
        f"{head}{before}{sizes}"
        "struct {\n\t__uint(type, BPF_MAP_TYPE_ARRAY);\n\t__uint(max_entries, 1);\n"
        f'\t__type(key, __u32);\n\t__type(value, __u64);\n}} {name}_counts SEC(".maps");\n'
        f'SEC("{section}") int {name}(void *ctx)\n{{\n\t__u32 key = 0;\n'
        f"\treturn bpf_map_lookup_elem(&{name}_counts, &key) != 0;\n}}\n"
        'char LICENSE[] SEC("license") = "GPL";\n'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """
    A project: texts of *files* by path, and the *objects* that adopting makes of them.

    *config* are lines of the new buildtool.toml, *notes* are parts of the lines on stderr, and *lines* is
    the largest number of lines. *absent* are objects that one architecture does not have.
    """

    files: dict[str, str]
    objects: tuple[str, ...]
    config: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lines: int = 10
    absent: tuple[tuple[str, str], ...] = ()

    def write(self, root: Path) -> Path:
        """Write the project into *root*."""
        for name, text in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root


_ONE = "defined(TYPES_OF_x86) + defined(TYPES_OF_arm64) == 1"
_ARCH_CHECK = "#if !defined(TYPES_OF_x86) == !defined(TYPES_OF_arm64)\n#error both or none\n#endif\n"
_OWN_TYPES = (
    _ARCH_CHECK
    + "#if defined(__TARGET_ARCH_arm64) != defined(TYPES_OF_arm64)\n#error another architecture\n#endif\n"
)

FLAT = Layout(
    files={
        "tools/Makefile": """\
OUTPUT := $(abspath .output)
CLANG ?= clang
ARCH ?= $(shell uname -m | sed 's/x86_64/x86/' | sed 's/aarch64/arm64/')
INCLUDES := -I$(OUTPUT) -I../common/uapi
CFLAGS := -g -O2 -Wall -DUSER_SPACE
BPFCFLAGS := -g -O2 -Wall -DLIMIT=16
BPFCFLAGS_slow := $(BPFCFLAGS) -mcpu=v2 -DSLOW
APPS = fast slow

$(APPS): %: $(OUTPUT)/%.o
	$(Q)$(CC) $(CFLAGS) $^ -lelf -lz -o $@

$(OUTPUT)/slow.bpf.o: BPFCFLAGS = $(BPFCFLAGS_slow)

$(OUTPUT)/%.bpf.o: %.bpf.c $(wildcard %.h) $(ARCH)/vmlinux.h | $(OUTPUT)
	$(call msg,BPF,$@)
	$(Q)$(CLANG) $(BPFCFLAGS) -target bpf -D__TARGET_ARCH_$(ARCH) \\
		-I$(ARCH)/ $(INCLUDES) -c $(filter %.c,$^) -o $@ && \\
	llvm-strip -g $@
""",
        "tools/fast.bpf.c": program(
            "fast",
            "LIMIT == 16",
            "UAPI == 1",
            "WIDTH == 4",
            head=HEAD,
            before=_OWN_TYPES + '#include "fast.h"\n#include <shared.h>\n#ifdef SLOW\n#error slow\n#endif\n',
        ),
        "tools/slow.bpf.c": program("slow", "SLOW", head=HEAD, before=_OWN_TYPES),
        "tools/fast.h": "#define WIDTH 4\n",
        "tools/fast.c": USER.format(name="fast"),
        "tools/slow.c": USER.format(name="slow"),
        "common/uapi/shared.h": "#define UAPI 1\n",
        "tools/x86/vmlinux.h": types("x86"),
        "tools/arm64/vmlinux.h": types("arm64"),
    },
    objects=("fast.bpf.o", "slow.bpf.o"),
    config=('amd64.include = ["tools/x86"]', 'arm64.include = ["tools/arm64"]'),
)

SAMPLES = Layout(
    files={
        "samples/Makefile": """\
obj := .
src := .
always = counter_kern.o
always += filter_kern.o
LLC ?= llc
CLANG ?= clang
INCLUDEFLAGS = -I$(obj)/usr/include -I$(obj)/include

all: $(always)

$(obj)/%.o: $(src)/%.c
	$(CLANG) $(INCLUDEFLAGS) -D__KERNEL__ -DSAMPLE=3 -Wno-unused-value -Wno-pointer-sign \\
		-O2 -emit-llvm -c -g $< -o -| $(LLC) -march=bpf -filetype=obj -o $@
""",
        "samples/counter_kern.c": program(
            "counter", "SAMPLE == 3", "PORT == 80", before='#include "ports.h"\n#include <string.h>\n'
        ),
        "samples/filter_kern.c": program("filter", "SAMPLE == 3"),
        "samples/counter_user.c": USER.format(name="counter"),
        "samples/bpf_load.c": "#include <stdio.h>\nint load(void) { return 0; }\n",
        "samples/include/ports.h": "#define PORT 80\n",
    },
    objects=("counter_kern.o", "filter_kern.o"),
    config=('sources = ["samples/*_kern.c"]', 'include = ["samples/include"]'),
)

BPF2GO = Layout(
    files={
        "go.mod": "module agent\n\ngo 1.24\n",
        "Makefile": """\
generate: export BPF_CFLAGS := -O2 -g -Wall -Werror -DDEPTH=5 $(EXTRA)
generate:
	go generate ./...
""",
        "internal/flows/gen.go": f"""\
package flows

{_GO} -cflags $BPF_CFLAGS {_TARGETS} -type event_t -type flow_id Flows ../../bpf/flows.c {_HEADERS}
{_GO} -tags linux {_TARGETS} -no-strip Old ../../bpf/flows.c {_HEADERS} -DLEGACY_KERNEL -DDEPTH=5
//go:generate go tool bpf2go -cflags "-DDEPTH=6" -target amd64 Drops ../../bpf/drops.c {_HEADERS}
""",
        "bpf/flows.c": program(
            "flows", "DEPTH == 5", "NAMES == 7", before='#include "names.h"\n#ifdef LEGACY_KERNEL\n#endif\n'
        ),
        "bpf/drops.c": program("drops", "DEPTH == 6", "NAMES == 7", before='#include "names.h"\n'),
        "bpf/unfinished.c": '#include "names.h"\nSEC("socket") int x(void *c) { return y; }\n',
        "bpf/headers/names.h": "#define NAMES 7\n",
        "vendor/example/other.c": program("other"),
    },
    objects=("drops.o", "flows-Flows.o", "flows-Old.o"),
    config=('include = ["bpf/headers"]', 'arm64.exclude = ["bpf/drops.c"]'),
    notes=("bpf/unfinished.c: left out: no build file names it",),
    absent=(("arm64", "drops.o"),),
)

RUST = Layout(
    files={
        "Cargo.toml": '[workspace]\nmembers = ["agent", "agent-ebpf"]\n',
        "agent/Cargo.toml": '[package]\nname = "agent"\n[build-dependencies]\nlibbpf-cargo = "0.25"\n',
        "agent/build.rs": """\
use libbpf_cargo::SkeletonBuilder;
use std::ffi::OsStr;
const SRC: &str = "src/bpf/agent.bpf.c";
fn main() {
    // SkeletonBuilder::new().source("src/bpf/old.bpf.c")
    SkeletonBuilder::new()
        .source(SRC)
        .clang_args([OsStr::new("-I"), OsStr::new("include"), OsStr::new("-DRINGS=2")])
        .clang_args(["-mcpu=v4"])
        .build_and_generate("out")
        .unwrap();
}
""",
        "agent/src/bpf/agent.bpf.c": program(
            "agent", "RINGS == 2", "SHARED == 9", before='#include "shared.h"\n'
        ),
        "agent/include/shared.h": "#define SHARED 9\n",
        "agent/src/main.rs": "fn main() {}\n",
        "agent-ebpf/Cargo.toml": '[package]\nname = "agent-ebpf"\n[dependencies]\naya-ebpf = "0.1"\n',
        "agent-ebpf/src/main.rs": "#![no_std]\n#![no_main]\n",
    },
    objects=("agent.bpf.o",),
    config=('flags = ["-DRINGS=2", "-mcpu=v4"]', 'include = ["agent/include"]'),
    notes=("agent-ebpf/Cargo.toml: programs in Rust (aya)",),
)

MESON = Layout(
    files={
        "meson.build": """\
project('agent', 'c')
clang = find_program('clang')
bpf_arch = host_machine.cpu_family()
bpf_cflags = ['-O2', '-g', '-target', 'bpf', '-DFROM_MESON=1']  # of all programs
bpf_cflags += ['-Wno-pointer-sign', '-D__TARGET_ARCH_@0@'.format(bpf_arch)]
subdir('src/bpf')
""",
        "src/bpf/meson.build": """\
foreach name : ['watch', 'trace']
  custom_target(name + '_o',
    input : name + '.bpf.c',
    output : name + '.bpf.o',
    command : [clang, bpf_cflags, '-I', '@CURRENT_SOURCE_DIR@/../include', '-c', '@INPUT@', '-o', '@OUTPUT@'])
endforeach
""",
        "src/bpf/watch.bpf.c": program("watch", "FROM_MESON", "INC == 3", before='#include "inc.h"\n'),
        "src/bpf/trace.bpf.c": program("trace", "FROM_MESON"),
        "src/include/inc.h": "#define INC 3\n",
        "src/main.c": USER.format(name="watch"),
    },
    objects=("trace.bpf.o", "watch.bpf.o"),
    config=('sources = ["src/bpf/*.bpf.c"]',),
)

CMAKE = Layout(
    files={
        "CMakeLists.txt": """\
cmake_minimum_required(VERSION 3.16)
project(agent C)  # an agent
add_subdirectory(driver)
""",
        "driver/CMakeLists.txt": """\
find_program(CLANG_EXE NAMES clang)
set(DRIVER_TARGET_ARCH ${CMAKE_SYSTEM_PROCESSOR})
set(CLANG_FLAGS "")
list(APPEND CLANG_FLAGS -g -O2 -target bpf -D__USE_TYPES__ "-DDRIVER_NAME=\\"a driver\\""
     -I${CMAKE_CURRENT_SOURCE_DIR} -I${CMAKE_CURRENT_SOURCE_DIR}/types/${DRIVER_TARGET_ARCH}
     -I${CMAKE_CURRENT_BINARY_DIR}/generated)
file(GLOB_RECURSE SOURCES ${CMAKE_CURRENT_SOURCE_DIR}/*.bpf.c)
foreach(SOURCE ${SOURCES})
  get_filename_component(NAME ${SOURCE} NAME_WE)
  add_custom_command(
    OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${NAME}.bpf.o
    COMMAND ${CLANG_EXE} ${CLANG_FLAGS} -c ${SOURCE} -o ${CMAKE_CURRENT_BINARY_DIR}/${NAME}.bpf.o
    VERBATIM DEPENDS ${SOURCE} COMMENT "Building ${NAME}")
endforeach()
""",
        "driver/events/open.bpf.c": program(
            "open_event",
            "HELPERS == 2",
            "sizeof(DRIVER_NAME) == 9",
            "defined_types",
            head=HEAD,
            before=_OWN_TYPES
            + "#include <helpers/base.h>\n#ifdef __USE_TYPES__\n#define defined_types 1\n#endif\n",
        ),
        "driver/events/close.bpf.c": program("close_event", head=HEAD, before=_OWN_TYPES),
        "driver/helpers/base.h": "#define HELPERS 2\n",
        "driver/types/x86_64/vmlinux.h": types("x86"),
        "driver/types/aarch64/vmlinux.h": types("arm64"),
        "src/main.c": USER.format(name="open"),
    },
    objects=("close.bpf.o", "open.bpf.o"),
    config=('arm64.include = ["driver/types/aarch64"]',),
)

EQUAL_NAMES = Layout(
    files={
        **{
            f"probes/{name}/{file}": text
            for name in ("tcp", "udp", "dns")
            for file, text in {
                "Makefile": "main.bpf.o: main.bpf.c\n"
                f"\tclang -O2 -g --target=bpf -DKIND={len(name) + ord(name[0])} -I. -I../lib -c $< -o $@\n",
                "main.bpf.c": program(
                    f"{name}_main",
                    f"KIND == {len(name) + ord(name[0])}",
                    f"OWN == {ord(name[0])}",
                    before='#include <own.h>\n#include "lib.h"\n',
                ),
                "own.h": f"#define OWN {ord(name[0])}\n",
            }.items()
        },
        "probes/lib/lib.h": "#define LIB 1\n",
        "cmd/main.c": USER.format(name="main"),
    },
    objects=("dns.main.bpf.o", "tcp.main.bpf.o", "udp.main.bpf.o"),
    config=('sources = ["probes/**/*.bpf.c"]',),
)

NO_TYPES = Layout(
    files={
        "Makefile": """\
ARCH := $(shell uname -m)
bpf/%.o: bpf/%.c vmlinux.h
	clang -g -O2 --target=bpf -D__TARGET_ARCH_$(ARCH) -I. -c $< -o $@
vmlinux.h:
	bpftool btf dump file /sys/kernel/btf/vmlinux format c > $@
""",
        "bpf/sched.c": program("sched", head=HEAD, before=_OWN_TYPES),
        ".gitignore": "vmlinux.h\n",
    },
    objects=("sched.o",),
    config=('amd64.include = ["vmlinux/amd64"]', 'arm64.include = ["vmlinux/arm64"]'),
    notes=("&& buildtool vmlinux --arch amd64,arm64 && ",),
)

GENERATED = Layout(
    files={
        "Makefile": """\
all: bpf/limit.bpf.o
bpf/gen/limits.h: tools/limits.py
	python3 tools/limits.py > $@
bpf/%.bpf.o: bpf/%.bpf.c bpf/gen/limits.h
	clang -O2 -g -target bpf -Ibpf/gen -c $< -o $@
""",
        "tools/limits.py": 'print("#define LIMIT 12")\n',
        "bpf/limit.bpf.c": program("limit", "LIMIT == 12", before="#include <limits/../limits.h>\n").replace(
            "#include <limits/../limits.h>", '#include "gen/limits.h"'
        ),
    },
    objects=("limit.bpf.o",),
    config=('generate = [{ output = "bpf/gen/limits.h", command = ["python3", "tools/limits.py"] }]',),
    notes=("Makefile:2: bpf/gen/limits.h: `buildtool generate` makes it",),
)

VARIANTS = Layout(
    files={
        "tracer/Dockerfile": """\
FROM alpine:3
COPY ebpf /tmp/ebpf
WORKDIR /tmp/ebpf
RUN clang -g -O2 -target bpf -D__KERNEL_FROM=420 -D__TARGET_ARCH_x86 -c ebpf.c -o ebpf420x86.o
RUN clang -g -O2 -target bpf -D__KERNEL_FROM=512 -D__TARGET_ARCH_x86 -c ebpf.c -o ebpf512x86.o && \\
    llvm-strip --strip-debug ebpf512x86.o
RUN clang -g -O2 -target bpf -D__KERNEL_FROM=420 -D__TARGET_ARCH_arm64 -c ebpf.c -o ebpf420arm64.o
RUN clang -g -O2 -target bpf -D__KERNEL_FROM=512 -D__TARGET_ARCH_arm64 -c ebpf.c -o ebpf512arm64.o
""",
        "tracer/ebpf/ebpf.c": PLAIN + '#include "tcp/state.c"\n#include "file.c"\n'
        'char LICENSE[] SEC("license") = "GPL";\n',
        "tracer/ebpf/tcp/state.c": program("state", "__KERNEL_FROM >= 420", head="").rpartition("char LIC")[
            0
        ],
        "tracer/ebpf/file.c": program("file", head="").rpartition("char LIC")[0],
    },
    objects=("ebpf-ebpf420.o", "ebpf-ebpf512.o"),
)

SCRIPT = Layout(
    files={
        "build.sh": """\
#!/bin/bash
set -e
FLAGS="-O2 -g -DSCRIPT=1"
INC=src/include
for f in one two; do
  clang $FLAGS -target bpf -I$INC -c src/kern/$f.kern.c -o out/$f.o
done
clang ${FLAGS} -target bpf -I"${INC}" -c src/kern/one.kern.c -o out/one.o
""",
        "src/kern/one.kern.c": program("one", "SCRIPT", "SIDE == 1", before='#include "side.h"\n'),
        "src/kern/two.kern.c": program("two", "SIDE == 1", before='#include "side.h"\n'),
        "src/include/side.h": "#define SIDE 1\n",
    },
    objects=("one.kern.o", "two.kern.o"),
    config=('sources = ["src/kern/*.kern.c"]',),
)

LINKED = Layout(
    files={
        "Makefile": """\
OUT := out
$(OUT)/%.bpf.o: src/%.bpf.c
	clang -O2 -g -target bpf -DPARTS=2 -c $< -o $@
$(OUT)/agent.bpf.o: $(OUT)/entry.bpf.o $(OUT)/state.bpf.o
	bpftool gen object $@ $^
""",
        "src/entry.bpf.c": PLAIN
        + "extern int state(int key);\n"
        + 'SEC("socket") int entry(struct __sk_buff *packet)\n{\n\treturn state(PARTS);\n}\n'
        + 'char LICENSE[] SEC("license") = "GPL";\n',
        "src/state.bpf.c": PLAIN
        + "struct {\n\t__uint(type, BPF_MAP_TYPE_ARRAY);\n\t__uint(max_entries, PARTS);\n"
        + '\t__type(key, __u32);\n\t__type(value, __u64);\n} states SEC(".maps");\n'
        + "int state(int key)\n{\n\treturn bpf_map_lookup_elem(&states, &key) != 0;\n}\n"
        + 'char LICENSE[] SEC("license") = "GPL";\n',
        "src/alone.bpf.c": program("alone", "PARTS == 2"),
    },
    objects=("agent.bpf.o", "alone.bpf.o"),
    config=('object = [{ name = "agent.bpf.o", sources = ["src/entry.bpf.c", "src/state.bpf.c"] }]',),
)

# Sections that cilium/ebpf and libbpf before 1.0 know by their beginnings.
SECTIONS = Layout(
    files={
        "src/net.bpf.c": program("net", section="classifier/one"),
        "src/more.bpf.c": program("more", section="classifier/two"),
        "src/sock.bpf.c": program("sock", section="socket1"),
        "src/known.bpf.c": program("known", section="tc"),
    },
    objects=("net.bpf.o", "more.bpf.o", "sock.bpf.o", "known.bpf.o"),
    config=(
        'program = [{ section = "classifier/*", loaded-as = "tc" },',
        '           { section = "socket1", loaded-as = "socket" }]',
    ),
)

LAYOUTS = {
    "sections": SECTIONS,
    "linked": LINKED,
    "flat": FLAT,
    "samples": SAMPLES,
    "bpf2go": BPF2GO,
    "rust": RUST,
    "meson": MESON,
    "cmake": CMAKE,
    "equal-names": EQUAL_NAMES,
    "no-types": NO_TYPES,
    "generated": GENERATED,
    "variants": VARIANTS,
    "script": SCRIPT,
}
