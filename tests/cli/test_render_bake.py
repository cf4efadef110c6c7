# SPDX-License-Identifier: Apache-2.0
"""`render --bake`: which projects, names and groups, what is replaced, and what is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from labs.cli import check_error
from labs.sig import copy_test_key

from buildtool.cli.main import run
from buildtool.fleet import find_projects, name_projects
from buildtool.image.bake import BakeTarget, render_hcl, render_json

Capture = pytest.CaptureFixture[str]
SOURCE = 'char LICENSE[] __attribute__((section("license"), used)) = "GPL";\n'


def write(root: Path, text: str = "") -> None:
    """Write a project."""
    (root / "bpf").mkdir(parents=True)
    (root / "bpf/x.bpf.c").write_text(SOURCE)
    (root / "buildtool.toml").write_text(text or f'[project]\nname = "{root.name}"\nversion = 1\n')


@pytest.fixture(autouse=True)
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write three projects and a key; be in the directory above them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    copy_test_key(tmp_path)
    for name in ("plant/a", "plant/b", "hall"):
        write(tmp_path / "fleet" / name)
    return tmp_path / "fleet"


RENDER = ("render", "--bake", "fleet", "--key", "alice.pem", "--arch", "arm64", "--arch", "amd64")


def rendered(*arguments: str) -> Any:
    """Render as JSON, and return the document."""
    assert run([*RENDER, *arguments, "-o", "out/docker-bake.json"]) == 0
    return json.loads(Path("out/docker-bake.json").read_text())


def test_each_project_has_a_folder_and_a_target(capsys: Capture) -> None:
    """The targets have names, platforms, time and key of their projects; groups are the directories."""
    document = rendered()
    projects = document["target"]["image"]["matrix"]["project"]
    assert [project["name"] for project in projects] == ["hall", "plant-a", "plant-b"]
    assert projects[0] == {
        "name": "hall",
        "tag": "hall:0.0.0",
        "has_registry": False,
        "platforms": ["linux/amd64", "linux/arm64"],
        "epoch": "1700000000",
        "key": f"id=signing-key,src={Path('alice.pem').absolute()}",
        "secrets": [],
    }
    assert document["group"] == {
        "default": {"targets": ["hall", "plant-a", "plant-b"]},
        "plant": {"targets": ["plant-a", "plant-b"]},
    }
    for project in projects:
        (archive,) = Path("out", project["name"]).glob("*.tar")
        assert archive.name in Path("out", project["name"], "Dockerfile").read_text()
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == "out/docker-bake.json"
    command = f"docker buildx bake --allow=fs.read={Path.cwd()} --file docker-bake.json"
    assert f"next: cd out && PUSH=1 REGISTRY=registry.example {command}" in output.err


def test_the_same_projects_give_the_same_bytes() -> None:
    """Two runs write the same files; --force replaces the first result as a whole."""
    assert run([*RENDER, "-o", "out"]) == 0
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    assert Path("out/docker-bake.hcl") in before
    Path("out/gone").mkdir()
    Path("out/gone/Dockerfile").write_text("an earlier project\n")
    assert run([*RENDER, "-o", "out", "--force"]) == 0
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


def test_an_earlier_result_is_kept(capsys: Capture) -> None:
    """Without --force, and with a file of somebody else's, nothing is replaced."""
    assert run([*RENDER, "-o", "out"]) == 0
    capsys.readouterr()
    assert run([*RENDER, "-o", "out"]) == 1
    check_error(capsys, "out: already exists")
    Path("out/plant-a/notes.txt").write_text("mine")
    assert run([*RENDER, "-o", "out", "--force"]) == 1
    check_error(capsys, "out: not replaced: plant-a/notes.txt is not of render --bake")
    assert run([*RENDER, "-o", "fleet", "--force"]) == 1
    check_error(capsys, "is not of render --bake")
    assert Path("out/plant-a/notes.txt").read_text() == "mine"


def test_a_failure_names_the_project_and_leaves_nothing(fleet: Path, capsys: Capture) -> None:
    """One wrong project of many is found; no folder stays."""
    (fleet / "plant/b/buildtool.toml").write_text("[project]\nname = 7\n")
    assert run([*RENDER, "-o", "out"]) == 2
    check_error(capsys, "fleet/plant/b")
    write(fleet / "last", '[project]\nname = "last"\n[build]\ntag = "registry.example/last:1"\n')
    assert not Path("out").exists()
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--bake", "fleet"], 2, "--bake requires --output"),
        (["--bake", "fleet", "-o", "x", "--inline"], 2, "--bake requires --output"),
        (["--bake", "none", "-o", "x"], 2, "does not exist"),
        (["--bake", "empty", "-o", "x"], 2, "empty: no project below it"),
        (["--bake", "fleet", "-o", "x"], 2, "fleet/hall: no signing key"),
        (["--bake", "fleet", "-o", "alice.pem/x"], 1, "cannot write"),
    ],
)
def test_wrong_options(arguments: list[str], code: int, text: str, capsys: Capture) -> None:
    """Each is one line."""
    Path("empty").mkdir()
    assert run(["render", *arguments]) == code
    output = capsys.readouterr()
    assert text in output.err
    assert "Traceback" not in output.err
    assert not Path("x").exists()


def test_signer_of_another_kind_cannot_sign_in_a_builder(capsys: Capture) -> None:
    """A builder has no agent; the hint names the command that signs here."""
    signer = Path("signer")
    signer.write_text(f"#!/bin/sh\ncat {Path('alice.pub').absolute()}\n")
    assert run(["keygen", "own"]) == 0
    signer.write_text("#!/bin/sh\ncat keys/own.pub\n")
    signer.chmod(0o755)
    capsys.readouterr()
    command = ["render", "--bake", "fleet", "--key", f"exec:{signer.absolute()}", "-o", "out"]
    assert run(command) == 2
    assert "cannot sign in a builder" in capsys.readouterr().err


def test_public_key_names_its_private_half(capsys: Capture) -> None:
    """The public half suffices for rendering; bake reads the file beside it."""
    assert run(["keygen", "own"]) == 0
    assert run(["render", "--bake", "fleet", "--key", "keys/own.pub", "-o", "out/docker-bake.json"]) == 0
    document = json.loads(Path("out/docker-bake.json").read_text())
    key = document["target"]["image"]["matrix"]["project"][0]["key"]
    assert key == f"id=signing-key,src={Path('keys/own.pem').absolute()}"


def test_tag_of_a_registry_stays(fleet: Path) -> None:
    """A name with a registry gets none of the variable's, and a tag if it has none."""
    write(
        fleet / "far", '[project]\nname = "far"\nrelease = "9"\n[build]\ntag = "registry.example/plant/far"\n'
    )
    project = rendered()["target"]["image"]["matrix"]["project"][0]
    assert (project["tag"], project["has_registry"]) == ("registry.example/plant/far:9", True)


def test_projects_are_found_below(fleet: Path) -> None:
    """Hidden directories, links and the output are left out; a project may have others in it."""
    write(fleet / ".hidden/x")
    write(fleet / "plant/a/tools")
    write(fleet / "out/copy")
    (fleet / "again").symlink_to(fleet / "plant")
    found = [path.relative_to(fleet).as_posix() for path in find_projects(fleet, fleet / "out")]
    assert found == ["hall", "plant/a", "plant/a/tools", "plant/b"]


def test_names_are_unique_and_plain() -> None:
    """Bake's names have few characters, and `default` is a group."""
    top = Path("/fleet")
    roots = [top, top / "a/b", top / "a-b", top / "a b", top / "default", top / "ü"]
    assert name_projects(top, roots) == ["fleet", "a-b", "a-b-2", "a-b-3", "default-2", "project"]


def test_no_text_is_a_template() -> None:
    """What stands in a path is no expression of bake's language."""
    target = BakeTarget(
        name="x", groups=(), tag="x:1", has_registry=False, platforms=("linux/amd64",), epoch=0,
        key='id=signing-key,"src=/k/${env}%{if}"', secrets=('id=a,src=\\"',),
    )  # fmt: skip
    text = render_hcl([target])
    assert r'"id=signing-key,\"src=/k/$${env}%%{if}\""' in text
    assert r'"id=a,src=\\\""' in text
    project = json.loads(render_json([target]))["target"]["image"]["matrix"]["project"][0]
    assert project["key"] == 'id=signing-key,"src=/k/$${env}%%{if}"'


def test_each_directory_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree with many directories takes work in proportion to them."""
    for number in range(300):
        project = tmp_path / f"many/{number}"
        project.mkdir(parents=True)
        (project / "buildtool.toml").touch()
    looked = []
    resolve = Path.resolve

    def counted(path: Path, *, strict: bool = False) -> Path:
        looked.append(path)
        return resolve(path, strict=strict)

    monkeypatch.setattr(Path, "resolve", counted)
    assert len(find_projects(tmp_path / "many", tmp_path / "out")) == 300
    assert len(looked) <= 302
