# SPDX-License-Identifier: Apache-2.0
"""A project to build and the means to look into what came out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
# An engine that is slow to answer must not make another engine's image of what a test looks at.
SETTINGS = {"SOURCE_DATE_EPOCH": EPOCH, "BUILDTOOL_ENGINE": "docker"}
# Two runs of the tests may share an engine.
REPOSITORY = f"buildtool-test.local/run-{os.getpid()}"
# Where an image is removed, another build may miss a snapshot (moby/buildkit#6521, still open).
LOST_SNAPSHOT = "failed to prepare extraction snapshot"
# The engine puts these into every container.
ENGINE_FILES = ("/.dockerenv", "/dev/console", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


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
        """Run buildtool in the project; once more where the engine lost what it had."""
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
        """Build and return what --json says."""
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


def docker(*arguments: str | Path, code: int = 0, stdin: bytes = b"") -> bytes:
    """Run docker and return what it printed."""
    argv = ["docker", *map(str, arguments)]
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout


def inspect(reference: str, *options: str) -> dict[str, Any]:
    """Return what the engine says of an image."""
    found: list[dict[str, Any]] = json.loads(docker("image", "inspect", *options, reference))
    return found[0]


def has_image(reference: str) -> bool:
    """Say whether the engine knows *reference*."""
    argv = ["docker", "image", "inspect", reference]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def remove_images(repository: str) -> None:
    """Remove every tag of *repository*."""
    for reference in (
        docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository).decode().split()
    ):
        docker("image", "rm", reference)


def read_files(reference: str, *options: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Return every file of an image with its content; the image is never started."""
    container = docker("create", *options, reference).decode().strip()
    try:
        data = docker("export", container)
    finally:
        docker("rm", container)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {}
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            files["/" + member.name.rstrip("/")] = (member, content.read() if content else b"")
    return {path: entry for path, entry in files.items() if path not in ENGINE_FILES}


def read_objects(reference: str, *options: str) -> dict[str, bytes]:
    """Return the objects of an image by name."""
    prefix = "/usr/lib/buildtool/objects/"
    files = read_files(reference, *options)
    return {path.removeprefix(prefix): data for path, (_, data) in files.items() if path.startswith(prefix)}
