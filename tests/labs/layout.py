# SPDX-License-Identifier: Apache-2.0
"""A project with the layout of existing projects: names, folders, flags and headers of many kinds."""

from __future__ import annotations

from pathlib import Path

_PROGRAM = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("socket") int {name}(void *c) {{ return {value}; }}
char LICENSE[] SEC("license") = "GPL";
"""
# The assertions hold only if the source has its own name and the define its own text.
_STRICT = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "shared.h"
_Static_assert(sizeof(LABEL) == sizeof("a \\"b\\" $HOME \\\\ `c` <<d"), "the text of a macro");
_Static_assert(sizeof(__FILE_NAME__) == sizeof("six.c"), "the name of the file");
#ifdef __STRICT_ANSI__
#error compiled with another standard
#endif
struct head { const char *name; int references; };
struct file_name { struct head; char inline_name[8]; };
_Static_assert(sizeof(struct file_name) == 24, "a member without a name was dropped");
const char own_place[] SEC(".rodata.own") = __FILE__;
const volatile int level = LEVEL;
SEC("socket") int six(void *c) { return shared(level); }
char LICENSE[] SEC("license") = "GPL";
"""
_SHARED = """\
const char shared_place[] SEC(".rodata.shared") = __FILE__;
#include "deep/inner.h"
static inline int shared(int x) { return x + INNER; }
"""
_CONFIG = """\
[project]
name = "layout"
[compile]
sources = ["bpf/**/*.bpf.c", "src/*.c", "top.c"]
exclude = ["src/user_*.c"]
include = ["../outside/include", "."]
flags = ['-DLABEL="a \\"b\\" $HOME \\\\ `c` <<d"', "-std=gnu11", "-DLEVEL=1"]
[compile.arm64]
flags = ["-mcpu=v2"]
[[compile.rule]]
match = ["src/six.c"]
arch = ["arm64"]
flags = ["-DLEVEL=2"]
[[compile.object]]
name = "four-debug.o"
source = "src/four.ebpf.c"
flags = ["-DVALUE=44"]
[[compile.object]]
name = "four.o"
source = "src/four.ebpf.c"
flags = ["-DVALUE=4"]
[[compile.program]]
section = "socket1"
loaded-as = "socket"
[sign]
key = "keys/dev.pem"
[build]
allow-differences = ["six.o"]
"""
# The name of each object in the image, and its file below build/ARCH.
OBJECTS = {
    "five.o": "five.o",
    "four-debug.o": "four-debug.o",
    "four.o": "four.o",
    "one.program.bpf.o": "one/program.bpf.o",
    "six.o": "six.o",
    "three_kern.o": "three_kern.o",
    "top.o": "top.o",
    "two.program.bpf.o": "two/program.bpf.o",
}
PLACES = ("\0src/six.c\0", "\0../outside/include/shared.h\0")  # in six.o


def write_layout(root: Path) -> Path:
    """Write the project below *root*, with headers beside the project, and return its directory."""
    files = {
        "outside/include/shared.h": _SHARED,
        "outside/include/deep/inner.h": "#define INNER 7\n",
        "outside/include/unused.h": "#error not included\n",
        "project/bpf/one/program.bpf.c": _PROGRAM.format(name="one", value=1),
        "project/bpf/two/program.bpf.c": _PROGRAM.format(name="two", value=2),
        "project/src/three_kern.c": _PROGRAM.format(name="three", value=3),
        "project/src/four.ebpf.c": _PROGRAM.format(name="four", value="VALUE"),
        "project/src/five.c": _PROGRAM.format(name="five", value=5),
        "project/src/six.c": _STRICT,
        "project/src/user_main.c": "#include <stdio.h>\nint main(void) { return puts(0); }\n",
        "project/top.c": _PROGRAM.format(name="top", value="TOP")
        .replace("SEC", '#include "top.h"\nSEC', 1)
        .replace('"socket"', '"socket1"'),
        "project/top.h": "#define TOP 9\n",
        "project/buildtool.toml": _CONFIG,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "project"
