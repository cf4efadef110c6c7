# SPDX-License-Identifier: Apache-2.0
"""What tests of the embedded engine share: a project, its archive, and what a refusal looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildtool.oci.read import StoredImage, open_layer, open_layout, read_images
from buildtool.oci.tree import Tree, read_tree

BUILD = ("build", "--engine", "local", "--arch", "amd64")


def read_archive(path: Path) -> dict[str, tuple[StoredImage, Tree]]:
    """Return the images of an archive by platform, with every file's bytes."""
    with open_layout(path) as source:
        return {
            image.platform: (
                image,
                read_tree([open_layer(source, item) for item in image.layers], keep=lambda _: True),
            )
            for image in read_images(source)
        }


def check_error(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Check that the one line of the error says *text*."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("buildtool: error:")]
    assert len(lines) == 1
    assert text in lines[0]


def left(project: Path) -> list[str]:
    """Name what is in the project beside its own files."""
    own = {"bpf", "include", "keys", "buildtool.toml", "base.tar"}
    return sorted(path.name for path in project.iterdir() if path.name not in own)
