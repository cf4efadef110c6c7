# SPDX-License-Identifier: Apache-2.0
"""Read images of a real Docker engine, import bases, and remove the images of a test."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from buildtool.core.platforms import PLATFORMS
from buildtool.oci.tarwriter import pack_tar
from buildtool.runtime.carried import list_path, loader_digest, part_path
from labs.image import ODD_BASE, ODD_SETTINGS
from labs.project import Project, render_folder

# The name contains the process id, because two runs of the tests may share an engine.
REPOSITORY = f"buildtool-test.local/run-{os.getpid()}"


# Files that the engine adds to each container.
ENGINE_FILES = ("/.dockerenv", "/dev/console", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


def docker(*arguments: str | Path, code: int = 0, stdin: bytes = b"") -> bytes:
    """Run docker, check the exit *code*, and return stdout."""
    argv = ["docker", *map(str, arguments)]
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout


def inspect(reference: str, *options: str) -> dict[str, Any]:
    """Return the engine's attributes of an image."""
    found: list[dict[str, Any]] = json.loads(docker("image", "inspect", *options, reference))
    return found[0]


def has_image(reference: str) -> bool:
    """Return whether the engine has image *reference*."""
    argv = ["docker", "image", "inspect", reference]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def remove_images(repository: str) -> None:
    """Remove all tags of *repository*."""
    for reference in (
        docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository).decode().split()
    ):
        docker("image", "rm", reference)


def read_files(reference: str, *options: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Return entry and content of each file of an image, by path. The image is never started."""
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


@contextmanager
def with_tools(project: Project) -> Iterator[None]:
    """Set image.tools of *project* to true during the block."""
    path = project.root / "buildtool.toml"
    text = path.read_text("utf-8")
    table = "[image]\n"
    new = text.replace(table, f"{table}tools = true\n") if table in text else f"{text}\n{table}tools = true\n"
    path.write_text(new, "utf-8")
    try:
        yield
    finally:
        path.write_text(text, "utf-8")


def export_parts(project: Project, directory: Path, architectures: Sequence[str]) -> Path:
    """Write loader and ebpf-pins, linked by BuildKit, and tini into *directory*, as `make loaders` would."""
    with with_tools(project):
        folder = render_folder(project, directory / "rendered", *_arch(architectures))
    entries = {}
    for arch in architectures:
        record = {}
        for kind, stage, name in (
            ("loader", "loader", "verify-and-load"),
            ("pins", "loader", "ebpf-pins"),
            ("tini", "tini", "tini"),
        ):
            out = directory / "stages" / arch / kind
            argv = ["buildx", "build", "--target", stage, "--platform", PLATFORMS[arch].oci, "--file"]
            argv += [str(folder / "Dockerfile"), "--output", f"type=local,dest={out}", str(folder)]
            docker(*argv)
            path = part_path(directory, kind, arch)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((out / name).read_bytes())
            record[kind] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        record["loader"]["source"] = record["pins"]["source"] = loader_digest()
        entries[arch] = record
    list_path(directory).write_text(json.dumps({"version": 1, "platforms": entries}))
    return directory


def _arch(architectures: Sequence[str]) -> list[str]:
    return [word for arch in architectures for word in ("--arch", arch)]


def import_odd_base(tag: str) -> None:
    """Import a base of `ODD_BASE` and `ODD_SETTINGS` into the engine as *tag*."""
    settings = [word for line in ODD_SETTINGS for word in ("--change", line)]
    docker("import", "--platform", "linux/amd64", *settings, "-", tag, stdin=pack_tar(ODD_BASE))
