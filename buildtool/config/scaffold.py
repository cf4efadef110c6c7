# SPDX-License-Identifier: Apache-2.0
"""Create a new project from the files in templates/init."""

from __future__ import annotations

import os
import re
from pathlib import Path

from buildtool.config.file import default_project_name
from buildtool.core.errors import FileAccessError
from buildtool.core.files import made_directories, read_bounded, write_all_atomic
from buildtool.core.resources import resource_path

MAX_TEMPLATE_BYTES = 1024 * 1024
# Template to file of the project. Ignore files are stored without a dot, because git would apply them.
FILES = {
    "buildtool.toml": "buildtool.toml",
    "bpf/NAME.bpf.c": "bpf/@NAME@.bpf.c",
    "gitignore": ".gitignore",
    "dockerignore": ".dockerignore",
    "README.md": "README.md",
    "keys/README.md": "keys/README.md",
    ".github/workflows/ebpf.yml": ".github/workflows/ebpf.yml",
}


def create_project(directory: Path) -> tuple[Path, ...]:
    """
    Write a new project, with the name of *directory*, into *directory*. Return its files.

    Either all files are written or none. Existing files are never replaced.

    Raises: FileAccessError, which names all existing files.
    """
    files = _fill_in(default_project_name(directory))
    existing = [name for name in files if os.path.lexists(directory / name)]
    if existing:
        raise FileAccessError(
            f"{directory}: already there: " + ", ".join(existing),
            hint="nothing was written; choose another directory",
        )
    paths = tuple(directory / name for name in files)
    with made_directories([directory, *(path.parent for path in paths)]):
        write_all_atomic(dict(zip(paths, files.values(), strict=True)), replace=False)
    return paths


def _fill_in(name: str) -> dict[str, bytes]:
    """Return the contents of the files of project *name*, by path."""
    # Image names allow less than project names: lower case, and separators only between letters.
    tag = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "project"
    template = resource_path("templates/init")
    files = {}
    for source, target in FILES.items():
        text = read_bounded(template / source, MAX_TEMPLATE_BYTES).decode()
        files[target.replace("@NAME@", name)] = text.replace("@NAME@", name).replace("@TAG@", tag).encode()
    return files
