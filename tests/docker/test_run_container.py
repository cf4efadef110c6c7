# SPDX-License-Identifier: Apache-2.0
"""The image's entrypoint on a real engine: tini -g, the loader, a workload; signals, exit codes, orphans."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from labs.engine import REPOSITORY, docker, remove_images
from labs.kernel import program_ids
from labs.loader import check_line
from labs.project import CONFIG, make_project
from labs.run import let_others_read

TAG = f"{REPOSITORY}-run/lab:1"
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("raw_tp/sys_enter") int seen(void *c) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
CAPABILITIES = ("--cap-drop=ALL", "--cap-add=BPF", "--cap-add=PERFMON")
WAIT_SECONDS = 30.0
Line = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _image(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Iterator[None]:
    """Build an image with one tracing program."""
    assert prepared_images
    project = make_project(tmp_path_factory.mktemp("lab"))
    for path in (project.root / "bpf").iterdir():
        path.unlink()
    (project.root / "bpf/seen.bpf.c").write_text(SOURCE)
    (project.root / "buildtool.toml").write_text(CONFIG.split("healthcheck")[0])
    project.build("--arch", "amd64", "--tag", TAG)
    yield
    remove_images(TAG.partition(":")[0])


@pytest.fixture(scope="module")
def workload(clang: Path, sysroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Link the workload statically, because the image has no library."""
    output = tmp_path_factory.mktemp("workload") / "workload"
    output.parent.chmod(0o755)
    source = Path(__file__).with_name("workload.c")
    argv = [clang, f"--sysroot={sysroot}", "-O1", "-static", "-fuse-ld=lld", source, "-o", output]
    subprocess.run(argv, check=True)
    return output


class Container:
    """A running container."""

    def __init__(self, name: str) -> None:
        self.name = name

    def lines(self) -> list[Line]:
        """Return the decision lines."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=True)
        lines: list[Line] = [json.loads(line) for line in done.stderr.splitlines()]
        for line in lines:
            check_line(line)
        return lines

    def wait_for(self, event: str) -> Line:
        """Wait for a line of *event* and return it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            for line in self.lines():
                if line["event"] == event:
                    return line
            time.sleep(0.05)
        raise AssertionError(self.lines())

    def signal(self, name: str) -> None:
        """Send a signal to the container's first process."""
        docker("kill", f"--signal={name}", self.name)

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        return int(docker("wait", self.name))

    def states(self) -> list[tuple[str, str]]:
        """Return command and state of each process."""
        rows = docker("top", self.name, "-o", "pid,comm,state").decode().splitlines()[1:]
        return [(row.split()[1], row.split()[2]) for row in rows]


@contextmanager
def running(
    *arguments: str, workload: Path | None = None, options: tuple[str, ...] = ()
) -> Iterator[Container]:
    """Run the image as documented: read-only, with the capabilities that its programs need."""
    mount = (f"--volume={workload}:/workload:ro",) if workload else ()
    argv = ("run", "--detach", "--network=none", "--read-only", *CAPABILITIES, *mount, *options, TAG)
    container = Container(docker(*argv, *arguments).decode().strip())
    try:
        container.wait_for("ready")
        yield container
    finally:
        docker("rm", "--force", container.name)


@pytest.fixture(scope="module")
def image_with_workload(_image: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the image with /workload as its workload, and with ebpf-pins."""
    project = make_project(tmp_path_factory.mktemp("other"))
    for path in (project.root / "bpf").iterdir():
        path.unlink()
    (project.root / "bpf/seen.bpf.c").write_text(SOURCE)
    words = 'workload = ["/workload", "exit", "42"]\ntools = true\n'
    (project.root / "buildtool.toml").write_text(CONFIG.split("healthcheck")[0] + words)
    tag = f"{TAG}-workload"
    project.build("--arch", "amd64", "--tag", tag)
    return tag


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 42, '"event":"ready"'),
        (("--log", "human"), 42, "ready"),
        (("--attach", "seen=none"), 42, '"event":"ready"'),
        (("--attach", "nothing=eth0"), 2, "nothing"),
        (("--reload",), 42, '"event":"detach"'),
        (("--verify-only", "--log", "human"), 0, "accept"),
        (("list", "--pin-root", "/none"), 1, "/none"),
        (("status", "--pin-root", "/none"), 1, "/none"),
        (("--", "/workload", "exit", "7"), 7, '"event":"ready"'),
        (("--reload", "--", "/workload", "exit", "7"), 7, '"event":"detach"'),
        (("--version",), 0, "libbpf"),
    ],
)
def test_arguments_of_an_image_with_a_workload(
    arguments: tuple[str, ...], code: int, words: str, workload: Path, image_with_workload: str
) -> None:
    """Arguments of docker run belong to the loader, as in an image without a workload."""
    mount = f"--volume={workload}:/workload:ro"
    options = ["--rm", "--read-only", "--network=none", *CAPABILITIES, mount]
    argv = ["docker", "run", *options, image_with_workload, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["TERM", "INT"])
@pytest.mark.parametrize("option", [(), ("--reload",)])
def test_signal_detaches_and_ends_with_0(name: str, option: tuple[str, ...]) -> None:
    """The signal goes through tini -g to the loader, which detaches and ends with 0."""
    with running(*option) as container:
        container.signal(name)
        assert container.end() == 0
        assert [line["event"] for line in container.lines()][-2:] == ["ready", "detach"]


@pytest.mark.parametrize("option", [(), ("--reload",)])
def test_code_of_the_workload(option: tuple[str, ...], workload: Path) -> None:
    """The container ends with the workload's exit code."""
    with running(*option, "--", "/workload", "exit", "42", workload=workload) as container:
        assert container.end() == 42


@pytest.mark.parametrize("option", [(), ("--reload",)])
def test_workload_ends_by_its_own_handler(option: tuple[str, ...], workload: Path) -> None:
    """The workload handles SIGTERM and chooses the exit code; then the programs are detached."""
    with running(*option, "--", "/workload", "wait", "7", workload=workload) as container:
        container.wait_for("exec")
        time.sleep(0.2)  # the workload cannot report that its handler is set
        container.signal("TERM")
        assert container.end() == 7
        assert bool([line for line in container.lines() if line["event"] == "detach"]) == bool(option)


@pytest.mark.parametrize("init", [(), ("--entrypoint=/usr/bin/verify-and-load",)])
def test_no_zombie(init: tuple[str, ...], workload: Path) -> None:
    """Orphans of the workload are reaped, also when the loader itself is process 1."""
    arguments = ("--reload", "--", "/workload", "orphans", "0")
    with running(*arguments, workload=workload, options=init) as container:
        container.wait_for("exec")
        deadline = time.monotonic() + WAIT_SECONDS
        expected = sorted(["verify-and-load", "workload", *([] if init else ["tini"])])
        while (found := container.states()) and time.monotonic() < deadline:
            if sorted(name for name, _ in found) == expected:
                break
            time.sleep(0.1)
        assert sorted(name for name, _ in found) == expected
        assert "Z" not in {state for _, state in found}
        container.signal("TERM")
        assert container.end() == 0


def test_sighup_reloads(workload: Path) -> None:
    """SIGHUP to the container reloads, and does not reach the workload."""
    with running("--reload", "--", "/workload", "wait", "0", workload=workload) as container:
        container.wait_for("exec")
        container.signal("HUP")
        assert container.wait_for("reload")["outcome"] == "unchanged"
        container.signal("TERM")
        assert container.end() == 0


def _nothing(place: Path) -> None:
    assert place


def _fifo(place: Path) -> None:
    os.mkfifo(place / "fifo.bpf.o")


def _locked(place: Path) -> None:
    (place / "ops.pub").write_text("nobody reads this")
    # The image's user is another one, and has no CAP_DAC_OVERRIDE.
    os.chown(place, 1000, 1000)
    place.chmod(0o700)


OBJECTS, TRUST = "/usr/lib/buildtool/objects", "/etc/buildtool/trust.host"
# Name of the case: what the host mounts and where, the loader's arguments, exit code, words.
CONDITIONS: dict[str, tuple[Callable[[Path], None], str, tuple[str, ...], int, str]] = {
    "no objects": (_nothing, OBJECTS, (), 1, "no object in it"),
    "FIFO": (_fifo, OBJECTS, (), 3, "1 of 1 objects refused"),
    "objects that the loader may not read": (_locked, OBJECTS, (), 1, "Permission denied"),
    "trust store that the loader may not read": (_locked, TRUST, (), 2, "Permission denied"),
    "no BPF file system": (_nothing, "/pins", ("--pin-root=/pins/agent",), 1, "no BPF file system there"),
    "no interface": (_nothing, "/pins", ("--attach=seen=eth9",), 2, "already names the target"),
    "no workload": (_nothing, "/pins", ("--", "/nowhere"), 1, "no such program"),
    "read-only place for metrics": (
        _nothing,
        "/pins",
        ("--metrics-file=/x.prom",),
        1,
        "Read-only file system",
    ),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_bad_conditions(tmp_path: Path, name: str) -> None:
    """A mistake of the operator is one line with its exit code, through tini; nothing stays in the kernel."""
    make, where, arguments, code, words = CONDITIONS[name]
    place = tmp_path / "place"
    place.mkdir()
    let_others_read(tmp_path)
    make(place)
    before = program_ids("seen")
    options = ("--rm", "--network=none", "--read-only", *CAPABILITIES, f"--volume={place}:{where}:ro")
    done = subprocess.run(
        ["docker", "run", *options, TAG, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    for line in lines:
        check_line(line)
    assert words in lines[-1]["message"]
    assert not {line["event"] for line in lines} & {"attach", "ready"}
    assert program_ids("seen") <= before
