# SPDX-License-Identifier: Apache-2.0
"""Constants and map sizes of an image: signed bounds from the builder, image.set, and docker run --set."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.engine import REPOSITORY, read_files, remove_images
from labs.project import CONFIG, Project, make_project
from labs.run import let_others_read

from buildtool.objects.elf import parse_object
from buildtool.signing.statement import read_statement

TAG = f"{REPOSITORY}-settings/lab:1"
OBJECT = "/usr/lib/buildtool/objects/seen.bpf.o"
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
const volatile __u32 rate = 1;
const volatile char label[8] = "none";
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 16); __type(key, __u32); __type(value, __u32); }
    counts SEC(".maps");
SEC("raw_tp/sys_enter") int seen(void *c)
{
	__u32 key = rate + label[0];

	return bpf_map_lookup_elem(&counts, &key) != 0;
}
char LICENSE[] SEC("license") = "GPL";
"""
SETTINGS = """\
set = ["rate=7", "seen.bpf.o:label=image"]
map-entries = ["counts=32"]
[load.settable."seen.bpf.o"]
rate = { min = 1, max = 100 }
label = true
counts = { max-entries = 1024 }
"""
RUN = ("docker", "run", "--rm", "--network", "none", "--read-only")
CAPABILITIES = ("--cap-drop=ALL", "--cap-add=BPF", "--cap-add=PERFMON")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Iterator[Project]:
    """Build an image whose object allows settings, and which has some."""
    assert prepared_images
    project = make_project(tmp_path_factory.mktemp("lab"))
    for path in (project.root / "bpf").iterdir():
        path.unlink()
    (project.root / "bpf/seen.bpf.c").write_text(SOURCE)
    (project.root / "buildtool.toml").write_text(CONFIG.split("healthcheck")[0] + SETTINGS)
    project.build("--arch", "amd64", "--tag", TAG)
    yield project
    remove_images(TAG.partition(":")[0])


def start(*options: str, mounts: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]]]:
    """Run the image with a workload that does not exist in it, so that the loader ends after `ready`."""
    argv = [*RUN, *CAPABILITIES, *mounts, TAG, *options, "--", "/usr/bin/verify-and-load", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def settings(lines: list[dict[str, Any]]) -> dict[str, str]:
    """Return what was set."""
    return {line["target"]: line["value"] for line in lines if line["event"] == "set"}


def test_builders_and_this_machine_sign_the_same_bounds(project: Project) -> None:
    """The signer stage gets the rules with the Dockerfile; the object is the one that this machine signs."""
    in_builder = read_files(TAG)[OBJECT][1]
    statement = read_statement(parse_object(in_builder))
    assert statement.settable is not None
    names = [item.name for item in (*statement.settable.variables, *statement.settable.maps)]
    assert names == ["label", "rate", "counts"]
    project.build("--arch", "amd64", "--tag", TAG, "--sign-on", "host")
    assert read_files(TAG)[OBJECT][1] == in_builder


def test_the_image_and_docker_run_set_values(project: Project, tmp_path: Path) -> None:
    """An image has values, a file replaces them, and an option after it replaces those of the file."""
    code, lines = start()
    assert (code, settings(lines)) == (0, {"rate": "7", "label": "image", "counts": "32"})
    (tmp_path / "settings").write_text("set rate=8\nset label=file\n")
    let_others_read(tmp_path)
    mount = (f"--volume={tmp_path}/settings:/settings:ro",)
    options = ("--settings", "/settings", "--set", "label=run", "--map-entries", "counts=64")
    code, lines = start(*options, mounts=mount)
    assert (code, settings(lines)) == (0, {"rate": "8", "label": "run", "counts": "64"})


def test_a_container_refuses_other_values(project: Project) -> None:
    """A value outside of the bounds ends the container with exit code 3."""
    code, lines = start("--set", "rate=101")
    assert (code, [line["event"] for line in lines]) == (3, ["verify", "refuse"])
    assert "denied-by-statement: variable rate: 101 is above the maximum 100" in lines[-1]["message"]
