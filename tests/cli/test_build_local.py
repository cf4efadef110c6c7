# SPDX-License-Identifier: Apache-2.0
"""`build --engine local` without any engine: what is in the image, the cache, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from labs.cli import BUILD, check_error, left
from labs.compile import DIFFERS
from labs.image import make_base, read_image

from buildtool.cli.main import run
from buildtool.core.platforms import PLATFORMS
from buildtool.oci.write import write_archive

ARCHIVE = Path("agent-1.2.0.oci.tar")


def test_every_architecture_gets_its_own_files(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seven platforms in one index: loader, tini, signed objects, trust store, configuration of the base."""
    write_archive(project / "base.tar", make_base(architectures=list(PLATFORMS)), "base", replace=True)
    arch = [word for name in PLATFORMS for word in ("--arch", name)]
    assert run(["build", "--engine", "local", *arch, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["engine"], told["file"], told["reference"]) == ("local", str(ARCHIVE), "plant/agent:1.2.0")
    images = read_image(ARCHIVE)
    assert list(images) == told["platforms"] == [platform.oci for platform in PLATFORMS.values()]
    for platform in PLATFORMS.values():
        image, tree = images[platform.oci]
        assert tree["usr/bin/verify-and-load"].data.startswith(f"loader of {platform.arch}\n".encode())
        assert tree["usr/sbin/tini"].data.startswith(f"tini of {platform.arch}\n".encode())
        assert (tree["usr/sbin"].mode, tree["usr/sbin"].uid, tree["usr/sbin"].mtime) == (0o750, 3, 1700000000)
        assert platform.oci.encode() in tree["usr/lib/buildtool/objects/answer.bpf.o"].data
        assert tree["etc/passwd"].data == b"root:x:0:0::/:\n"
        assert "policyVersion" in tree["etc/buildtool/trust/policy.json"].data.decode()
        config = image.config["config"]
        assert config["Labels"]["org.example.base"] == "yes"
        assert config["Labels"]["org.opencontainers.image.title"] == "plant/agent"
        assert config["Env"] == ["PATH=/usr/bin"]
        assert "Cmd" not in config


def test_second_build_compiles_nothing_and_is_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second build uses cached objects and gives the same archive."""
    assert run([*BUILD]) == 0
    first = ARCHIVE.read_bytes()
    monkeypatch.setattr(
        "buildtool.compile.objectcache.compile_sources", lambda *_, **__: pytest.fail("compiled")
    )
    assert run([*BUILD]) == 0
    assert ARCHIVE.read_bytes() == first


def test_the_archive_of_an_earlier_build_is_replaced(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another image under the same name is a line on stderr, and the same image is none."""
    assert run([*BUILD]) == 0
    assert run([*BUILD]) == 0
    assert caplog.messages == []
    before = ARCHIVE.read_bytes()
    (project / "include/answer.h").write_text("#define ANSWER 43\n")
    assert run([*BUILD]) == 0
    assert ARCHIVE.read_bytes() != before
    (message,) = caplog.messages
    assert message.startswith(f"{ARCHIVE}: replaced the archive of an earlier build, sha256:")


def test_a_file_of_the_users_is_not_replaced(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The name of the archive is buildtool's choice, so a file that is no archive of an image stays."""
    (project / ARCHIVE).write_text("mine")
    assert run([*BUILD]) == 1
    error = capsys.readouterr().err
    assert f"buildtool: error: {ARCHIVE}: already exists, and is no archive of an image\n" in error
    assert (project / ARCHIVE).read_text() == "mine"
    assert run([*BUILD, "--force"]) == 0
    assert run([*BUILD, "-o", "x.tar"]) == 0
    assert read_image(Path("x.tar")).keys() == read_image(ARCHIVE).keys()


def test_compiler_is_asked_at_each_build(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler's version is part of the cache key, because a script may start another compiler later."""
    real = Path(str(shutil.which(os.environ.get("BUILDTOOL_CLANG", "clang")))).resolve()
    script, version = tmp_path / "clang-99", tmp_path / "version"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec cat {version}\n'
        f"echo >> {tmp_path}/compiled\n"
        f'exec {real} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("BUILDTOOL_CLANG", str(script))
    compiled = []
    for text in ("clang version 19.1.7", "clang version 19.1.7", "clang version 19.1.8"):
        version.write_text(f"{text}\n")
        assert run([*BUILD]) == 0
        compiled.append((tmp_path / "compiled").read_text().count("\n"))
    assert compiled[0] == compiled[1] < compiled[2]


@pytest.mark.parametrize(
    ("change", "file"),
    [
        ("#define ANSWER 43\n", "include/answer.h"),
        ("#define ANSWER 44\n", "bpf/answer.h"),  # found before the one in include/
    ],
)
def test_cache_knows_headers(project: Path, change: str, file: str) -> None:
    """A header that changes, or a new one that hides another, gives another object."""
    assert run([*BUILD]) == 0
    first = ARCHIVE.read_bytes()
    Path(file).write_text(change)
    assert run([*BUILD]) == 0
    assert ARCHIVE.read_bytes() != first
    cached = ARCHIVE.read_bytes()
    assert run([*BUILD, "--no-cache"]) == 0
    assert ARCHIVE.read_bytes() == cached


def test_broken_cache_is_as_good_as_none(project: Path, tmp_path: Path) -> None:
    """Entries that were cut or changed are made again; a directory that others may write to is not used."""
    assert run([*BUILD]) == 0
    first = ARCHIVE.read_bytes()
    entries = [path for path in (tmp_path / "cache/v1").glob("*/*/*") if path.is_file()]
    assert len(entries) > 4
    for number, path in enumerate(entries):
        data = path.read_bytes()
        path.write_bytes(data[:-1] if number % 2 else data[:-1] + b"?")
    assert run([*BUILD]) == 0
    assert ARCHIVE.read_bytes() == first
    (tmp_path / "cache/v1").chmod(0o777)
    before = {path: path.stat().st_mtime_ns for path in entries}
    assert run([*BUILD]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in entries}


def test_same_archive_as_another_user(project: Path, tmp_path: Path, as_root: None) -> None:
    """Another user, directory, umask, time zone, locale and hash seed give the same archive."""
    assert run([*BUILD]) == 0
    other = tmp_path / "else where"
    shutil.copytree(project, other)
    (other / ARCHIVE).unlink()
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "77",
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "tr_TR.UTF-8",
        "HOME": str(tmp_path),
        "BUILDTOOL_CACHE": str(tmp_path / "other-cache"),
    }
    # Root of this machine is user 12345 there.
    somebody = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
    program = "import os, sys; from buildtool.cli.main import main; assert os.getuid() == 12345; main()"
    done = subprocess.run(
        [*somebody, sys.executable, "-c", program, *BUILD],
        cwd=other,
        env=environment,
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (other / ARCHIVE).read_bytes() == ARCHIVE.read_bytes()


def build_auto(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build with the engine of choice, in a process of its own: its warnings are on standard error."""
    argv = [sys.executable, "-m", "buildtool", "build", *options]
    environment = {**os.environ, **environment}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def test_auto_says_what_it_took(project: Path, tmp_path: Path) -> None:
    """If Docker cannot build, auto uses the local engine and logs why, unless the build requires Docker."""
    done = build_auto("--arch", "amd64")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "buildtool: the base is an OCI layout: building with the local engine\n"
    named = {"BUILDTOOL_BASE_IMAGE": "127.0.0.1:9/base:1"}
    none = "docker: not found" if shutil.which("docker") is None else "no Docker engine answers"
    for arch, why in (("amd64", none), ("loong64", "no libraries for loong64")):
        done = build_auto("--arch", arch, **named)
        assert done.returncode == 1
        assert f"{why}: building with the local engine\n" in done.stderr
        assert "registry 127.0.0.1:9: cannot connect: connection refused" in done.stderr
    done = build_auto("--arch", "amd64", "--output", "type=docker", **named)
    assert done.returncode == 1
    assert "local engine" not in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--builder", "other"], 2, "--builder requires --engine docker"),
        (["--output", "type=tar,dest=x.tar"], 2, "not supported by the local engine"),
        (["--output", "type=oci"], 2, "--output type=oci: dest is missing"),
        (["--output", "type=oci,dest=x.tar,compression=zstd"], 2, "key compression is not supported"),
        (["--output", "type=oci,dest=base.tar"], 1, "base.tar: already exists"),
        (["--output", "type=oci,tar=false,dest=bpf", "--force"], 1, "bpf: not an OCI layout"),
        (["--output", "type=oci,dest=none/x.tar"], 1, "none/x.tar: cannot write: no such file"),
        (["--push", "--tag", "agent:1"], 2, "agent:1: the reference names no registry"),
        (["--sbom", "spdx", "--output", "x.tar"], 2, "--sbom requires --push"),
        (["--provenance"], 2, "--provenance requires --push"),
        (["--sign-image"], 2, "--sign-image requires --push"),
        (
            ["--push", "--tag", "localhost:1/a:1", "--no-sign-image", "--sbom", "spdx"],
            2,
            "--sbom requires a signed image",
        ),
        (["--push", "--tag", "localhost:1/a", "--no-sign-image", "--provenance"], 2, "a signed image"),
        (["--arch", "s390x"], 1, "is not for linux/s390x but linux/amd64, linux/arm64"),
    ],
)
def test_bad_requests_leave_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, text: str
) -> None:
    """A bad request results in one error line, and no file is written, not even in part."""
    assert run([*BUILD, *options]) == code
    check_error(capsys, text)
    assert left(project) == []


def test_engine_that_does_not_answer_gets_no_image(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loading an image requires an engine that answers."""
    assert run([*BUILD, "--output", "type=docker"]) == 1
    check_error(capsys, "no Docker engine answers")
    assert left(project) == []


@pytest.mark.parametrize("kind", ["tar=true", "tar=false"])
def test_full_disk_leaves_nothing(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], as_root: None, kind: str
) -> None:
    """An archive, or a directory, that does not fit: one line, no file."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", small], check=True)
    try:
        assert run([*BUILD, "--output", f"type=oci,{kind},dest={small}/image"]) == 1
        check_error(capsys, "cannot write: no space left on device")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_maps_that_differ_between_architectures_are_no_image(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names object, map, member and architectures; one that is declared is let be."""
    write_archive(project / "base.tar", make_base(architectures=["amd64", "arm64"]), "base", replace=True)
    (project / "bpf/differs.bpf.c").write_text(DIFFERS)
    both = (*BUILD, "--arch", "arm64")
    assert run([*both]) == 1
    check_error(
        capsys, "disagree: differs.bpf.o:events (map): size of the value is 8 on amd64 and 24 on arm64"
    )
    assert left(project) == []
    assert run([*BUILD]) == 0
    assert run([*both]) == 1
    said = capsys.readouterr().err
    assert "value.size is at byte 4 (integer of 4 bytes) on amd64 and at byte 16" in said
    assert 'allow-differences = ["differs.bpf.o:events"]' in said
    config = project / "buildtool.toml"
    config.write_text(config.read_text() + '\n[build]\nallow-differences = ["differs.bpf.o:events"]\n')
    assert run([*both]) == 0


@pytest.mark.parametrize(
    ("place", "name"),
    [("common/more.h", "../common/more.h"), ("src/deep/er/more.h", "../src/deep/er/more.h")],
)
def test_header_that_docker_would_not_be_sent_is_an_error(
    project: Path, capsys: pytest.CaptureFixture[str], place: str, name: str
) -> None:
    """The error is that of engine docker, also when the object comes from the cache."""
    (project / place).parent.mkdir(parents=True)
    (project / place).write_text("#define MORE 1\n")
    source = project / "bpf/answer.bpf.c"
    source.write_text(f'#include "{name}"\n{source.read_text()}')
    directory = place.rpartition("/")[0]
    for _ in range(2):
        assert run([*BUILD]) == 2
        error = capsys.readouterr().err
        assert f"error: {place}: included, but in no directory that Docker's builder is sent\n" in error
        assert f'hint: add "{directory}" to compile.include in buildtool.toml\n' in error
        assert not ARCHIVE.exists()
    config = project / "buildtool.toml"
    config.write_text(config.read_text().replace('["include"]', f'["include", "{directory}"]'))
    assert run([*BUILD]) == 0


@pytest.mark.parametrize("how", ["outside", "link", "beside"])
def test_header_that_only_this_engine_can_build_with_is_said(
    project: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """A header outside the project, behind a symbolic link or beside buildtool.toml is only a warning."""
    name = {"outside": "../../more.h", "link": "more.h", "beside": "../more.h"}[how]
    shown = {"outside": "../more.h", "link": "bpf/more.h", "beside": "more.h"}[how]
    target = project / "more.h" if how == "beside" else project.parent / "more.h"
    target.write_text("#define MORE 1\n")
    if how == "link":
        (project / "bpf/more.h").symlink_to(target)
    source = project / "bpf/answer.bpf.c"
    source.write_text(f'#include "{name}"\n{source.read_text()}')
    assert run([*BUILD]) == 0
    (line,) = caplog.messages
    assert line == f"{shown}: included, but --engine docker cannot send it to the builder"
