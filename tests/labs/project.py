# SPDX-License-Identifier: Apache-2.0
"""Projects to build, and runs of buildtool in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from buildtool.core.platforms import PLATFORMS
from buildtool.oci.write import write_archive
from labs.image import make_base, make_parts

SOURCE = """\
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "number.h"
SEC("socket") int number(void *c)
{
	return NUMBER + __builtin_offsetof(struct bpf_sock, family) * sizeof(long);
}
char LICENSE[] SEC("license") = "GPL";
"""
TWO = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("socket") int two(void *c) { return 2; }
char LICENSE[] SEC("license") = "GPL";
"""
CONFIG = """\
[project]
name = "lab"
version = 3
release = "1.2.0"
[compile]
include = ["include"]
flags = ["-DNUMBER_BASE=40"]
[sign]
key = "keys/dev.pem"
[image]
user = "0"
labels = { "org.example.team" = "plant 7, hall B" }
healthcheck = ["/usr/bin/verify-and-load", "--verify-only"]
"""
EPOCH = "1700000000"
# Name the engine, so that a slow answer of Docker does not result in an image of the embedded engine.
SETTINGS = {"SOURCE_DATE_EPOCH": EPOCH, "BUILDTOOL_ENGINE": "docker"}
# If an image is removed during a build, the build may miss a snapshot (moby/buildkit#6521, still open).
LOST_SNAPSHOT = "failed to prepare extraction snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project's *root*, with commands run in it."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line of buildtool with *arguments*."""
        return [sys.executable, "-m", "buildtool", *map(str, arguments)]

    def run(self, *arguments: str | Path, **environment: str) -> Ran:
        """Run buildtool in the project, and repeat the run once if the engine lost a snapshot."""
        for _ in range(2):
            done = subprocess.run(
                self.command(*arguments),
                cwd=self.root,
                env={**os.environ, **SETTINGS, **self.environment, **environment},
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if LOST_SNAPSHOT not in done.stderr:
                break
        return Ran(code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def build(self, *arguments: str | Path, **environment: str) -> dict[str, Any]:
        """Build an image, and return the output of --json."""
        done = self.run("build", "--json", *arguments, **environment)
        assert done.code == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def make_project(root: Path) -> Project:
    """Write a project with two sources, a header and a key."""
    for name, text in {
        "bpf/number.bpf.c": SOURCE,
        "bpf/two.bpf.c": TWO,
        "include/number.h": "#define NUMBER (NUMBER_BASE + 2)\n",
        "buildtool.toml": CONFIG,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    project = Project(root=root)
    made = project.run("keygen", "dev")
    assert made.code == 0, made.stderr
    return project


def render_folder(project: Project, folder: Path, *options: str) -> Path:
    """Render the project with the prepared images into *folder*, and return it."""
    done = project.run("render", "--prepared", *options, "-o", folder)
    assert done.code == 0, done.stderr
    return folder


LOCAL_SOURCE = """\
#include "answer.h"
__attribute__((section("socket"), used)) int answer(void *context) { return ANSWER + sizeof(long); }
char LICENSE[] __attribute__((section("license"), used)) = "GPL";
"""


LOCAL_CONFIG = """\
[project]
name = "plant/agent"
version = 3
release = "1.2.0"
[compile]
include = ["include"]
[sign]
key = "keys/dev.pem"
[images]
base = "oci-layout://base.tar"
"""


def make_local_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a project that builds without Docker, and make it the working directory."""
    for name, text in {
        "bpf/answer.bpf.c": LOCAL_SOURCE,
        "include/answer.h": "#define ANSWER 42\n",
        "buildtool.toml": LOCAL_CONFIG,
    }.items():
        path = root / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_archive(root / "project/base.tar", make_base(), "base:1")
    key = root / "project/keys/dev.pem"
    key.parent.mkdir()
    private = Ed25519PrivateKey.generate()
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    monkeypatch.chdir(root / "project")
    monkeypatch.setenv("BUILDTOOL_LOADERS", str(make_parts(root / "parts", list(PLATFORMS))))
    monkeypatch.setenv("BUILDTOOL_CACHE", str(root / "cache"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    if clang := shutil.which("clang-19"):
        monkeypatch.setenv("BUILDTOOL_CLANG", clang)
    return root / "project"
