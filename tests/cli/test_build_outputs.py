# SPDX-License-Identifier: Apache-2.0
"""`build --output` with Docker: existing files stay, and files that are no image are not called one."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from labs.cli import check_error

from buildtool.cli.build import show_image
from buildtool.cli.main import run
from buildtool.config.file import load_config
from buildtool.image.result import BuiltImage
from buildtool.signing.keys import KeyId

Capture = pytest.CaptureFixture[str]
BUILD = ["build", "--engine", "docker", "--arch", "amd64", "--key", "keys/release.pem"]
# Stands where docker looks for buildx, and writes what the exporters would.
BUILDX = """#!{python}
import csv, json, pathlib, sys
words = sys.argv[1:]
if words == ["buildx", "version"]:
    sys.exit()
sys.stdin.buffer.read()
spec = words[words.index("--output") + 1]
fields = dict(type="local", dest=spec)
if "=" in spec:
    fields = dict(part.split("=") for part in next(csv.reader([spec])))
metadata = {{}} if fields["type"] in ("local", "tar") else {{"containerimage.digest": "sha256:12"}}
if "dest" in fields:
    place = pathlib.Path(fields["dest"])
    if fields["type"] == "local" or fields.get("tar") == "false":
        place.mkdir(exist_ok=True)
        place = place / ("file" if fields["type"] == "local" else "oci-layout")
    place.write_text("built")
pathlib.Path(words[words.index("--metadata-file") + 1]).write_text(json.dumps(metadata))
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """Make a project, and a stand-in for buildx; be in the project."""
    client = tmp_path / "bin/docker"
    client.parent.mkdir()
    client.write_text(BUILDX.format(python=sys.executable))
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(client.parent), prepend=os.pathsep)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    # A base that is named: no engine is asked for one.
    monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", "example.org/base@sha256:" + "0" * 64)
    monkeypatch.chdir(tmp_path)
    assert run(["init", "project"]) == 0
    monkeypatch.chdir(tmp_path / "project")
    assert run(["keygen", "release"]) == 0
    capsys.readouterr()
    return tmp_path / "project"


@pytest.mark.parametrize("kind", ["oci", "tar", "docker"])
def test_what_is_no_file_is_not_replaced(project: Path, capsys: Capture, as_root: None, kind: str) -> None:
    """A device, a FIFO, a link: with --force, too."""
    os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mkfifo("pipe")
    Path("link").symlink_to("device")
    before = {path.name: path.lstat().st_ino for path in project.iterdir()}
    for engine in ("docker", *(["local"] if kind == "oci" else [])):
        for name in ("device", "pipe", "link", "bpf"):
            output = f"type={kind},dest={name}"
            assert run([*BUILD, "--engine", engine, "--output", output, "--force"]) == 1
            check_error(capsys, f"{name}: not a regular file but a ")
    assert {path.name: path.lstat().st_ino for path in project.iterdir()} == before


@pytest.mark.tools
def test_files_are_replaced_when_that_is_said(project: Path, capsys: Capture) -> None:
    """An archive, and a layout as a directory; a directory that is no layout stays."""
    for output, result in (("dest=x.tar", "x.tar"), ("tar=false,dest=x", "x/oci-layout")):
        argv = [*BUILD, "--output", f"type=oci,{output}"]
        assert run(argv) == 0
        Path(result).write_text("mine")
        capsys.readouterr()
        assert run(argv) == 1
        error = capsys.readouterr().err
        assert "already exists\nbuildtool: hint: --force replaces it\n" in error
        assert Path(result).read_text() == "mine"
        assert run([*argv, "--force"]) == 0
        assert Path(result).read_text() == "built"
    for engine in ("docker", "local"):
        assert run([*BUILD, "--engine", engine, "--output", "type=oci,tar=false,dest=bpf", "--force"]) == 1
        assert "bpf: not an OCI layout" in capsys.readouterr().err
    assert not [path for path in project.iterdir() if path.name.startswith((".x", ".bpf"))]


@pytest.mark.parametrize("engine", ["docker", "local"])
def test_layout_with_a_file_of_the_users_stays(project: Path, capsys: Capture, engine: str) -> None:
    """Replacing the layout would remove everything in the directory: neither engine begins."""
    place = project / "x"
    place.mkdir()
    (place / "oci-layout").write_text("{}")
    (place / "notes.txt").write_text("mine")
    argv = [*BUILD, "--engine", engine, "--output", "type=oci,tar=false,dest=x", "--force"]
    assert run(argv) == 1
    check_error(capsys, "x: not replaced: notes.txt is not part of an OCI layout")
    assert sorted(path.name for path in place.iterdir()) == ["notes.txt", "oci-layout"]


@pytest.mark.parametrize("engine", ["docker", "local"])
@pytest.mark.parametrize("output", ["type=oci", "type=tar", "type=local", "type=oci,tar=false"])
def test_a_file_without_a_name_is_a_usage_error(capsys: Capture, engine: str, output: str) -> None:
    """The same with both engines."""
    assert run([*BUILD, "--engine", engine, "--output", output]) == 2
    check_error(capsys, f"--output {output}: dest is missing")


@pytest.mark.tools
def test_a_name_of_an_archive_is_one(project: Path, capsys: Capture) -> None:
    """-o NAME.tar writes an OCI archive as type=oci,dest=NAME.tar does, also with a comma in the name."""
    for name in ("x.tar", "a b,c.oci.tar"):
        assert run([*BUILD, "-o", name]) == 0
        assert capsys.readouterr().out.startswith(f"image   {name}\ndigest  sha256:12\n")
        assert (project / name).read_text() == "built"
        assert run([*BUILD, "-o", name]) == 1
        check_error(capsys, f"{name}: already exists")
    (project / "y.tar").mkdir()
    for engine in ("docker", "local"):
        assert run([*BUILD, "--engine", engine, "-o", "y.tar"]) == 1
        check_error(capsys, "y.tar: not a regular file but a directory")
        assert run([*BUILD, "--engine", engine, "-o", "x.tar.gz"]) == 2
        check_error(capsys, "--output x.tar.gz: archives are not compressed")


@pytest.mark.tools
def test_a_directory_that_is_in_use_stays(project: Path, capsys: Capture) -> None:
    """Only --force writes into a directory with files. An empty directory needs no --force."""
    for output in ("files", "type=local,dest=other"):
        place = Path(output.rpartition("=")[2])
        place.mkdir()
        assert run([*BUILD, "--output", output]) == 0
        (place / "file").write_text("mine")
        (place / "more").write_text("mine")
        capsys.readouterr()
        assert run([*BUILD, "--output", output]) == 1
        check_error(capsys, f"{place}: already exists and is not empty")
        assert (place / "file").read_text() == "mine"
        assert run([*BUILD, "--output", output, "--force"]) == 0
        assert ((place / "file").read_text(), (place / "more").read_text()) == ("built", "mine")
    assert run([*BUILD, "--output", "buildtool.toml", "--force"]) == 1
    assert "buildtool.toml: cannot write: not a directory" in capsys.readouterr().err


@pytest.mark.tools
def test_files_are_not_called_an_image(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Files that are no image have no digest and no run line, in the text and in the JSON."""
    monkeypatch.setenv("GITHUB_OUTPUT", "outputs")
    for output in ("files", "type=tar,dest=x.tar"):
        assert run([*BUILD, "--output", output]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["output", "key"]
        assert lines[0] == f"output  {output.rpartition('=')[2]}"
        names = [line.partition("=")[0] for line in Path("outputs").read_text().splitlines()]
        assert names == ["file", "key-id"]
        Path("outputs").unlink()
    assert run([*BUILD, "--output", "files", "--force", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["reference"], shown["digest"], shown["file"]) == ("", "", "files")
    assert run([*BUILD, "--output", "type=oci,dest=y.tar"]) == 0
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert words == ["image", "digest", "key", "attach", "load", "run"]
    assert "digest=sha256:12\n" in Path("outputs").read_text()


@pytest.mark.tools
@pytest.mark.parametrize(
    ("output", "load"),
    [
        ("type=oci,dest=a b.tar", "docker load --input 'a b.tar'"),
        ("type=docker,dest=x.tar", "docker load --input x.tar"),
        ("type=oci,tar=false,dest=x", "tar --create --directory x . | docker load"),
        ("type=docker", None),
    ],
)
def test_an_image_in_a_file_is_loaded_first(capsys: Capture, output: str, load: str | None) -> None:
    """The line before the last one is the command for that; the last one has the image's name."""
    assert run([*BUILD, "--output", output]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("run     docker run --read-only ")
    assert lines[-1].endswith(" project:0.1.0")
    assert [line for line in lines if line.startswith("load")] == ([f"load    {load}"] if load else [])


@pytest.mark.parametrize("engine", ["docker", "local"])
def test_names_that_no_file_has_are_one_line(capsys: Capture, engine: str) -> None:
    """A name that is too long or below a file results in one error line."""
    for place in ("x" * 490, "buildtool.toml/x"):
        for kind in ("type=oci", "type=oci,tar=false"):
            assert run([*BUILD, "--engine", engine, "--output", f"{kind},dest={place}"]) == 1
            check_error(capsys, f"{place}: cannot write: ")


@pytest.mark.parametrize("is_default", [True, False])
def test_a_workload_needs_a_base_that_has_it(
    project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, *, is_default: bool
) -> None:
    """The default base has no program, so a note says where the workload's file comes from."""
    if is_default:
        monkeypatch.delenv("BUILDTOOL_BASE_IMAGE")
    text = (project / "buildtool.toml").read_text()
    (project / "buildtool.toml").write_text(text.replace("[image]", '[image]\nworkload = ["/agent", "-x"]'))
    config = load_config(environ=os.environ)
    image = BuiltImage(reference="agent:1", digest="", platforms=("linux/amd64",), key_id=KeyId("0" * 64))
    show_image(image, config, output="", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    notes = [line for line in lines if line.startswith("note    the default base image has no /agent: ")]
    assert len(notes) == is_default
    assert lines[-1].startswith("run     docker run --read-only ")
    show_image(image, config, output="", as_json=True)
    value = json.loads(capsys.readouterr().out)["run"]
    assert (f"run     {value['command']}", value["before"]) == (lines[-1], [])
    found = [f"note    {note}" for note in value["notes"] if note.startswith("the default base")]
    assert found == notes
