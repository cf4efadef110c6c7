# SPDX-License-Identifier: Apache-2.0
"""Projects as they are: sources of any name and folder, settings of single objects, headers outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from labs.image import read_image
from labs.layout import OBJECTS, PLACES, write_layout
from labs.project import make_local_project
from labs.readelf import read_with_llvm

from buildtool.cli.main import run
from buildtool.compile.record import CompiledObject, read_compile_record
from buildtool.objects.elf import parse_object
from buildtool.signing.statement import read_statement

pytestmark = pytest.mark.tools


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the project, as the working directory, with a key and stand-ins for the parts of an image."""
    made = make_local_project(tmp_path / "parts", monkeypatch)
    root = write_layout(tmp_path / "layout")
    (root / "keys").symlink_to(made / "keys")
    (root / "base.tar").symlink_to(made / "base.tar")
    monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", "oci-layout://base.tar")
    monkeypatch.chdir(root)
    return root


def _record(arch: str, path: str) -> CompiledObject:
    file = Path("build", arch, path)
    return read_compile_record(file.parent)[file.name]


def test_objects_keep_names_and_folders(layout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each source gives one object in its folder, and each entry of compile.object one of its own."""
    assert run(["compile", "--arch", "amd64,arm64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(
        f"build/{arch}/{path}" for arch in ("amd64", "arm64") for path in OBJECTS.values()
    )
    for name, path in OBJECTS.items():
        assert _record("arm64", path).name == name
    flags = {
        (arch, path): _record(arch, path).toolchain.flags
        for arch in ("amd64", "arm64")
        for path in OBJECTS.values()
    }
    assert flags["amd64", "six.o"][-1] == "-DLEVEL=1"
    assert flags["arm64", "six.o"][-2:] == ("-mcpu=v2", "-DLEVEL=2")
    assert flags["amd64", "four-debug.o"][-1] == "-DVALUE=44"
    assert flags["amd64", "four.o"][-1] == "-DVALUE=4"
    assert "-mcpu=v2" not in flags["amd64", "top.o"]
    data = Path("build/amd64/six.o").read_bytes()
    assert all(place.encode() in data for place in PLACES)
    assert str(layout.parent).encode() not in data
    assert read_with_llvm(Path("build/amd64/six.o")).section(".BTF").size > 0
    # One source again has the same settings and name.
    assert run(["compile", "--arch", "arm64", "src/six.c", "bpf/one/program.bpf.c"]) == 0
    assert _record("arm64", "six.o").toolchain.flags == flags["arm64", "six.o"]
    assert _record("arm64", "one/program.bpf.o").name == "one.program.bpf.o"


def test_the_digest_of_sources_covers_headers_outside(layout: Path) -> None:
    """A changed header outside the project is another source; an unused one is not."""
    assert run(["compile", "--arch", "amd64", "src/six.c"]) == 0
    before = _record("amd64", "six.o").source.sha256
    (layout.parent / "outside/include/unused.h").write_text("int unused;\n")
    assert run(["compile", "--arch", "amd64", "src/six.c"]) == 0
    assert _record("amd64", "six.o").source.sha256 == before
    (layout.parent / "outside/include/deep/inner.h").write_text("#define INNER 7 // same code\n")
    assert run(["compile", "--arch", "amd64", "src/six.c"]) == 0
    assert _record("amd64", "six.o").source.sha256 != before


def test_objects_in_folders_are_signed_by_their_names(
    layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In place and into one folder; check names each object once."""
    assert run(["compile", "--arch", "amd64"]) == 0
    built = [str(layout / "build/amd64" / path) for path in OBJECTS.values()]
    assert run(["sign", *built, "--output", "signed"]) == 0
    assert sorted(path.name for path in Path("signed").iterdir()) == sorted(OBJECTS)
    for name in OBJECTS:
        assert read_statement(parse_object(Path("signed", name).read_bytes())).name == name
    assert run(["sign", *built]) == 0
    assert (
        read_statement(parse_object(Path("build/amd64/two/program.bpf.o").read_bytes())).name
        == "two.program.bpf.o"
    )
    capsys.readouterr()
    assert run(["check", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert sorted(item["name"] for item in report["objects"]) == [f"amd64/{name}" for name in sorted(OBJECTS)]


def test_images_have_one_folder_of_objects(layout: Path, tmp_path: Path) -> None:
    """The embedded engine's image has the flat names, and rebuild makes the same bytes."""
    assert layout.is_dir()
    archive = tmp_path / "image.tar"
    argv = ["build", "--engine", "local", "--arch", "amd64,arm64", "--output", f"type=oci,dest={archive}"]
    assert run(argv) == 0
    for _, tree in read_image(archive).values():
        found = [path for path, entry in tree.items() if "/objects/" in path and entry.is_file]
        assert sorted(path.rpartition("/")[2] for path in found) == sorted(OBJECTS)
    assert run(["rebuild", "--check", "--objects-only", str(archive)]) == 0
    (layout / "bpf/one/program.bpf.c").unlink()
    assert run(["rebuild", "--check", "--objects-only", str(archive)]) == 1


def test_a_source_may_be_of_one_architecture(
    layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """[compile.arm64] exclude leaves out one object there, in images and when they are rebuilt."""
    config = layout / "buildtool.toml"
    lines = config.read_text().replace("[compile.arm64]\n", '[compile.arm64]\nexclude = ["src/six.c"]\n')
    config.write_text(lines)
    assert 'exclude = ["src/six.c"]' in lines
    archive = tmp_path / "image.tar"
    argv = ["build", "--engine", "local", "--arch", "amd64,arm64", "--output", f"type=oci,dest={archive}"]
    assert run(argv) == 0, capsys.readouterr().err
    for platform, (_, tree) in read_image(archive).items():
        found = {
            path.rpartition("/")[2] for path, entry in tree.items() if "/objects/" in path and entry.is_file
        }
        assert found == set(OBJECTS) - ({"six.o"} if "arm64" in str(platform) else set())
    assert run(["rebuild", "--check", "--objects-only", str(archive)]) == 0, capsys.readouterr().out
    config.write_text(lines.replace('exclude = ["src/six.c"]', 'exclude = ["**"]'))
    capsys.readouterr()
    assert run(["compile", "--arch", "arm64"]) == 2
    assert "no sources for arm64" in capsys.readouterr().err


def test_objects_are_stale_after_a_change_outside_or_of_a_rule(
    layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A header outside the project and the settings of a single object are compared before signing."""
    assert run(["compile", "--arch", "amd64"]) == 0
    header = layout.parent / "outside/include/deep/inner.h"
    before = header.read_bytes()
    header.write_text("#define INNER 8\n")
    capsys.readouterr()
    assert run(["sign", "build/amd64/six.o", "--output", "signed"]) == 1
    assert "src/six.c or a file that it includes has changed" in capsys.readouterr().err
    header.write_bytes(before)
    config = layout / "buildtool.toml"
    config.write_text(config.read_text().replace("-DVALUE=44", "-DVALUE=45"))
    assert run(["sign", "build/amd64/six.o", "build/amd64/four.o", "--output", "signed"]) == 0
    assert run(["sign", "build/amd64/four-debug.o", "--output", "signed"]) == 1
    assert "compile.include, compile.flags or compile.object has changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (
            'flags = ["-include/etc/shadow"]',
            2,
            "buildtool.toml:4: compile.flags: '-include/etc/shadow' is not a flag",
        ),
        ('flags = ["-O0"]', 2, "the kernel's verifier cannot follow unoptimised code"),
        ('flags = ["-Wl,-x"]', 2, "passes options to another tool"),
        ('[compile.arm64]\nflags = ["-g"]', 2, "buildtool.toml:4: compile.arm64: flags: '-g' is not a flag"),
        ("[compile.vax]\nflags = []", 2, "unknown key compile.vax"),
        ("[[compile.rule]]\nflags = []", 2, "compile.rule: table 1: the key match is missing"),
        ('[[compile.rule]]\nmatch = ["*"]\nx = 1', 2, "compile.rule: table 1: unknown key 'x'"),
        ("rule = 3", 2, "compile.rule: must be an array of tables"),
        ('[[compile.object]]\nname = "x"\nsource = "a.c"', 2, "'x' does not end in .o"),
        (
            '[[compile.object]]\nname = "a.o"\nsource = "b.c"',
            1,
            "b.c: cannot read: no such file or directory",
        ),
        (
            '[[compile.object]]\nname = "x.o"\nsource = "src/y.c"',
            2,
            "x.o: made from two sources: src/x.c, src/y.c",
        ),
        ('exclude = ["**"]', 2, "no sources: nothing matches src/*.c without those of compile.exclude"),
        ('include = ["../nowhere"]', 1, "../nowhere: not a directory"),
    ],
)
def test_wrong_settings_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    code: int,
    message: str,
) -> None:
    """File and line or the object, the reason, and the exit code; nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/x.c").write_text("int x;\n")
    (tmp_path / "src/y.c").write_text("int y;\n")
    (tmp_path / "buildtool.toml").write_text(f'[project]\n[compile]\nsources = ["src/*.c"]\n{text}\n')
    assert run(["compile", "--arch", "amd64"]) == code
    output = capsys.readouterr()
    (line,) = [line for line in output.err.splitlines() if line.startswith("buildtool: error: ")]
    assert message in line
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize("flag", ["-Wno-missing-declarations", "-Wno-everything"])
def test_a_dropped_member_is_always_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    """With -fno-ms-extensions clang drops the member, and no flag hides the warning."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.c").write_text("struct a { int i; };\nstruct b { struct a; int j; } b;\n")
    assert run(["compile", "x.c", "--arch", "amd64", f"--flag={flag}", "--flag=-fno-ms-extensions"]) == 0
    assert "declaration does not declare anything" in capsys.readouterr().err
    assert run(["compile", "x.c", "--arch", "amd64", f"--flag={flag}"]) == 0
    assert capsys.readouterr().err == ""
