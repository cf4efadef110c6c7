# SPDX-License-Identifier: Apache-2.0
"""Failed builds on a real engine: one clear line, exit code 1, no tag, no process."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from labs.compile import DIFFERS
from labs.engine import REPOSITORY, docker, has_image
from labs.project import SETTINGS, Project, Ran
from labs.registry import run_registry

from buildtool.cli.main import run

TAG = f"{REPOSITORY}/bad:1"


def assert_one_error(stderr: str, text: str) -> None:
    """Check that stderr has exactly one error line of buildtool, with *text*."""
    ours = [line for line in stderr.splitlines() if line.startswith("buildtool: error:")]
    assert len(ours) == 1, stderr
    assert text in ours[0]
    assert "Traceback" not in stderr


def last_lines(stderr: str) -> str:
    """Return the last two lines, an error of ours and its hint."""
    error, hint = stderr.splitlines()[-2:]
    assert error.startswith("buildtool: error: ")
    assert hint.startswith("buildtool: hint: ")
    return f"{error}\n{hint}"


def assert_same_end(project: Project, done: Ran, *build: str) -> None:
    """Check that the local engine ends the same *build* with the same exit code and the same last lines."""
    local = project.run(*build, "--engine", "local")
    assert (local.code, last_lines(local.stderr)) == (done.code, last_lines(done.stderr))


def test_a_terminal_shows_the_same_end(project: Project) -> None:
    """On a terminal, BuildKit draws its progress, and the last lines are the step's error and hint."""
    config = project.root / "buildtool.toml"
    config.write_text(config.read_text().replace("[image]\n", '[image]\nattach = ["count_packets=eth0"]\n'))
    main, side = os.openpty()
    argv = project.command("build", "--arch", "amd64", "--tag", TAG)
    environment = {**os.environ, **SETTINGS, **project.environment}
    child = subprocess.Popen(argv, cwd=project.root, env=environment, stdin=subprocess.DEVNULL, stderr=side)
    os.close(side)
    said = bytearray()
    while chunk := read_terminal(main):
        said += chunk
    os.close(main)
    assert child.wait() == 2
    text = said.decode().replace("\r\n", "\n")
    assert "\x1b[" in text
    assert "image.attach: count_packets=eth0: no object has a program count_packets" in last_lines(text)


def read_terminal(main: int) -> bytes:
    """Return the next bytes from the main end of a terminal, or none after the last program closed it."""
    try:
        return os.read(main, 65536)
    except OSError:
        return b""


def test_compiler_errors_are_shown(project: Project) -> None:
    """A compiler error is shown with file and line, and no image appears."""
    (project.root / "bpf/two.bpf.c").write_text("int broken(void) { return missing; }\n")
    done = project.run("build", "--arch", "amd64", "--tag", TAG)
    assert done.code == 1
    assert "bpf/two.bpf.c:1:" in done.stderr
    assert "missing" in done.stderr
    assert_one_error(done.stderr, "cannot compile bpf/two.bpf.c (amd64)")
    assert not has_image(TAG)


def test_header_that_is_not_sent_has_a_hint(project: Project) -> None:
    """A header that was not sent to the builder is an error; the hint names the key that adds it."""
    source = project.root / "bpf/two.bpf.c"
    source.write_text('#include "../common/more.h"\n' + source.read_text())
    (project.root / "common").mkdir()
    (project.root / "common/more.h").write_text("#define MORE 1\n")
    done = project.run("build", "--arch", "amd64", "--tag", TAG)
    assert done.code == 1
    assert_one_error(done.stderr, "cannot compile bpf/two.bpf.c (amd64)")
    hint = 'common/more.h is included, but not sent to the builder: add "common" to compile.include'
    assert f"buildtool: hint: {hint} in buildtool.toml\n" in done.stderr
    config = project.root / "buildtool.toml"
    config.write_text(config.read_text().replace('include = ["include"]', 'include = ["include", "common"]'))
    assert project.run("build", "--arch", "amd64", "--tag", TAG).code == 0


def test_maps_that_differ_between_architectures_fail_the_build(project: Project) -> None:
    """A map that differs between architectures is an error unless build.allow-differences lists it."""
    (project.root / "bpf/differs.bpf.c").write_text(DIFFERS)
    both = ("build", "--arch", "amd64", "--arch", "arm64", "--tag", TAG, "--output", "type=oci,dest=out.tar")
    done = project.run(*both)
    assert done.code == 1
    assert "differs.bpf.o:events (map): value.size is at byte 4 (integer of 4 bytes) on amd64" in done.stderr
    assert "differs.bpf.o" in last_lines(done.stderr)
    assert not (project.root / "out.tar").exists()
    config = project.root / "buildtool.toml"
    config.write_text(config.read_text() + '[build]\nallow-differences = ["differs.bpf.o:events"]\n')
    assert project.run(*both).code == 0


def test_an_image_that_could_not_start_is_not_made(project: Project) -> None:
    """A build fails if image.attach, the policy or a rule would stop the image's start."""
    config, source = project.root / "buildtool.toml", project.root / "bpf/two.bpf.c"
    build = ("build", "--arch", "amd64", "--tag", TAG)
    text, code = config.read_text(), source.read_text()
    config.write_text(text.replace("[image]\n", '[image]\nattach = ["count_packets=eth0"]\n'))
    done = project.run(*build)
    message = "image.attach: count_packets=eth0: no object has a program count_packets"
    assert message in last_lines(done.stderr)
    assert done.code == 2
    assert_same_end(project, done, *build)
    config.write_text(f'{text}[trust]\nattach-points = ["xdp"]\n')
    refused = project.run(*build)
    message = "amd64/number.bpf.o: denied-by-policy: attach point 'socket' is not allowed"
    assert message in last_lines(refused.stderr)
    assert_same_end(project, refused, *build)
    config.write_text(text)
    source.write_text(code.replace('SEC("socket")', 'SEC("sokcet")'))
    broken = project.run(*build)
    message = "amd64/two.bpf.o: program two: section 'sokcet' means no type of program"
    assert message in last_lines(broken.stderr)
    assert broken.code == 1
    assert_same_end(project, broken, *build)
    assert not has_image(TAG)


@pytest.mark.parametrize("place", ["engine", "registry"])
def test_base_image_of_the_wrong_architecture_is_an_error(project: Project, place: str) -> None:
    """A base for another architecture is an error; the same base works for its own architecture."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("etc"))
    with run_registry() as registry:
        base = f"{registry if place == 'registry' else REPOSITORY}/base:arm64"
        docker("import", "--platform", "linux/arm64", "-", base, stdin=data.getvalue())
        if place == "registry":
            docker("push", base)
            docker("image", "rm", base)
        environment = {
            "BUILDTOOL_BUILDER_IMAGE": "buildtool.local/builder:trixie",
            "BUILDTOOL_BASE_IMAGE": base,
            # The probe of the base must not get a platform from the environment.
            "DOCKER_DEFAULT_PLATFORM": "linux/amd64",
        }
        try:
            done = project.run("build", "--arch", "amd64", "--tag", TAG, **environment)
            assert not has_image(TAG)
            project.build("--arch", "arm64", "--tag", TAG, **environment)
        finally:
            if place == "engine":
                docker("image", "rm", base)
    assert done.code == 1
    assert_one_error(done.stderr, f"base image {base} is not for linux/amd64 but linux/arm64")


def test_image_that_cannot_be_pulled_is_an_error(project: Project) -> None:
    """A builder image that cannot be pulled fails the build with BuildKit's reason."""
    environment = {
        "BUILDTOOL_BUILDER_IMAGE": "127.0.0.1:9/none/builder:1",
        "BUILDTOOL_BASE_IMAGE": "127.0.0.1:9/none/base:1",
    }
    done = project.run("build", "--arch", "amd64", "--tag", TAG, **environment)
    assert done.code == 1
    assert "127.0.0.1:9" in done.stderr
    assert_one_error(done.stderr, "build failed")


def test_full_disk_leaves_no_file(project: Project, tmp_path: Path, as_root: None) -> None:
    """A full disk fails the build and leaves no file."""
    output = tmp_path / "small"
    output.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", output], check=True)
    try:
        done = project.run("build", "--arch", "amd64", "--output", f"type=oci,dest={output}/x.tar")
        left = list(output.iterdir())
    finally:
        subprocess.run(["umount", output], check=True)
    assert done.code == 1
    assert "no space left on device" in done.stderr
    assert_one_error(done.stderr, "build failed")
    assert left == []


@pytest.mark.parametrize("images", [{}, {"BUILDTOOL_BUILDER_IMAGE": "b", "BUILDTOOL_BASE_IMAGE": "b"}])
def test_engine_that_does_not_answer_is_an_error(project: Project, images: dict[str, str]) -> None:
    """The error names the address of an engine that does not answer."""
    where = "unix:///nonexistent/engine.sock"
    done = project.run("build", "--engine", "docker", "--arch", "amd64", DOCKER_HOST=where, **images)
    assert done.code == 1
    assert_one_error(done.stderr, where)
    assert "hint: " in done.stderr


def test_docker_without_buildx_is_an_error(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A docker client without buildx, as in Debian 12, is one clear error."""
    client = shutil.which("docker")
    old = tmp_path / "docker"
    old.write_text(f'#!/bin/sh\n[ "$1" != buildx ] || exit 1\nexec {client} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.chdir(project.root)
    assert run(["build", "--engine", "docker", "--arch", "amd64"]) == 1
    assert_one_error(capfd.readouterr().err, "docker: buildx is missing")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_build_stops_in_the_engine_too(
    project: Project, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGINT or SIGTERM during a build leaves no file, and no process in the engine."""
    output = tmp_path / "out"
    output.mkdir()
    argv = project.command("build", "--arch", "amd64", "--no-cache", "-o", f"type=oci,dest={output}/x.tar")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "SOURCE_DATE_EPOCH": "1"}
    with subprocess.Popen(
        argv, cwd=project.root, env=environment, stderr=subprocess.PIPE, text=True, process_group=0
    ) as child:
        assert child.stderr
        for line in child.stderr:
            if "[link-amd64" in line:
                break
        os.killpg(child.pid, number)
        rest = child.stderr.read()
        assert child.wait(20) == 1
    assert_one_error(rest, "interrupted")
    assert list(output.iterdir()) == []
    assert list(temporary.iterdir()) == []
    deadline = time.monotonic() + 10
    while running := running_builds():
        assert time.monotonic() < deadline, running
        time.sleep(0.2)


def running_builds() -> list[str]:
    """Return the command lines of this machine's clang processes that link for a build."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if {b"@flags.txt", b"/verify-and-load"} <= set(words):
            found.append(b" ".join(words).decode(errors="replace"))
    return found
