# SPDX-License-Identifier: Apache-2.0
"""`rebuild --check`: equal, or exactly which file and section differ, and why."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labs.project import make_local_project
from labs.sig import sign, unsigned

from buildtool.cli.main import run
from buildtool.core.digests import Digest
from buildtool.core.platforms import PLATFORMS
from buildtool.image.compare import all_objects, read_image_contents
from buildtool.objects.elf import parse_object
from buildtool.oci.read import open_layer, open_layout, read_images
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.write import Layer, gzip_layer, make_image_set, write_archive

ARCHIVE = "agent-1.2.0.oci.tar"
OBJECTS = "usr/lib/buildtool/objects"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path) -> Path:
    """Make a project and its image for two platforms."""
    assert clang
    root = make_local_project(tmp_path, monkeypatch)
    assert run(["build", "--engine", "local", "--arch", "amd64", "--arch", "arm64"]) == 0
    return root


def check(capsys: pytest.CaptureFixture[str], image: str = ARCHIVE) -> tuple[int, dict[str, Any]]:
    """Run `rebuild --check`, and return the exit code and the result for each platform."""
    capsys.readouterr()
    code = run(["rebuild", "--check", image, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["equal"] is (code == 0)
    return code, {item["platform"]: item for item in told["objects"]}


def test_same_sources_are_equal(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same sources give equal objects on both platforms, from an archive and a directory."""
    output = ["--output", "type=oci,tar=false,dest=layout"]
    assert run(["build", "--engine", "local", "--arch", "amd64", *output]) == 0
    Path("keys/dev.pem").unlink()
    capsys.readouterr()
    assert run(["rebuild", "--check", "layout", "--objects-only"]) == 0
    assert capsys.readouterr().out == "linux/amd64  answer.bpf.o  equal\n"
    assert run(["rebuild", "--check", ARCHIVE]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "linux/amd64  answer.bpf.o  equal",
        "linux/arm64  answer.bpf.o  equal",
        *(
            f"linux/{arch}  {what}  equal"
            for arch in ("amd64", "arm64")
            for what in ("/usr/bin/verify-and-load", "/sbin/tini", "configuration")
        ),
    ]


def test_changed_source_is_named_with_its_section(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program's section differs; the header that changed is why."""
    Path("include/answer.h").write_text("#define ANSWER 43\n")
    code, verdicts = check(capsys)
    assert code == 1
    found = verdicts["linux/arm64"]
    assert [item["section"] for item in found["sections"]] == ["socket"]
    assert found["sections"][0]["image_size"] == found["sections"][0]["rebuilt_size"]
    assert found["problems"][0] == "differs in socket"
    assert "bpf/answer.bpf.c or a file that it includes is another here" in found["problems"]
    assert run(["rebuild", "--check", ARCHIVE]) == 1
    assert "socket: 16 bytes in the image, 16 rebuilt, different from byte 4 on" in capsys.readouterr().out


def test_new_program_is_a_new_section(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A section that only one of the objects has is reported."""
    with Path("bpf/answer.bpf.c").open("a") as file:
        file.write('__attribute__((section("xdp"), used)) int more(void *c) { return 1; }\n')
    code, verdicts = check(capsys)
    assert code == 1
    missing = [item for item in verdicts["linux/amd64"]["sections"] if item["image_size"] is None]
    assert [item["section"] for item in missing] == ["xdp"]


def test_comment_alone_changes_no_byte(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal, with the note that the sources are not those of the record."""
    text = Path("bpf/answer.bpf.c").read_text()
    Path("bpf/answer.bpf.c").write_text(text + "/* more */\n")
    code, verdicts = check(capsys)
    assert code == 0
    assert verdicts["linux/amd64"]["notes"] == ["bpf/answer.bpf.c or a file that it includes is another here"]


def test_missing_source_and_broken_source(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An object that cannot be compiled again is not equal, and the reason is printed."""
    Path("bpf/answer.bpf.c").write_text("int x = ;\n")
    assert check(capsys)[1]["linux/amd64"]["problems"][0].startswith("cannot be made again: cannot compile")
    Path("bpf/answer.bpf.c").unlink()
    code, verdicts = check(capsys)
    assert code == 1
    assert "no such file" in verdicts["linux/amd64"]["problems"][0]


def test_other_compiler_is_told(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another version of the compiler is reported, whether the bytes are equal or not."""
    import os
    import shutil

    real = shutil.which(os.environ.get("BUILDTOOL_CLANG", "clang"))
    fake = tmp_path / "clang-99"
    text = '#!/bin/sh\n[ "$1" = --version ] && { echo clang version 99.1.0; exit; }\n'
    fake.write_text(f'{text}exec {real} "$@"\n')
    fake.chmod(0o755)
    strip = shutil.which("llvm-strip-19") or shutil.which("llvm-strip")
    (tmp_path / "llvm-strip").symlink_to(str(strip))
    monkeypatch.setenv("PATH", f"{tmp_path}:/nonexistent")
    monkeypatch.setenv("BUILDTOOL_CLANG", str(fake))
    code, verdicts = check(capsys)
    assert code == 0
    assert "here is clang 99.1.0" in verdicts["linux/amd64"]["notes"][0]


def test_image_of_a_machine_without_a_compiler(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects made by the clang of package ziglang are rebuilt by it, even if another clang comes first."""
    with monkeypatch.context() as patch:
        patch.setenv("BUILDTOOL_CLANG", "ziglang")
        assert run(["build", "--engine", "local", "--arch", "amd64"]) == 0
    code, verdicts = check(capsys)
    assert code == 0
    assert verdicts["linux/amd64"]["notes"] == []


def change(*entries: TarEntry, **settings: Any) -> None:
    """Write archive x.tar: the image for arm64 with a layer of *entries* on top and other *settings*."""
    with open_layout(Path(ARCHIVE)) as source:
        image = read_images(source)[1]
        below = [
            Layer(
                media_type=item.media_type,
                digest=item.digest,
                diff_id=Digest(diff_id.removeprefix("sha256:")),
                size=item.size,
                data=open_layer(source, item).read(),
            )
            for item, diff_id in zip(image.layers, image.diff_ids, strict=True)
        ]
    config = {"config": {**image.config["config"], **settings}}
    images = make_image_set([(PLATFORMS["arm64"], config, [*below, gzip_layer(pack_tar(entries))])])
    write_archive(Path("x.tar"), images, "x:1", replace=True)


LOADER, TINI = "/usr/bin/verify-and-load", "/sbin/tini"


def program(path: str = "usr/bin/verify-and-load", **changes: Any) -> TarEntry:
    """Make a file that lies over the loader, or over another program."""
    name = {"usr/bin/verify-and-load": "loader", "usr/sbin/tini": "tini"}[path]
    return TarEntry(path=path, **{"mode": 0o755, "data": f"{name} of arm64\n".encode() * 1000, **changes})


@pytest.mark.parametrize(
    ("entries", "settings", "path", "text"),
    [
        ([program(data=b"#!/true")], {}, LOADER, "7 bytes in the image, 16000 of this installation"),
        ([program(data=b"loader of arm64\n" * 999)], {}, LOADER, "different from byte 15984 on"),
        ([program(mode=0o4755)], {}, LOADER, "mode 4755, owner 0:0 in the image"),
        ([program(uid=1000)], {}, LOADER, "mode 0755, owner 1000:0 in the image"),
        ([program(xattrs={"security.capability": b"\1\2"})], {}, LOADER, "0102 in the image, 00000002"),
        ([program()], {}, LOADER, "nothing in the image, 00000002"),
        ([program("usr/sbin/tini", data=b"sh")], {}, TINI, "2 bytes in the image"),
        ([TarEntry(path="usr/bin/.wh.verify-and-load")], {}, LOADER, "not in the image"),
        ([program(kind=tarfile.SYMTYPE, target="/bin/sh", data=b"")], {}, LOADER, "not in the image"),
        ([], {"Entrypoint": ["/bin/sh"]}, "configuration", "Entrypoint is ['/bin/sh'] in the image, ['/sbin"),
        ([], {"Cmd": ["--", "/bin/sh"]}, "configuration", "Cmd is ['--', '/bin/sh'] in the image, nothing"),
        ([], {"User": "0"}, "configuration", "User is '0' in the image, '65532:65532' here"),
    ],
)
def test_other_programs_and_another_start_are_named(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    entries: list[TarEntry],
    settings: dict[str, Any],
    path: str,
    text: str,
) -> None:
    """Equal objects under a loader that is another one, or that is gone past, are not an equal image."""
    change(*entries, **settings)
    capsys.readouterr()
    assert run(["rebuild", "--check", "x.tar", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [item["equal"] for item in told["objects"]] == [True]
    (found,) = [item for item in told["files"] if not item["equal"]]
    assert (found["platform"], found["path"]) == ("linux/arm64", path)
    assert text in found["problems"][0]
    assert run(["rebuild", "--check", "x.tar"]) == 1
    assert text in capsys.readouterr().out
    assert run(["rebuild", "--check", "x.tar", "--objects-only"]) == 0


def test_object_that_is_missing_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source whose object the image has not: a program that was taken out of it."""
    Path("bpf/more.bpf.c").write_text("int more;\n")
    assert run(["rebuild", "--check", ARCHIVE]) == 1
    said = capsys.readouterr().out.splitlines()
    at = said.index("linux/arm64  /usr/lib/buildtool/objects/more.bpf.o  not equal")
    assert said[at + 1] == "    not in the image, and bpf/more.bpf.c is here"


def test_without_loaders_programs_are_not_compared(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without carried loaders, programs are "not compared", with the reason."""
    monkeypatch.setenv("BUILDTOOL_LOADERS", str(tmp_path))
    assert run(["rebuild", "--check", ARCHIVE]) == 0
    said = capsys.readouterr().out
    assert said.count(f"not compared\n    {tmp_path}: no loaders/loaders.json in it\n") == 4


def image_of(objects: dict[str, bytes]) -> None:
    """Write archive x.tar of an image with *objects*."""
    entries = [TarEntry(path=f"{OBJECTS}/{name}", data=data) for name, data in objects.items()]
    layer = gzip_layer(pack_tar(entries))
    images = make_image_set([(PLATFORMS["amd64"], {"config": {}}, [layer])])
    write_archive(Path("x.tar"), images, "x:1", replace=True)


def shipped() -> bytes:
    """Return the image's amd64 object."""
    with open_layout(Path(ARCHIVE)) as source:
        return all_objects(read_image_contents(source))["linux/amd64", "answer.bpf.o"]


def flip(data: bytes) -> bytes:
    """Change one instruction."""
    at = next(item.offset for item in parse_object(data).sections if item.name == b"socket") + 4
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda _: unsigned(), "not signed, so nothing says how it was made"),
        (lambda _: sign(), "does not say how it was made"),
        (lambda _: b"text", "not an ELF file"),
        (flip, "differs in socket"),
        (lambda data: data.replace(b"linux/amd64", b"linux/arm64"), "the statement is for answer.bpf.o"),
        (lambda data: data.replace(b'"-Wall"', b'"-Wabc"'), "compiled with other flags"),
        (lambda data: data.replace(b'"bpf/answer.bpf.c"', b'"../answerx.bpf.c"'[:18]), "inside the project"),
    ],
)
def test_objects_that_say_too_little_or_lie(
    project: Path, capsys: pytest.CaptureFixture[str], make: Callable[[bytes], bytes], text: str
) -> None:
    """Objects with missing or false records are not equal, and cause no access outside the project."""
    image_of({"answer.bpf.o": make(shipped())})
    code, verdicts = check(capsys, "x.tar")
    assert code == 1
    assert text in verdicts["linux/amd64"]["problems"][0]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([ARCHIVE], 2, "rebuild requires --check"),
        (["--check", "none.tar"], 1, "none.tar: no such file"),
        (["--check", "buildtool.toml"], 1, "not an image archive"),
        (["--check", "bpf"], 1, "bpf: not an OCI layout"),
        (["--check", "base.tar"], 1, "no objects in /usr/lib/buildtool/objects"),
        (["--check", "Some Thing"], 2, "is not an image reference"),
        (
            ["--check", "agent:9"],
            1,
            "agent:9: no such file, and no Docker engine answers: unix:///",
        ),
    ],
)
def test_bad_targets_are_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    """A target that is no image results in one error line."""
    capsys.readouterr()
    assert run(["rebuild", *arguments]) == code
    error = capsys.readouterr().err
    assert error.count("buildtool: error:") == 1
    assert text in error
    if "no Docker engine" in text:
        assert "without one, name the archive that build --engine local wrote (NAME-RELEASE.oci.tar)" in error
