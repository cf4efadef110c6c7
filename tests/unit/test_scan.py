# SPDX-License-Identifier: Apache-2.0
"""Tests the scan of sources for capabilities, and for headers that are not sent to the builder."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from buildtool import build as pipeline
from buildtool.config.file import CompileConfig, Config, ImageConfig, ProjectConfig
from buildtool.core.platforms import PLATFORMS
from buildtool.core.process import Runner
from buildtool.image.context import find_unsent
from buildtool.image.scan import scan_capabilities, scan_files
from buildtool.signing.keys import generate_key

KERNEL_TYPES = """\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__
enum bpf_map_type {
\tBPF_MAP_TYPE_UNSPEC = 0,
\tBPF_MAP_TYPE_DEVMAP = 14,
\tBPF_MAP_TYPE_XSKMAP = 17,
};
struct page { int flags; };
"""
SOURCE = 'SEC("socket") int one(void *c) { return 1; }\n'


def project(root: Path, source: str, *include: str) -> Config:
    """Write a project of one *source* with directories *include*, and return its configuration."""
    for name in ("bpf", *include):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "bpf/x.bpf.c").write_text(source + SOURCE)
    return Config(root=root, project=ProjectConfig(name="x"), compile=CompileConfig(include=include))


@pytest.mark.parametrize("name", ["vmlinux.h", "vmlinux_x86.h", "vmlinux-6.12.h", "kernel.h"])
def test_header_of_kernel_types_is_of_any_size_and_name(tmp_path: Path, name: str) -> None:
    """The map types in a header of kernel types add no capability."""
    config = project(tmp_path, f'#include "{name}"\n')
    (tmp_path / "bpf" / name).write_text(KERNEL_TYPES + "struct filler { long a; };\n" * 110_000)
    assert (tmp_path / "bpf" / name).stat().st_size > 2_800_000
    assert scan_capabilities(config, ["bpf/x.bpf.c"]) == ("BPF",)


PROGRAMS = [
    'SEC("?kprobe/do_exit") int watch(void *c) { return 0; }',
    'SEC("?kprobe/do_exit")\nint BPF_KPROBE(watch, long code) { return 0; }',
    'SEC("?fentry/do_exit") static __noinline int BPF_PROG( watch , long code)\n{ return 0; }',
    '__attribute__((section("?kprobe/do_exit"), used)) int watch(void *c) { return 0; }',
]


@pytest.mark.parametrize("source", PROGRAMS)
@pytest.mark.parametrize(
    ("image", "found"),
    [
        (ImageConfig(), ("BPF",)),
        (ImageConfig(load=("other",)), ("BPF",)),
        (ImageConfig(load=("watch",)), ("BPF", "PERFMON")),
        (ImageConfig(load=("x.bpf.o:watch",)), ("BPF", "PERFMON")),
        (ImageConfig(attach=("watch=none",)), ("BPF", "PERFMON")),
    ],
)
def test_optional_program(tmp_path: Path, source: str, image: ImageConfig, found: tuple[str, ...]) -> None:
    """A program of an optional section counts only if the image loads it."""
    config = replace(project(tmp_path, source + "\n"), image=image)
    assert scan_capabilities(config, ["bpf/x.bpf.c"]) == found


@pytest.mark.parametrize("name", ["bpf/large.h", "bpf/x.bpf.c"])
def test_large_file_is_read_whole(tmp_path: Path, name: str) -> None:
    """A program behind a generated table of more than 1 MiB adds its capabilities."""
    config = project(tmp_path, '#include "large.h"\n')
    (tmp_path / "bpf/large.h").write_text("")
    with (tmp_path / name).open("a") as file:
        file.write("static const char table[] = { 1, 2, 3 };\n" * 40_000)
        file.write('SEC("xdp") int two(void *c) { return bpf_ktime_get_ns(); }\n')
    assert scan_capabilities(config, ["bpf/x.bpf.c"]) == ("BPF", "NET_ADMIN")


def test_headers_are_found_as_the_compiler_finds_them(tmp_path: Path) -> None:
    """The includer's directory is searched first, then compile.include. Headers found nowhere are skipped."""
    config = project(tmp_path, '#include "a.h"\n#include "b.h"\n#include <bpf/bpf_helpers.h>\n', "include")
    (tmp_path / "bpf/a.h").write_text('#include "../common/c.h"\n#include "none.h"\n')
    (tmp_path / "include/a.h").write_text("")
    (tmp_path / "include/b.h").write_text("")
    (tmp_path / "common").mkdir()
    (tmp_path / "common/c.h").write_text('#include "c.h"\n')
    assert sorted(scan_files(config, ["bpf/x.bpf.c"])) == [
        "bpf/../common/c.h",
        "bpf/a.h",
        "bpf/x.bpf.c",
        "include/b.h",
    ]


def test_what_is_not_sent_is_found(tmp_path: Path) -> None:
    """Unsent files are found by relative and absolute names and through .., but not headers of the system."""
    for name in ("bpf/x.h", "common/c.h", "d.h"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "bpf/link.h").symlink_to("../common/c.h")

    def find(*names: str) -> tuple[str, str] | None:
        found = find_unsent(tmp_path, ["bpf"], names)
        return (found.name, found.directory) if found else None

    assert find("bpf/x.h", "bpf/../bpf/x.h", f"{tmp_path}/bpf/x.h", "/usr/include/bpf/bpf_helpers.h") is None
    for name in ("common/c.h", "bpf/../common/c.h", f"{tmp_path}/common/c.h"):
        assert find("bpf/x.h", name) == ("common/c.h", "common")
    assert find("bpf/link.h") == ("bpf/link.h", "")
    assert find("bpf/../d.h") == ("d.h", "")
    assert find("../e.h") == ("../e.h", "")


@pytest.mark.parametrize("inline", [True, False])
def test_render_warns_of_a_header_that_is_not_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, inline: bool
) -> None:
    """Both forms of `render` warn of the header with a hint."""
    config = project(tmp_path, '#include "../common/c.h"\n')
    (tmp_path / "common").mkdir()
    (tmp_path / "common/c.h").write_text("")
    (tmp_path / "k.pub").write_bytes(generate_key().public.pem)
    key = pipeline.KeySource(pem=b"", path=tmp_path / "k.pub")
    platforms = (PLATFORMS["amd64"],)
    with caplog.at_level(logging.WARNING):
        if inline:
            pipeline.make_dockerfile(config, platforms, key, inline=True, environ=os.environ, runner=Runner())
        else:
            folder = tmp_path / "out"
            pipeline.render_folder(
                config, platforms, key, folder, epoch=0, environ=os.environ, runner=Runner()
            )
    hint = 'add "common" to compile.include in buildtool.toml'
    assert f"common/c.h: included, but not sent to the builder: {hint}" in caplog.messages
