# SPDX-License-Identifier: Apache-2.0
"""`build` and `render` without an engine: one error line, the right exit code, no file."""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path

import pytest
from labs.cli import check_error

from buildtool.cli.main import run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Make a project with one source and a key, and be in it."""
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf/x.bpf.c").write_text("int x;\n")
    monkeypatch.chdir(tmp_path)
    assert run(["keygen", "dev"]) == 0
    capsys.readouterr()
    return tmp_path


KEY = ["--key", "keys/dev.pem"]


def test_no_docker_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the docker client, the hint names what to install."""
    (project / "empty").mkdir()
    monkeypatch.setenv("PATH", str(project / "empty"))
    assert run(["build", "--engine", "docker", "--arch", "amd64", *KEY]) == 1
    check_error(capsys, "docker: not found")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--arch", "vax", *KEY], 2, "unknown architecture 'vax'"),
        (["--arch", "amd64"], 2, "no signing key"),
        (["--arch", "amd64", "--key", "keys/none.pem"], 1, "keys/none.pem"),
        (["--arch", "amd64", "--key", "keys/dev.pub"], 1, "public key cannot sign"),
        (["--arch", "amd64", *KEY, "--tag", "UPPER"], 2, "image tag"),
        (["--arch", "amd64", *KEY, "--push"], 2, "--push requires an image name"),
        (
            ["--arch", "amd64", *KEY, "--push", "--tag", "agent:1"],
            2,
            "agent:1: the reference names no registry",
        ),
        (
            ["--arch", "amd64", *KEY, "--push", "--tag", "user/agent", "--engine", "docker"],
            2,
            "user/agent: the reference names no registry",
        ),
        (
            ["--arch", "amd64", *KEY, "--push", "--tag", "x", "--output", "a"],
            2,
            "--push cannot be combined with --output",
        ),
        (["--arch", "amd64", *KEY, "--output", "-"], 2, "cannot write there"),
        (["--arch", "amd64", *KEY, "--sign-on", "moon"], 2, "moon"),
        (["--arch", "amd64", *KEY, "--config", "none.toml"], 2, "none.toml"),
    ],
)
def test_bad_request_fails_before_anything_starts(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    """Usage and configuration are 2, other missing files 1."""
    assert run(["build", *arguments]) == code
    check_error(capsys, text)


def test_open_key_file_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that others can read is not secret."""
    (project / "keys/dev.pem").chmod(0o644)
    assert run(["build", "--arch", "amd64", *KEY]) == 1
    check_error(capsys, "mode 0644")


RENDER = ["render", "--arch", "arm64", "--key", "keys/dev.pub"]


def test_render_prints_or_writes_one_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file has what stdout would have; an existing file stays unless forced."""
    assert run(["render", "--arch", "arm64", *KEY]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# check=error=true\n")
    one = [*RENDER, "--inline", "-o", "Dockerfile"]
    assert run(one) == 0
    assert Path("Dockerfile").read_text() == text
    capsys.readouterr()
    Path("Dockerfile").write_text("mine")
    assert run(one) == 1
    check_error(capsys, "already exists")
    assert Path("Dockerfile").read_text() == "mine"
    assert run([*one, "--force"]) == 0
    assert Path("Dockerfile").read_text() == text
    assert not list(project.glob("*.tar"))


def test_render_writes_a_folder(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the sources, and elsewhere with them; never over files without --force."""
    before = {path.name for path in project.iterdir()}
    assert run([*RENDER, "-o", "."]) == 0
    (archive,) = project.glob("buildtool-sources-*.tar")
    assert {path.name for path in project.iterdir()} - before == {"Dockerfile", archive.name}
    assert "source=bpf,target=/project/bpf" in Path("Dockerfile").read_text()
    assert run([*RENDER, "-o", "out/there"]) == 0
    (other,) = Path("out/there").glob("buildtool-sources-*.tar")
    assert other.name in Path("out/there/Dockerfile").read_text()
    with tarfile.open(other) as tar:
        found = tar.extractfile("project/bpf/x.bpf.c")
        assert found
        assert found.read() == b"int x;\n"
    capsys.readouterr()
    assert run([*RENDER, "-o", "out/there"]) == 1
    check_error(capsys, "out/there/Dockerfile: already exists")
    Path("bpf/x.bpf.c").write_text("int y;\n")
    assert run([*RENDER, "-o", "out/there", "--force"]) == 0
    assert not other.exists()
    assert len(list(Path("out/there").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "files", "operands"),
    [
        (["-o", "out"], ["out/Dockerfile", "out/buildtool-sources-*.tar"], "out"),
        (["-o", "."], ["Dockerfile", "buildtool-sources-*.tar"], "."),
        (["--inline", "-o", "One file"], ["One file"], "--file 'One file' ."),
    ],
)
def test_render_says_what_it_wrote(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    files: list[str],
    operands: str,
) -> None:
    """Files on stdout, the command that builds them on stderr: with the private key of a public one."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert run([*RENDER, *options]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [str(*Path().glob(name)) for name in files]
    key = project / "keys/dev.pem"
    assert output.err == (
        "buildtool: next: docker buildx build --platform linux/arm64 --provenance=false"
        " --build-arg SOURCE_DATE_EPOCH=1700000000"
        f" --secret id=signing-key,src={key.relative_to(project)} {operands}\n"
    )
    assert run(["render", "--arch", "arm64", "--key", "env:K", *options]) == 1
    assert "signing key env:K: the variable is not set" in capsys.readouterr().err


def test_figures_of_the_page_are_those_of_the_files(project: Path) -> None:
    """docs/explanation/dockerfile.md tells how long both forms are: within a tenth."""
    page = (Path(__file__).parents[2] / "docs/explanation/dockerfile.md").read_text("utf-8")
    assert run([*RENDER, "-o", "out"]) == 0
    assert run([*RENDER, "--inline", "-o", "one"]) == 0
    lines = Path("out/Dockerfile").read_text().splitlines()
    comments = sum(line.lstrip().startswith("#") for line in lines)
    found = re.search(r"has about (\d+) lines, a (third|quarter|fifth) of them comments", page)
    assert found
    assert abs(int(found[1]) / len(lines) - 1) < 0.1
    share = {"third": 3, "quarter": 4, "fifth": 5}[found[2]]
    assert round(len(lines) / comments) == share
    whole = re.search(r"with about ([\d,]+) lines", page)
    assert whole
    assert abs(int(whole[1].replace(",", "")) / len(Path("one").read_text().splitlines()) - 1) < 0.1


def test_render_of_a_folder_is_the_same_twice(project: Path) -> None:
    """Same project, same bytes, wherever the folder is."""
    for name in ("one", "two"):
        assert run([*RENDER, "-o", name]) == 0
    one, two = ({path.name: path.read_bytes() for path in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    (data,) = (data for name, data in one.items() if name.endswith(".tar"))
    key = Path("keys/dev.pem").read_bytes()
    assert key.split(b"\n")[1] not in data


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("Dockerfile", "Dockerfile: not a directory"),
        ("bpf", "bpf: cannot hold the Dockerfile: bpf/ is sent to the builder whole"),
        ("bpf/new", "bpf/new: cannot hold the Dockerfile: bpf/ is sent to the builder whole"),
        ("link/new", "link/new: cannot hold the Dockerfile: bpf/ is sent to the builder whole"),
        ("buildtool.toml", "buildtool.toml: not a directory"),
    ],
)
def test_render_writes_to_no_wrong_place(
    project: Path, capsys: pytest.CaptureFixture[str], place: str, text: str
) -> None:
    """A file is no folder, and a folder among the sources would be packed into itself."""
    (project / "link").symlink_to("bpf")
    (project / "buildtool.toml").write_text('[project]\nname = "x"\n')
    before = sorted(project.rglob("*"))
    assert run([*RENDER, "-o", place]) == 2
    check_error(capsys, text)
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize("form", [["-o", "."], ["--inline", "-o", "Dockerfile"], ["-o", "new"]])
def test_render_without_sources_writes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    """No half Dockerfile appears."""
    (project / "bpf/x.bpf.c").unlink()
    assert run(["render", "--arch", "arm64", *KEY, *form]) == 2
    check_error(capsys, "no sources: nothing matches bpf/*.bpf.c")
    assert not (project / "Dockerfile").exists()
    assert not (project / "new").exists()


# A client that answers, with or without an engine behind it, and has the builder "there", which fails.
DOCKER = """#!/bin/sh
case "$*" in
"buildx version" | "buildx inspect there") ;;
buildx*) cat > /dev/null; exit 1 ;;
*) echo 28.5.2 ;;
esac
"""


@pytest.mark.parametrize(
    ("builder", "line", "hint"),
    [
        ("none", "buildx has no builder 'none'", "docker buildx ls"),
        ("there", "the build failed (exit code 1)", "images prepare --push"),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_other_builder_is_told_how_it_gets_images(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    builder: str,
    line: str,
    hint: str,
    by_variable: bool,  # noqa: FBT001 - a table's row
) -> None:
    """The hint says how another builder gets prepared images. A missing builder is named."""
    if by_variable:
        monkeypatch.setenv("BUILDX_BUILDER", builder)
    given = [] if by_variable else ["--builder", builder]
    (project / "docker").write_text(DOCKER)
    (project / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(project), prepend=os.pathsep)
    assert run(["build", "--engine", "docker", "--arch", "amd64", *KEY, *given]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"buildtool: error: {line}")
    assert len(said) == 2
    assert hint in said[1]
