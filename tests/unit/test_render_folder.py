# SPDX-License-Identifier: Apache-2.0
"""The folder that `render` writes: a short Dockerfile, and one archive that it knows by digest."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labs.dockerfile import PEM, instructions, request
from labs.headers import write_headers

from buildtool.compile.headers import carried_headers, read_headers
from buildtool.config.file import Config, ProjectConfig
from buildtool.core.errors import ConfigError, FileAccessError, UsageError
from buildtool.core.platforms import PLATFORMS
from buildtool.core.resources import package_directory
from buildtool.image import archive as archives
from buildtool.image import folder as folders
from buildtool.image.archive import ARCHIVE_EPOCH, SourceArchive, pack_own_sources, pack_project
from buildtool.image.dockerfile import Dockerfile, Form, render_dockerfile
from buildtool.image.embedded import VENDORED, loader_sources, python_sources
from buildtool.image.folder import check_folder, write_folder
from buildtool.image.sentheaders import choose_headers

PREPARED = "buildtool.local/builder:trixie"


def own_files() -> dict[str, bytes]:
    """Return what the archive must hold of our own, by path."""
    files = (*loader_sources(), *python_sources())
    return {f"{file.directory}/{file.name}": file.text.encode() for file in files}


def members(archive: SourceArchive) -> dict[str, tarfile.TarInfo]:
    """Return the members of *archive* as Python's own reader finds them."""
    with tarfile.open(fileobj=io.BytesIO(archive.data)) as tar:
        return {member.name: member for member in tar}


def unpack(archive: SourceArchive, place: Path) -> Path:
    """Unpack *archive* with the tar that the builder has, which must have nothing to warn of."""
    place.mkdir()
    (place / "sources.tar").write_bytes(archive.data)
    done = subprocess.run(
        ["tar", "--extract", "--file", "sources.tar"], cwd=place, capture_output=True, check=True
    )
    assert done.stderr == b""
    (place / "sources.tar").unlink()
    return place


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with sources, a key and a file beside them."""
    for name, text in {
        "bpf/x.bpf.c": "int x;\n",
        "bpf/deep/y.h": "int y;\n",
        "include/z.h": "int z;\n",
        "keys/dev.pem": "NOT-TO-BE-SENT",
        "notes.txt": "NOT-TO-BE-SENT",
    }.items():
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text(text)
    return tmp_path / "project"


def pack(project: Path) -> SourceArchive:
    """Pack *project* with its two directories of sources."""
    return pack_project(project, ["bpf", "include"], ["bpf/x.bpf.c"])


def dockerfile(word: str) -> Dockerfile:
    """Make a Dockerfile with an archive of its own; *word* makes it another."""
    archive = SourceArchive(data=word.encode())
    return Dockerfile(text=f"# {word}\nCOPY {archive.name} /\n", archive=archive)


@pytest.mark.parametrize("form", [Form.PROJECT, Form.FOLDER])
@pytest.mark.parametrize(
    ("arches", "builder", "limit"),
    [
        (("amd64",), PREPARED, 160),
        (("amd64", "arm64"), PREPARED, 220),
        (("amd64", "arm64"), "debian:trixie-slim", 240),
    ],
)
def test_dockerfile_is_short_enough_to_read(
    project: Path, form: Form, arches: tuple[str, ...], builder: str, limit: int
) -> None:
    """A person reads it whole: few lines, none of them endless, and comments to most stages."""
    wanted = request(platforms=tuple(PLATFORMS[arch] for arch in arches), images__builder=builder, form=form)
    text = render_dockerfile(replace(wanted, config=replace(wanted.config, root=project))).text
    lines = text.splitlines()
    assert len(lines) <= limit
    assert max(map(len, lines)) <= 140
    assert sum(line.startswith("#") for line in lines) >= 30
    assert sum("<<'" in line for line in lines) == 3  # the digest, the plans and the public key


def test_text_names_the_archive_and_all_of_its_digest() -> None:
    """The name holds twelve letters of the digest; the check has all of them, before tar runs."""
    found = render_dockerfile(request())
    assert found.archive
    digest = hashlib.sha256(found.archive.data).hexdigest()
    assert found.archive.name == f"buildtool-sources-{digest[:12]}.tar"
    lines = instructions(found.text)
    start = lines.index("FROM --platform=$BUILDPLATFORM ${BUILDER_IMAGE} AS sources")
    stage = lines[start + 1 : start + 6]
    assert stage == [
        "WORKDIR /sources",
        f"COPY --from=archive /{found.archive.name} /sources.tar",
        "COPY <<'sources.sha256' /",
        'RUN --network=none ["sha256sum", "--check", "--strict", "/sources.sha256"]',
        'RUN --network=none ["tar", "--extract", "--file", "/sources.tar"]',
    ]
    assert f"\n{digest}  /sources.tar\nsources.sha256\n" in found.text


def test_every_stage_that_runs_our_code_mounts_checked_sources() -> None:
    """The archive itself is read by the stage that checks it, and by no other."""
    lines = instructions(render_dockerfile(request()).text)
    assert [line for line in lines if "from=archive" in line] == [
        f"COPY --from=archive /{pack_own_sources().name} /sources.tar"
    ]
    ours = [line for line in lines if '"buildtool"' in line]
    assert len(ours) == 3
    assert all(
        "from=sources,source=/sources/buildtool,target=/opt/buildtool/buildtool " in line for line in ours
    )


def test_archive_holds_the_sources_and_nothing_else() -> None:
    """The closure of the commands and the loader, with fixed times, owners and modes, in a fixed order."""
    found = members(pack_own_sources())
    assert set(found) == set(own_files())
    assert list(found) == sorted(found, key=lambda name: name.split("/"))
    for member in found.values():
        assert member.isfile()
        facts = (member.mtime, member.mode, member.uid, member.gid, member.uname, member.gname)
        assert facts == (ARCHIVE_EPOCH, 0o644, 0, 0, "", "")


@pytest.mark.parametrize("form", Form)
def test_headers_are_where_the_modules_look_for_them(form: Form, tmp_path: Path, project: Path) -> None:
    """In the text or the archive; without them the compiler gets those of the builder, and is told so."""
    config = Config(root=project, project=ProjectConfig(name="demo"))
    stand_ins = read_headers(write_headers(tmp_path / "headers"))
    (project / "bpf/x.bpf.c").write_text("#include <linux/bpf.h>\n")
    chosen = choose_headers(config, ["bpf/x.bpf.c"], [PLATFORMS["arm64"]], stand_ins)
    made = render_dockerfile(replace(request(form=form, headers=chosen), config=config))
    assert not compiles_with_system_headers(made.text)
    place = carried_headers().relative_to(package_directory().parent).as_posix()
    wanted = {"common/linux/bpf.h", "common/linux/types.h", "arm64/asm/types.h", "headers.json"}
    if made.archive is None:
        assert f"COPY <<'types.h' /sources/{place}/arm64/asm/\n/* arm64 */\ntypes.h\n" in made.text
    else:
        assert {f"{place}/{name}" for name in wanted} <= set(members(made.archive))
    config = replace(config, compile=replace(config.compile, system_headers=True))
    without = render_dockerfile(replace(request(form=form), config=config))
    assert compiles_with_system_headers(without.text)
    assert place not in without.text


def compiles_with_system_headers(text: str) -> bool:
    """Say whether the one command that compiles has the option."""
    (line,) = (line for line in instructions(text) if '"compile"' in line)
    return '"--system-headers"' in line


def test_archive_is_unpacked_by_tar(tmp_path: Path, project: Path) -> None:
    """GNU tar makes the files of it, byte for byte."""
    place = unpack(pack(project), tmp_path / "unpacked")
    files = {
        path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()
    }
    theirs = {"bpf/x.bpf.c": b"int x;\n", "bpf/deep/y.h": b"int y;\n", "include/z.h": b"int z;\n"}
    assert files == {**own_files(), **{f"project/{name}": data for name, data in theirs.items()}}


def test_archive_of_a_copy_is_the_same(tmp_path: Path, project: Path) -> None:
    """Times, modes and the order of a directory do not matter."""
    before = pack(project)
    for path in project.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1, 10**9))
    project.rename(tmp_path / "elsewhere")
    assert pack(tmp_path / "elsewhere").data == before.data


def test_only_the_directories_of_sources_are_packed(project: Path) -> None:
    """Neither keys nor files beside the sources are in the archive."""
    data = pack(project).data
    assert b"int y;" in data
    assert b"NOT-TO-BE-SENT" not in data


def test_links_are_packed_as_links(project: Path) -> None:
    """The target of a link is not packed, because it may be any file of this machine."""
    (project / "bpf/link.h").symlink_to("../keys/dev.pem")
    (project / "bpf/all").symlink_to("../keys")
    os.mkfifo(project / "bpf/pipe")
    packed = pack(project)
    found = members(packed)
    assert found["project/bpf/link.h"].linkname == "../keys/dev.pem"
    assert found["project/bpf/all"].linkname == "../keys"
    assert "project/bpf/pipe" not in found
    assert b"NOT-TO-BE-SENT" not in packed.data


def test_ignored_files_are_not_packed(project: Path) -> None:
    """The archive holds what BuildKit would have been sent."""
    (project / ".dockerignore").write_text("# a comment\n\n**/*.tmp\nbpf/deep\n!bpf/deep/y.h\n")
    (project / "bpf/a.tmp").write_text("NOT-TO-BE-SENT")
    (project / "bpf/deep/b.c").write_text("NOT-TO-BE-SENT")
    packed = pack(project)
    assert b"NOT-TO-BE-SENT" not in packed.data
    assert {"project/bpf/x.bpf.c", "project/bpf/deep/y.h"} <= set(members(packed))


@pytest.mark.parametrize("target", ["../outside", "other"])
def test_directory_that_is_a_link_is_not_packed(project: Path, target: str) -> None:
    """Its files may be anywhere on this machine; a link on the way to a directory is no better."""
    for place in (project.parent / "outside/deep", project / "other/deep"):
        place.mkdir(parents=True)
        (place / "hosts.h").write_text("NOT-TO-BE-SENT")
    (project / "inc").symlink_to(target)
    for name in ("inc", "inc/deep"):
        with pytest.raises(ConfigError, match="project/inc: a symbolic link"):
            pack_project(project, ["bpf", name], ["bpf/x.bpf.c"])


@pytest.mark.parametrize("exception", ["", "!**/public.h\n"])
def test_ignored_directory_keeps_its_files_out(
    project: Path, monkeypatch: pytest.MonkeyPatch, exception: str
) -> None:
    """At any depth, with or without exceptions; files that stay out are not even read."""
    place = project / "bpf/deep/private"
    (place / "more").mkdir(parents=True)
    for name in ("token", "more/token", "more/large", "public.h"):
        (place / name).write_text("NOT-TO-BE-SENT" if name != "public.h" else "")
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 10)
    (project / ".dockerignore").write_bytes(b"\xef\xbb\xbf**/private\n" + exception.encode())
    packed = pack(project)
    assert b"NOT-TO-BE-SENT" not in packed.data
    found = {name for name in members(packed) if "private" in name}
    assert found == ({"project/bpf/deep/private/public.h"} if exception else set())


@pytest.mark.parametrize("pattern", ["bpf", "**/*.c", "*"])
def test_ignored_source_is_an_error(project: Path, pattern: str) -> None:
    """A folder that cannot be built is not written."""
    (project / ".dockerignore").write_text(pattern)
    with pytest.raises(ConfigError, match=r"x\.bpf\.c: excluded by \.dockerignore"):
        pack(project)


def test_source_behind_a_link_is_packed(project: Path) -> None:
    """A source behind a link is packed with its directory, and the link is packed, too."""
    (project / "bpf/link").symlink_to("deep")
    (project / "bpf/deep/y.bpf.c").write_text("int y;\n")
    assert pack_project(project, ["bpf"], ["bpf/link/y.bpf.c"]).data


def test_what_cannot_be_packed_is_one_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large, a name that is no text, a directory that is not there."""
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 6)
    with pytest.raises(ConfigError, match="larger than 6 bytes"):
        pack(project)
    monkeypatch.undo()
    with pytest.raises(FileAccessError, match="cannot read"):
        pack_project(project, ["none"], [])
    (project / "bpf/link").symlink_to(os.fsdecode(b"\xff"))
    with pytest.raises(ConfigError, match=r"bpf/link.*: the target of the link is not UTF-8: "):
        pack(project)
    (project / "bpf/link").unlink()
    Path(os.fsdecode(bytes(project / "bpf") + b"/\xff.h")).write_text("")
    with pytest.raises(ConfigError, match="not UTF-8"):
        pack(project)


def test_sources_are_mounted_from_where_they_are(project: Path) -> None:
    """In the project from the build context, elsewhere from the archive alone; the commands are the same."""
    texts = {}
    for form in Form:
        wanted = request(compile__include=("include",), form=form)
        texts[form] = render_dockerfile(replace(wanted, config=replace(wanted.config, root=project))).text
    for form in (Form.PROJECT, Form.INLINE):
        assert "--mount=type=bind,source=bpf,target=/project/bpf " in texts[form]
        assert "--mount=type=bind,source=include,target=/project/include " in texts[form]
    folder = texts[Form.FOLDER]
    assert not re.findall(r"type=bind,source=", folder)
    assert "type=bind,from=sources,source=/sources/project/bpf,target=/project/bpf " in folder
    commands = [
        [line[line.index("[") :] for line in instructions(text) if '"python3"' in line]
        for text in texts.values()
    ]
    assert commands[0] == commands[1] == commands[2]


def test_folder_names_its_time_and_forms_of_a_project_do_not() -> None:
    """A frozen copy has one time; a Dockerfile beside the sources must not change with each commit."""
    assert "--build-arg SOURCE_DATE_EPOCH=77 " in render_dockerfile(request(epoch=77)).text
    assert "SOURCE_DATE_EPOCH=7" not in render_dockerfile(request()).text


def test_one_file_holds_all_sources_as_text() -> None:
    """The form without an archive has every file of ours as a heredoc, and those of libraries in base64."""
    found = render_dockerfile(request(form=Form.INLINE))
    assert found.archive is None
    assert "AS archive" not in found.text
    files = (*loader_sources(), *python_sources())
    libraries = [file for file in files if file.directory.startswith(VENDORED)]
    for text in (file.text for file in files if file.text and file not in libraries):
        assert f"\n{text}" in found.text
    packed = found.text.partition("<<'vendored.tar.gz.base64' /\n")[2].partition("\nvendored.tar.gz.base64")[
        0
    ]
    with tarfile.open(fileobj=io.BytesIO(b64decode(packed))) as outer:
        inner = outer.extractfile("vendored.tar.gz")
        assert inner is not None
        with tarfile.open(fileobj=inner) as archive:
            held = {member.name: archive.extractfile(member) for member in archive}
            texts = {name: file.read().decode() for name, file in held.items() if file}
    assert texts == {f"{file.directory}/{file.name}": file.text for file in libraries}


def test_folder_gets_both_files_with_plain_modes(tmp_path: Path) -> None:
    """The directory is made; the Dockerfile names the archive beside it."""
    write_folder(tmp_path / "a/b", dockerfile("one"), force=False)
    found = {path.name: path.read_bytes() for path in (tmp_path / "a/b").iterdir()}
    assert found == {"Dockerfile": dockerfile("one").text.encode(), archive_name("one"): b"one"}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a/b").iterdir()} == {0o644}


def archive_name(word: str) -> str:
    """Return the name of the archive of `dockerfile(word)`."""
    return SourceArchive(data=word.encode()).name


@pytest.mark.parametrize("name", ["Dockerfile", "archive"])
def test_existing_file_stays_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    """Without --force, an existing Dockerfile or archive stays, and nothing is written."""
    path = tmp_path / (archive_name("one") if name == "archive" else name)
    path.write_text("mine")
    with pytest.raises(FileAccessError, match="already exists") as caught:
        write_folder(tmp_path, dockerfile("one"), force=False)
    assert caught.value.hint == "--force replaces it"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "mine"


def test_forced_folder_follows_no_link(tmp_path: Path) -> None:
    """A Dockerfile that is a link, to a device perhaps, is never replaced."""
    (tmp_path / "target").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/Dockerfile").symlink_to("../target")
    for write in (
        check_folder,
        lambda *_, **more: write_folder(tmp_path / "folder", dockerfile("one"), **more),
    ):
        with pytest.raises(FileAccessError, match="a symbolic link"):
            write(tmp_path / "folder", force=True)
    assert (tmp_path / "target").read_text() == "mine"
    assert len(list((tmp_path / "folder").iterdir())) == 1


def test_forced_folder_loses_the_old_archive_only(tmp_path: Path) -> None:
    """The archive that the replaced Dockerfile named has no use any more; other files stay."""
    write_folder(tmp_path, dockerfile("one"), force=False)
    (tmp_path / archive_name("other")).write_text("named by nobody")
    (tmp_path / "notes").write_text("mine")
    write_folder(tmp_path, dockerfile("two"), force=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"Dockerfile", "notes", archive_name("two"), archive_name("other")}
    write_folder(tmp_path, dockerfile("two"), force=True)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_hostile_dockerfile_removes_no_other_file(tmp_path: Path) -> None:
    """The Dockerfile that is replaced may be anybody's: it names nothing but archives of this folder."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "buildtool-sources-0123456789ab.tar").write_text("outside")
    text = "COPY ../buildtool-sources-0123456789ab.tar /\nCOPY notes /\n"
    (tmp_path / "folder/Dockerfile").write_text(text)
    (tmp_path / "folder/notes").write_text("mine")
    write_folder(tmp_path / "folder", dockerfile("one"), force=True)
    assert (tmp_path / "folder/notes").exists()
    assert (tmp_path / "buildtool-sources-0123456789ab.tar").exists()


def test_failed_write_leaves_neither_file_nor_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed write leaves neither file, and removes a new directory."""
    real = folders.staged_files

    def broken(*arguments: Any, **more: Any) -> Any:
        stage = real(*arguments, **more)
        return _FailingStage(stage)

    monkeypatch.setattr(folders, "staged_files", broken)
    with pytest.raises(FileAccessError, match="disk is full"):
        write_folder(tmp_path / "new", dockerfile("one"), force=False)
    assert list(tmp_path.iterdir()) == []


class _FailingStage:
    """A stage whose second write fails."""

    def __init__(self, stage: Any) -> None:
        self._stage, self._writes = stage, 0

    def __enter__(self) -> Any:
        self._inner = self._stage.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._stage.__exit__(*error)

    def write(self, path: Path, data: bytes) -> None:
        """Write once, then fail."""
        self._writes += 1
        if self._writes > 1:
            raise FileAccessError(f"{path}: cannot write: the disk is full")
        write: Callable[[Path, bytes], None] = self._inner.write
        write(path, data)


@pytest.mark.parametrize("name", ["Dockerfile", "dockerfile.arm64", "agent.Dockerfile", "notes.txt"])
def test_file_is_no_folder(tmp_path: Path, name: str) -> None:
    """A file as --output is a usage error whose hint names --inline."""
    if name == "notes.txt":
        (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="not a directory") as caught:
        check_folder(tmp_path / name, force=True)
    assert "--inline --output" in str(caught.value.hint)


def test_links_that_lead_round_are_one_error(tmp_path: Path) -> None:
    """Neither a traceback nor a folder."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for place in (tmp_path / "a", tmp_path / "a/new"):
        with pytest.raises(FileAccessError, match="cannot write"):
            check_folder(place, force=True)


def test_folder_may_have_any_name_that_is_a_directory(tmp_path: Path) -> None:
    """A directory that is called so is one; a new one of another name is fine."""
    (tmp_path / "Dockerfile").mkdir()
    check_folder(tmp_path / "Dockerfile", force=False)
    check_folder(tmp_path / "new", force=False)
    (tmp_path / "Dockerfile/Dockerfile").write_text(PEM)
    with pytest.raises(FileAccessError, match="already exists"):
        check_folder(tmp_path / "Dockerfile", force=False)
