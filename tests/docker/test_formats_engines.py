# SPDX-License-Identifier: Apache-2.0
"""Images for bpfman and Inspektor Gadget: both engines write, push and sign the same ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from labs.formats import COUNTER, FORMATS, read_documents
from labs.peers import distribution_registry
from labs.project import Project, make_project

ARCHITECTURES = ("--arch", "amd64", "--arch", "arm64")
ENGINES = ("docker", "local")
KINDS = ("bpfman", "gadget")


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Project:
    """Make a project with one object, whose images have all formats."""
    assert prepared_images
    project = make_project(tmp_path_factory.mktemp("formats") / "lab")
    for path in (project.root / "bpf").iterdir():
        path.unlink()
    (project.root / "bpf/counter.bpf.c").write_text(COUNTER)
    with (project.root / "buildtool.toml").open("a") as file:
        file.write(FORMATS)
    return project


@pytest.mark.parametrize("output", ["type=oci,dest={}.tar", "type=oci,tar=false,dest={}"])
def test_engines_write_the_same_images(counter: Project, output: str) -> None:
    """Archives and layouts of other formats have the same documents, byte for byte."""
    end = ".tar" if output.endswith(".tar") else ""
    found = {}
    for engine in ENGINES:
        told = counter.build(*ARCHITECTURES, "--engine", engine, "--output", output.format(engine))
        assert [each["file"] for each in told["others"]] == [
            f"{engine}-{kind}-counter{end}" for kind in KINDS
        ]
        found[engine] = [each["digest"] for each in told["others"]]
        for each in told["others"]:
            assert len(read_documents(counter.root / each["file"])[1]) == 2
    assert found["docker"] == found["local"]


def test_engines_push_the_same_images(counter: Project, tmp_path: Path) -> None:
    """`verify` accepts all of them by the key of the objects."""
    with distribution_registry(tmp_path / "registry") as address:
        found = {}
        for engine in ENGINES:
            tag = f"{address}/plant/{engine}:1"
            told = counter.build(*ARCHITECTURES, "--engine", engine, "--tag", tag, "--push")
            found[engine] = [each["digest"] for each in told["others"]]
            for each in told["others"]:
                assert each["reference"] == f"{tag}-{each['format']}-counter"
                done = counter.run("verify", each["reference"], "--trust", "keys/dev.pub")
                assert done.code == 0, done.stderr
                assert done.stdout.count(": accepted") == 3
        assert found["docker"] == found["local"]
