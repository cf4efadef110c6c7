# SPDX-License-Identifier: Apache-2.0
"""An image's default user is nobody, and loads with the capabilities of its label, no more and no less."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.engine import REPOSITORY, docker, inspect, remove_images
from labs.kernel import bpf_file_system
from labs.project import Project, make_project

from buildtool.objects.capabilities import CAPABILITY_NUMBERS, file_attribute, run_options

TAG = f"{REPOSITORY}-caps/lab:1"
NEEDED = ("BPF", "NET_ADMIN", "PERFMON")
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("raw_tp/sys_enter") int caps_raw(void *c) { return 0; }
SEC("xdp") int caps_xdp(void *c) { return 2; }
char LICENSE[] SEC("license") = "GPL";
"""
CONFIG = """\
[project]
name = "caps"
version = 1
[sign]
key = "keys/dev.pem"
"""
# Prints what it may, and tries to make a map.
WORKLOAD = """\
#include <stdio.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
int main(void)
{
    union bpf_attr attr = { .map_type = 2, .key_size = 4, .value_size = 4, .max_entries = 1 };
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");

    while (fgets(line, sizeof(line), status))
        fputs(line, stdout);
    int made = syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
    printf("Map:\\t%s\\n", made < 0 ? strerror(errno) : "made");
    return 7;
}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Iterator[Project]:
    """Build a project of an XDP and a tracing program with the defaults."""
    assert prepared_images
    project = make_project(tmp_path_factory.mktemp("lab"))
    for path in (project.root / "bpf").iterdir():
        path.unlink()
    (project.root / "bpf/caps.bpf.c").write_text(SOURCE)
    (project.root / "buildtool.toml").write_text(CONFIG)
    project.build("--arch", "amd64", "--tag", TAG)
    yield project
    remove_images(TAG.partition(":")[0])


@pytest.fixture(scope="module")
def workload(clang: Path, sysroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Link a static program: the image has no shell to look around with."""
    directory = tmp_path_factory.mktemp("workload")
    directory.chmod(0o755)
    (directory / "look.c").write_text(WORKLOAD)
    argv = [clang, f"--sysroot={sysroot}", "-static", directory / "look.c", "-o", directory / "look"]
    subprocess.run(argv, check=True)
    return directory / "look"


def start(
    *options: str, command: tuple[str, ...] = (), image: str = TAG
) -> tuple[int, list[dict[str, Any]], str]:
    """Run the image read-only, its programs loaded but attached nowhere but by name; code, lines, stdout."""
    argv = ["docker", "run", "--rm", "--network", "none", "--read-only", *options, image]
    done = subprocess.run(
        [*argv, "--attach", "caps_xdp=none", *command], capture_output=True, text=True, check=False
    )
    return (
        done.returncode,
        [json.loads(line) for line in done.stderr.splitlines() if line[:1] == "{"],
        done.stdout,
    )


def test_the_label_and_the_file_say_what_is_needed(project: Project) -> None:
    """The layer carries the attribute as docker, containerd and podman unpack it."""
    config = inspect(TAG)["Config"]
    assert config["User"] == "65532:65532"
    assert config["Labels"]["buildtool.capabilities"] == ",".join(NEEDED)
    archive = project.root / "image.tar"
    project.build("--arch", "amd64", "--output", f"type=oci,dest={archive}")
    found = {}
    with tarfile.open(archive) as image:
        for member in image:
            blob = image.extractfile(member)
            data = blob.read() if blob else b""
            if data[:2] == b"\x1f\x8b":
                with tarfile.open(fileobj=io.BytesIO(data)) as layer:
                    found |= {item.name: item.pax_headers for item in layer}
    value = found["usr/bin/verify-and-load"]["SCHILY.xattr.security.capability"]
    assert value.encode("utf-8", "surrogateescape") == file_attribute(NEEDED)
    others = [name for name, headers in found.items() if any("xattr" in key for key in headers)]
    assert others == ["usr/bin/verify-and-load"]


def test_nobody_loads_with_what_the_label_says(project: Project, workload: Path, tmp_path: Path) -> None:
    """User 65532, read-only root, the host's trust store read-only; the workload has nothing left."""
    tmp_path.chmod(0o755)
    (tmp_path / "host.pub").write_bytes((project.root / "keys/dev.pub").read_bytes())
    mounts = (f"--volume={tmp_path}:/etc/buildtool/trust.host:ro", f"--volume={workload}:/look:ro")
    code, lines, stdout = start(*run_options(NEEDED), *mounts, command=("--", "/look"))
    assert code == 7, lines
    events = [line["event"] for line in lines]
    assert [event for event in events if event in ("load", "ready", "exec")] == ["load", "ready", "exec"]
    status = dict(line.split(":\t", 1) for line in stdout.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65532"] * 4
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Map"] == "Operation not permitted"


@pytest.mark.parametrize("missing", NEEDED)
def test_none_of_them_is_superfluous(project: Project, missing: str) -> None:
    """One fewer and nothing runs: exit code 1, and the line names the capability."""
    options = run_options(name for name in NEEDED if name != missing)
    code, lines, _ = start(*options)
    assert code == 1, lines
    assert lines[-1]["event"] == "error"
    assert missing in lines[-1]["message"]


@pytest.mark.parametrize("more", [("--cap-add", "SYS_ADMIN"), ("--privileged",)], ids=["one", "all"])
def test_more_than_the_label_says(project: Project, workload: Path, more: tuple[str, ...]) -> None:
    """A container that was given more starts no workload, and loads nothing, unless it is told of it."""
    options = (*run_options(NEEDED), *more, f"--volume={workload}:/look:ro")
    code, lines, stdout = start(*options, command=("--", "/look"))
    assert (code, stdout) == (1, ""), lines
    assert [line["event"] for line in lines] == ["verify", "error"]
    assert "SYS_ADMIN" in lines[-1]["message"]
    allowed = ("--capabilities", ",".join(sorted(CAPABILITY_NUMBERS)))
    code, lines, stdout = start(*options, command=(*allowed, "--", "/look"))
    assert code == 7, lines
    assert "CapEff:\t0000000000000000" in stdout


def test_without_any_it_still_verifies() -> None:
    """A file with effective capabilities would not even start there."""
    code, lines, _ = start("--cap-drop", "ALL")
    assert code == 1
    assert "BPF" in lines[-1]["message"]
    argv = ["docker", "run", "--rm", "--network", "none", "--cap-drop", "ALL", TAG, "--verify-only"]
    assert docker(*argv[1:]) == b""


def test_no_new_privileges_voids_the_file(project: Project) -> None:
    """The message says why and what to do; root under the same option loads."""
    options = (*run_options(NEEDED), "--security-opt", "no-new-privileges")
    code, lines, _ = start(*options)
    assert code == 1
    assert "no_new_privs" in lines[-1]["message"]
    code, lines, _ = start(*options, "--user", "0", command=("--", "/none"))
    assert "/none" in lines[-1]["message"]


def test_more_by_the_configuration(project: Project, workload: Path) -> None:
    """What image.capabilities adds is in label, file and entrypoint; `inspect` says it is no program's."""
    path = project.root / "buildtool.toml"
    text, tag = path.read_text(), f"{TAG}-more"
    try:
        path.write_text(text + f"[image]\ncapabilities = {json.dumps([*NEEDED, 'NET_RAW'])}\n")
        project.build("--arch", "amd64", "--tag", tag)
    finally:
        path.write_text(text)
    shown = project.run("inspect", "--capabilities", tag)
    assert shown.stderr.startswith("buildtool: NET_RAW: by the image's label")
    options = shown.stdout.splitlines()[-1].split()
    assert options == list(run_options([*NEEDED, "NET_RAW"]))
    mount = f"--volume={workload}:/look:ro"
    code, lines, stdout = start(*options, mount, command=("--", "/look"), image=tag)
    assert code == 7, lines
    status = dict(line.split(":\t", 1) for line in stdout.splitlines() if ":\t" in line)
    assert int(status["CapBnd"], 16) == sum(1 << CAPABILITY_NUMBERS[name] for name in [*NEEDED, "NET_RAW"])
    assert int(status["CapEff"], 16) == 0
    (ready,) = [line for line in lines if line["event"] == "ready"]
    assert "unneeded" not in ready


def test_hand_over_to_the_agent_of_the_image(project: Project, workload: Path) -> None:
    """The image's user is not root: its agent gets the file's capabilities, and the objects' descriptors."""
    path, tag = project.root / "buildtool.toml", f"{TAG}-hand"
    text = path.read_text()
    try:
        path.write_text(text + '[image]\nworkload = ["/look"]\n[loader]\nhand-over = true\n')
        project.build("--arch", "amd64", "--tag", tag)
    finally:
        path.write_text(text)
    options = [*run_options(NEEDED), "--network", "none", "--read-only", f"--volume={workload}:/look:ro"]
    argv = ["docker", "run", "--rm", *options, tag]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["verify", "handover", "ready", "exec"]
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    needed = sum(1 << CAPABILITY_NUMBERS[name] for name in NEEDED)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == needed, name
    assert (status["Uid"].split(), status["NoNewPrivs"]) == (["65532"] * 4, "1")
    assert status["Map"] == "made"


def test_what_the_objects_need_is_checked_in_the_build(project: Project) -> None:
    """A configuration that gives too little is an error of the build, with the line to write."""
    path = project.root / "buildtool.toml"
    text = path.read_text()
    try:
        path.write_text(text + '[image]\ncapabilities = ["BPF"]\n')
        done = project.run("build", "--arch", "amd64", "--tag", f"{TAG}-none")
    finally:
        path.write_text(text)
    assert done.code == 1
    assert "the programs require NET_ADMIN PERFMON" in done.stderr
    assert 'image.capabilities = ["BPF", "NET_ADMIN", "PERFMON"]' in done.stderr


def test_pins_tool_goes_back_with_less(project: Project, workload: Path, tmp_path: Path) -> None:
    """ebpf-pins works as the image's user, in a container that has nothing but BPF."""
    path, source = project.root / "buildtool.toml", project.root / "bpf/caps.bpf.c"
    text = path.read_text()
    with bpf_file_system(tmp_path) as mount:
        (mount / "pins").mkdir(mode=0o700)
        os.chown(mount / "pins", 65532, 65532)
        # Pins belong to a network namespace: that of this machine for all of them.
        run = ["run", "--rm", "--read-only", "--network", "host", f"--volume={mount}:/bpf"]
        for version in (1, 2):
            tag = f"{TAG}-tools{version}"
            try:
                new = text.replace("version = 1", f"version = {version}")
                path.write_text(new + "[image]\ntools = true\n")
                source.write_text(SOURCE.replace("return 0", f"return {version - 1}"))
                project.build("--arch", "amd64", "--tag", tag)
            finally:
                path.write_text(text)
                source.write_text(SOURCE)
            options = (*run_options(NEEDED), f"--volume={workload}:/look:ro", tag)
            docker(*run, *options, "--attach=caps_xdp=none", "--pin-root=/bpf/pins", "--", "/look", code=7)
        tool = ("--cap-drop=ALL", "--cap-add=BPF", "--entrypoint=/usr/bin/ebpf-pins", f"{TAG}-tools2")
        for word in ("rollback", "status", "detach"):
            docker(*run, *tool, word, "--pin-root=/bpf/pins")
