# SPDX-License-Identifier: Apache-2.0
"""The lines that `build` and `inspect` print about starting an image work as they are printed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.engine import REPOSITORY, remove_images
from labs.project import CONFIG, Project, make_project

pytestmark = pytest.mark.usefixtures("as_root")

NAME = f"command{os.getpid()}"
TAG = f"{REPOSITORY}-command/{NAME}:1"
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int pass(struct xdp_md *c) { return XDP_PASS; }
SEC("raw_tp") int seen(void *c) { return 0; }
SEC("tp/syscalls/sys_enter_getpgid") int asked(void *c) { return 0; }
SEC("socket") int given(void *c) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
TARGETS = {"INTERFACE": "lo", "NAME": "sys_enter"}
PLACES = (Path("/sys/fs/bpf", NAME), Path("/var/lib", NAME))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Iterator[Project]:
    """Make a project whose programs need targets and tracefs, and whose loader has places of its own."""
    assert prepared_images
    made = make_project(tmp_path_factory.mktemp("lab"))
    for path in (made.root / "bpf").iterdir():
        path.unlink()
    (made.root / "bpf/all.bpf.c").write_text(SOURCE)
    config = CONFIG.split("healthcheck")[0].replace('user = "0"\n', "")
    places = '[loader]\npin-root = "/run/pins"\nstate = "/state"\n'
    (made.root / "buildtool.toml").write_text(config + places)
    yield made
    remove_images(TAG.partition(":")[0])


@pytest.fixture
def host() -> Iterator[None]:
    """Leave the machine's mounts and directories as they were."""
    before = {place for place in ("/sys/fs/bpf", "/sys/kernel/tracing") if os.path.ismount(place)}
    yield
    for place in PLACES:
        subprocess.run(["rm", "-rf", place], check=True)
    for place in {"/sys/fs/bpf", "/sys/kernel/tracing"} - before:
        subprocess.run(["umount", place], check=False, capture_output=True)


def lines_of(text: str) -> list[tuple[str, str]]:
    """Return the lines first, note and run of *text*."""
    rows = [line.split(maxsplit=1) for line in text.splitlines()]
    return [(row[0], row[1]) for row in rows if row and row[0] in ("first", "note", "run")]


@pytest.mark.usefixtures("host")
def test_the_printed_lines_start_the_image(project: Project) -> None:
    """With targets for the placeholders that the note names, all programs are attached."""
    built = project.run("build", "--tag", TAG)
    assert built.code == 0, built.stderr
    printed = lines_of(built.stdout)
    shown = project.run("inspect", TAG)
    assert (shown.code, lines_of(shown.stdout)) == (0, printed), shown.stdout
    for kind, line in printed[:-1]:
        if kind == "first":
            subprocess.run(["sh", "-ec", line], check=True)
    kind, command = printed[-1]
    assert kind == "run"
    for word, target in TARGETS.items():
        assert f"={word}" in command
        assert any(word in line for kind, line in printed if kind == "note")
        command = command.replace(f"={word}", f"={target}")
    argv = shlex.split(command)
    argv[2:2] = ["--rm"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as container:
        assert container.stderr
        events = []
        for line in container.stderr:
            if line.startswith("{"):
                events.append(json.loads(line))
                if events[-1]["event"] in ("ready", "refuse", "error"):
                    break
        container.terminate()
        container.communicate(timeout=30)
    assert events[-1]["event"] == "ready", events
    assert sorted(line["program"] for line in events if line["event"] == "attach") == [
        "asked",
        "pass",
        "seen",
    ]
    listed = subprocess.run(
        [*project.command("load", "detach", "--pin-root", PLACES[0])],
        check=False,
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0, listed.stderr


def test_options_of_inspect_are_those_of_the_command(project: Project) -> None:
    """`inspect --capabilities` prints the options; stderr has what stands after the image's name."""
    found = project.run("inspect", "--capabilities", TAG)
    command = lines_of(project.run("inspect", TAG).stdout)[-1][1]
    assert found.code == 0
    assert f"docker run --read-only {found.stdout.splitlines()[-1]} {TAG}" in command
    assert "after the image's name: --attach pass=INTERFACE" in found.stderr


def test_an_image_of_another_platform_has_a_note(project: Project) -> None:
    """The line would fail here, and the note says where it works."""
    other = "arm64" if os.uname().machine == "x86_64" else "amd64"
    tag = f"{TAG}-{other}"
    built = project.run("build", "--tag", tag, "--arch", other)
    assert built.code == 0, built.stderr
    note = f"the image is for linux/{other}: run it there, because this machine is linux/"
    for text in (built.stdout, project.run("inspect", tag).stdout):
        assert any(line.startswith(note) for kind, line in lines_of(text) if kind == "note"), text
