# SPDX-License-Identifier: Apache-2.0
"""A build signed by what is no file, on a real engine: the same objects, and no builder has seen a key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_lab import REPOSITORY, Project, docker, make_project, read_objects, remove_images

TOP = Path(__file__).resolve().parent.parent.parent
TAG = f"{REPOSITORY}/signers:1"


@pytest.fixture
def project(tmp_path: Path, prepared_images: object) -> Iterator[Project]:
    """Make a project of this test alone; afterwards remove its images."""
    assert prepared_images
    yield make_project(tmp_path / "lab")
    remove_images(TAG.partition(":")[0])


def write_signer(project: Project) -> str:
    """Write the program of the specification and return how it is named."""
    page = (TOP / "spec/exec-signer.md").read_text()
    (script,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", page, re.DOTALL)
    (project.root / "signer").write_text(script)
    (project.root / "signer").chmod(0o755)
    return "exec:./signer keys/dev.pem"


def test_a_program_signs_what_the_builder_compiled(project: Project) -> None:
    """The loader in the image accepts it."""
    signer = write_signer(project)
    by_file = project.build("--arch", "amd64", "--tag", TAG, "--sign-on", "host")
    wanted = read_objects(TAG)
    by_program = project.build("--arch", "amd64", "--tag", TAG, "--sign-on", "host", "--key", signer)
    assert by_program["keyId"] == by_file["keyId"]
    assert by_program["digest"] == by_file["digest"]
    assert read_objects(TAG) == wanted
    docker("run", "--rm", "--network", "none", TAG, "--verify-only")


def test_a_builder_cannot_use_it(project: Project) -> None:
    """One line says what to do."""
    done = project.run("build", "--arch", "amd64", "--key", write_signer(project))
    assert done.code == 2
    assert "signs on this machine only" in done.stderr
