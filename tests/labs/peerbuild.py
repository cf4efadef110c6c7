# SPDX-License-Identifier: Apache-2.0
"""
Build programs around the code of other projects, from their modules and crates.

A machine without the toolchain, and one whose registry has no such module or crate, skips the tests.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from buildtool.core.platforms import this_platform
from labs import TOP
from labs.bindings import find_cargo, find_go, go_environment, read_version, run_with_registry
from labs.compile import find_clang
from labs.run import alone

PEERS = TOP / "tests/peers"
BUILT = TOP / ".cache/peers"
NEWEST_GO = (1, 26)  # that a peer's go.mod asks for
BPFMAN_GO = "github.com/bpfman/bpfman@385d6f5dfee1"
GADGET = "github.com/inspektor-gadget/inspektor-gadget@v0.55.1"
# As in Inspektor Gadget's go.mod: a module's own replacements count in its own checkout only.
GADGET_REPLACED = ("github.com/notaryproject/notation-go=github.com/inspektor-gadget/notation-go@v1.3.3",)
# Files that bpfman embeds and its repository lacks. They attach programs, which the peer never does.
BPFMAN_EMBEDDED = (
    "vendor/github.com/bpfman/bpfman/dispatcher/xdp_dispatcher_v2.bpf.o",
    "vendor/github.com/bpfman/bpfman/dispatcher/tc_dispatcher.bpf.o",
)
BPFMAN_CRATE = "0.6.0"


@functools.cache
def build_bpfman_peer() -> Path:
    """Build tests/peers/bpfman with the puller and the inspector of bpfman."""
    return _build_go("bpfman", BPFMAN_GO, embedded=BPFMAN_EMBEDDED)


@functools.cache
def build_gadget_peer() -> Path:
    """Build tests/peers/gadget with the store and the verifier of Inspektor Gadget."""
    return _build_go("gadget", GADGET, replaced=GADGET_REPLACED)


def _build_go(name: str, module: str, *, replaced: Sequence[str] = (), embedded: Sequence[str] = ()) -> Path:
    go = find_go()
    if read_version("go") < NEWEST_GO:
        pytest.skip(f"needs-toolchain: go {'.'.join(map(str, NEWEST_GO))}")
    project = BUILT / f"go-{name}"
    with alone():
        shutil.rmtree(project, ignore_errors=True)
        project.mkdir(parents=True)
        shutil.copy(PEERS / name / "main.go", project)
        run_with_registry([go, "mod", "init", f"buildtool/peers/{name}"], project)
        for each in replaced:
            run_with_registry([go, "mod", "edit", f"-replace={each}"], project)
        run_with_registry([go, "get", module], project)
        run_with_registry([go, "mod", "tidy"], project)
        run_with_registry([go, "mod", "vendor"], project)
        for file in embedded:
            (project / file).touch()
        run_with_registry([go, "build", "-mod=vendor", "-o", "peer", "."], project)
    return project / "peer"


@functools.cache
def build_bpfman() -> Path:
    """Build the bpfman of the crate, which compiles for minutes, or return the one of an earlier run."""
    root = BUILT / f"bpfman-{BPFMAN_CRATE}"
    program = root / "bin/bpfman"
    cargo = find_cargo()
    if not shutil.which("pkg-config") or not Path("/usr/include/openssl/ssl.h").exists():
        pytest.skip("needs-toolchain: pkg-config and libssl-dev")
    with alone():
        if program.exists():
            return program
        # Its build script calls `clang`, without the directory of this architecture's headers.
        tools = root / "tools"
        tools.mkdir(parents=True, exist_ok=True)
        (tools / "clang").unlink(missing_ok=True)
        (tools / "clang").symlink_to(find_clang())
        environment = go_environment(
            PATH=f"{tools}:{os.environ['PATH']}",
            CPATH=f"/usr/include/{this_platform().triple}",
            CARGO_TARGET_DIR=str(root / "target"),
        )
        run_with_registry(
            [cargo, "install", "--quiet", "bpfman", "--version", BPFMAN_CRATE, "--locked", "--root", root],
            BUILT,
            seconds=1800,
            environment=environment,
        )
        shutil.rmtree(root / "target")
    return program
