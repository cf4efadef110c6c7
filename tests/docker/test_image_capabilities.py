# SPDX-License-Identifier: Apache-2.0
"""An image's default user is nobody, and loads with exactly the capabilities of its label."""

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
from labs.run import wait_until

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
# Prints its status, and tries to make a map.
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
    """Build a project with an XDP and a tracing program and the defaults."""
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
    """Link a static program, because the image has no shell."""
    directory = tmp_path_factory.mktemp("workload")
    directory.chmod(0o755)
    (directory / "look.c").write_text(WORKLOAD)
    argv = [clang, f"--sysroot={sysroot}", "-static", directory / "look.c", "-o", directory / "look"]
    subprocess.run(argv, check=True)
    return directory / "look"


def start(
    *options: str, command: tuple[str, ...] = (), image: str = TAG
) -> tuple[int, list[dict[str, Any]], str]:
    """Run the image read-only without attaching XDP; return exit code, lines and stdout."""
    argv = ["docker", "run", "--rm", "--network", "none", "--read-only", *options, image]
    done = subprocess.run(
        [*argv, "--attach", "caps_xdp=none", *command], capture_output=True, text=True, check=False
    )
    return (
        done.returncode,
        [json.loads(line) for line in done.stderr.splitlines() if line[:1] == "{"],
        done.stdout,
    )


def test_label_and_file_capabilities_match(project: Project) -> None:
    """Label and file capabilities match; the layer has them as docker, containerd and podman unpack them."""
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
    granted = {name for name, headers in found.items() if any("xattr" in key for key in headers)}
    assert granted == {"usr/bin/verify-and-load", "usr/sbin/tini"}
    for name in granted:
        value = found[name]["SCHILY.xattr.security.capability"]
        assert value.encode("utf-8", "surrogateescape") == file_attribute(NEEDED)


def test_capabilities_of_the_label_are_enough(project: Project, workload: Path, tmp_path: Path) -> None:
    """User 65532 loads on a read-only root with the host's trust store; the workload has no capability."""
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
def test_each_capability_is_necessary(project: Project, missing: str) -> None:
    """With one capability fewer the start is exit code 1, and the line names the capability."""
    options = run_options(name for name in NEEDED if name != missing)
    code, lines, _ = start(*options)
    assert code == 1, lines
    assert lines[-1]["event"] == "error"
    assert missing in lines[-1]["message"]


@pytest.mark.parametrize("more", [("--cap-add", "SYS_ADMIN"), ("--privileged",)], ids=["one", "all"])
def test_more_capabilities_than_the_label(project: Project, workload: Path, more: tuple[str, ...]) -> None:
    """A container with more capabilities loads nothing, unless --capabilities allows them."""
    options = (*run_options(NEEDED), *more, f"--volume={workload}:/look:ro")
    code, lines, stdout = start(*options, command=("--", "/look"))
    assert (code, stdout) == (1, ""), lines
    assert [line["event"] for line in lines] == ["verify", "error"]
    assert "SYS_ADMIN" in lines[-1]["message"]
    allowed = ("--capabilities", ",".join(sorted(CAPABILITY_NUMBERS)))
    code, lines, stdout = start(*options, command=(*allowed, "--", "/look"))
    assert code == 7, lines
    assert "CapEff:\t0000000000000000" in stdout


def test_verify_only_without_capabilities() -> None:
    """--verify-only works without any capability; the file's capabilities are permitted and not effective."""
    code, lines, _ = start("--cap-drop", "ALL")
    assert code == 1
    assert "BPF" in lines[-1]["message"]
    argv = ["docker", "run", "--rm", "--network", "none", "--cap-drop", "ALL", TAG, "--verify-only"]
    assert docker(*argv[1:]) == b""


def test_no_new_privileges(project: Project, workload: Path) -> None:
    """The file of tini permits what that of the loader does, so the loader gains nothing."""
    options = (*run_options(NEEDED), "--security-opt", "no-new-privileges", f"--volume={workload}:/look:ro")
    for user in ((), ("--user", "0")):
        code, lines, stdout = start(*options, *user, command=("--", "/look"))
        assert code == 7, lines
        assert "load" in [line["event"] for line in lines]
        status = dict(line.split(":\t", 1) for line in stdout.splitlines() if ":\t" in line)
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[name], 16) == 0, name


def test_workload_that_starts_tini_gains_nothing(project: Project, workload: Path) -> None:
    """The file of tini permits capabilities, and the workload may not gain any."""
    options = (*run_options(NEEDED), f"--volume={workload}:/look:ro")
    code, lines, stdout = start(*options, command=("--", "/sbin/tini", "-s", "--", "/look"))
    assert code == 7, lines
    status = dict(line.split(":\t", 1) for line in stdout.splitlines() if ":\t" in line)
    assert (int(status["CapPrm"], 16), status["Map"]) == (0, "Operation not permitted")


def test_capabilities_added_by_the_configuration(project: Project, workload: Path) -> None:
    """image.capabilities adds to label, file and entrypoint; `inspect` names the added ones."""
    path = project.root / "buildtool.toml"
    text, tag = path.read_text(), f"{TAG}-more"
    try:
        path.write_text(text + f"[image]\ncapabilities = {json.dumps([*NEEDED, 'NET_RAW'])}\n")
        project.build("--arch", "amd64", "--tag", tag)
    finally:
        path.write_text(text)
    shown = project.run("inspect", "--capabilities", tag)
    assert "buildtool: NET_RAW: by the image's label" in shown.stderr
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
    """Too few image.capabilities fail the build, and the error has the right line."""
    path = project.root / "buildtool.toml"
    text = path.read_text()
    try:
        path.write_text(text + '[image]\ncapabilities = ["BPF"]\n')
        done = project.run("build", "--arch", "amd64", "--tag", f"{TAG}-none")
    finally:
        path.write_text(text)
    assert done.code == 2
    assert "the programs require NET_ADMIN PERFMON" in done.stderr
    assert 'image.capabilities = ["BPF", "NET_ADMIN", "PERFMON"]' in done.stderr


PINS = "--pin-root=/bpf/pins"
# The ways of docs/how-to/update-without-a-gap.md to run a command, and one with no more than it needs.
WAYS = {
    "exec": ("exec", "CONTAINER", "ebpf-pins"),
    "privileged exec": ("exec", "--privileged", "CONTAINER", "ebpf-pins"),
    "exec of the loader": ("exec", "CONTAINER", "verify-and-load"),
    "run": ("run", "MOUNT", *run_options(NEEDED), f"{TAG}-tools2"),
    "run of the tool": (
        *("run", "MOUNT", "--cap-drop=ALL", "--cap-add=BPF"),
        *("--entrypoint=/usr/bin/ebpf-pins", f"{TAG}-tools2"),
    ),
}
# Pins belong to a network namespace: that of this machine for all of them.
RUN = ("--rm", "--read-only", "--network=host")


@pytest.fixture(scope="module")
def tools(project: Project) -> None:
    """Build two releases of the project, with ebpf-pins."""
    path, source = project.root / "buildtool.toml", project.root / "bpf/caps.bpf.c"
    text = path.read_text()
    for version in (1, 2):
        try:
            path.write_text(text.replace("version = 1", f"version = {version}") + "[image]\ntools = true\n")
            source.write_text(SOURCE.replace("return 0", f"return {version - 1}"))
            project.build("--arch", "amd64", "--tag", f"{TAG}-tools{version}")
        finally:
            path.write_text(text)
            source.write_text(SOURCE)


@pytest.fixture
def updated(tools: None, workload: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Give the id of a container of the second release, which updated the first one's pins, and its mount."""
    assert tools is None
    with bpf_file_system(tmp_path) as mount:
        (mount / "pins").mkdir(mode=0o700)
        os.chown(mount / "pins", 65532, 65532)
        start = (*run_options(NEEDED), f"--volume={mount}:/bpf")
        options = ("--attach=caps_xdp=none", PINS)
        docker(
            "run",
            *RUN,
            *start,
            f"--volume={workload}:/look:ro",
            f"{TAG}-tools1",
            *options,
            "--",
            "/look",
            code=7,
        )
        container = docker("run", "--detach", *RUN, *start, f"{TAG}-tools2", *options).decode().strip()
        try:
            assert wait_until(lambda: '"event":"ready"' in logs(container)), logs(container)
            yield container, f"--volume={mount}:/bpf"
        finally:
            docker("rm", "--force", container)


def logs(container: str) -> str:
    """Return the lines of a container."""
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
    return done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_commands_of_pins_work_for_the_images_user(updated: tuple[str, str], way: str) -> None:
    """The default user lists, checks, goes back and forth, and detaches with the file's capabilities."""
    container, mount = updated
    argv = [word for words in WAYS[way] for word in ((mount, *RUN) if words == "MOUNT" else (words,))]
    argv = [container if word == "CONTAINER" else word for word in argv]
    for word, version in (("list", 2), ("rollback", 1), ("status", 1), ("rollback", 2)):
        docker(*argv, word, PINS)
        (found,) = json.loads(docker("exec", container, "verify-and-load", "status", PINS, "--json"))
        assert found["version"] == version
    if "ebpf-pins" not in " ".join(argv):
        docker(*argv, "--verify-only")
    docker(*argv, "detach", PINS)
    pins = Path(mount.removeprefix("--volume=").partition(":")[0], "pins")
    assert not list(pins.rglob("*"))


@pytest.mark.parametrize("word", ["list", "status", "rollback", "detach"])
def test_command_without_a_capability_names_it(updated: tuple[str, str], word: str) -> None:
    """The engine's seccomp profile denies bpf(2) without CAP_BPF: the line has the option to add."""
    argv = ["docker", "run", updated[1], *RUN, "--cap-drop=ALL", f"{TAG}-tools2", word, PINS]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    message = json.loads(done.stderr)["message"]
    assert (done.returncode, done.stdout) == (1, "")
    assert message.endswith("missing CAP_BPF: the container lacks it; start it with --cap-add BPF")


@pytest.mark.parametrize("options", [(), ("--cap-add=DAC_OVERRIDE",)])
def test_command_of_another_user_names_the_owner(updated: tuple[str, str], options: tuple[str, ...]) -> None:
    """Root does not roll back another user's pins; the line has the option that does, and no capability."""
    argv = ["docker", "run", updated[1], *RUN, "--user=0", "--cap-drop=ALL", *options, f"{TAG}-tools2"]
    done = subprocess.run([*argv, "rollback", PINS], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    owner = "run as its owner (docker: --user 65532)"
    expected = f"/bpf/pins: belongs to user 65532, and this process is user 0; {owner}"
    assert json.loads(done.stderr)["message"] == expected
