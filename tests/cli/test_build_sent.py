# SPDX-License-Identifier: Apache-2.0
"""`build` and `render` check the directories of sources before anything is sent to the builder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from buildtool.cli.main import run

ARGUMENTS = ("--arch", "amd64", "--key", "keys/dev.pem")
HEADER = "-----BEGIN EC PRIVATE KEY-----\n"
# With images that are named no engine is asked for prepared ones.
CONFIG = '[compile]\ninclude = ["include"]\n[images]\nbuilder = "site/builder:1"\nbase = "site/base:1"\n'
# Reads all that buildx would be told, and says what it got when that came to its end.
BUILDX = """#!/bin/sh
[ "$2" != version ] || exit 0
text=$(cat) && [ -n "$text" ] && echo "$text" > {received}
exit 1
"""

# The stand-in for docker is found on PATH; sources are compiled by none of these tests.
pytestmark = pytest.mark.tools


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Make a project with two directories that are sent and one that is not, and be in it."""
    for name in ("bpf", "include", "other", "bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bpf/x.bpf.c").write_text("int x;\n")
    (tmp_path / "buildtool.toml").write_text(CONFIG)
    client = tmp_path / "bin/docker"
    client.write_text(BUILDX.format(received=tmp_path / "received"))
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(client.parent), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    assert run(["keygen", "dev"]) == 0
    capsys.readouterr()
    return tmp_path


def _check_refused(project: Path, capsys: pytest.CaptureFixture[str], line: str, *arguments: str) -> None:
    """Check that both commands end with exit code 2 and begin with *line*, and that buildx got nothing."""
    for command in (["render"], ["build", "--engine", "docker"]):
        assert run([*command, *(arguments or ARGUMENTS)]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith(f"buildtool: error: {line}"), output.err
        assert output.err.count("\n") == 2  # the hint is the second
    assert not (project / "received").exists()


def test_what_may_be_sent_arrives(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other tests see nothing arrive because of what they refuse."""
    assert run(["build", "--engine", "docker", *ARGUMENTS]) == 1
    assert "buildtool: error: " in capsys.readouterr().err
    assert "FROM" in (project / "received").read_text()


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("bpf/release.pem", None),
        ("include/deep/er/tls.txt", HEADER),
        ("bpf/chain.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + HEADER),
        ("include/values.yaml", "tls:\n  key: |\n    -----BEGIN ENCRYPTED PRIVATE KEY-----\n"),
        ("bpf/.id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        ("bpf/pgp.asc", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n"),
    ],
)
def test_any_private_key_among_the_sources_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str], place: str, text: str | None
) -> None:
    """Any private key is refused, whatever its name is, and even if .dockerignore excludes it."""
    (project / place).parent.mkdir(parents=True, exist_ok=True)
    (project / place).write_text(text or (project / "keys/dev.pem").read_text())
    (project / ".dockerignore").write_text("**/*.pem\n")
    _check_refused(project, capsys, f"{place}: a private key in {place.partition('/')[0]}/, which is sent")


def test_key_in_a_variable_changes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file among the sources is the same key or another: it is sent either way."""
    text = (project / "keys/dev.pem").read_text()
    (project / "bpf/release.pem").write_text(text)
    monkeypatch.setenv("BUILDTOOL_SIGNING_KEY", text)
    _check_refused(project, capsys, "bpf/release.pem: a private key", "--arch", "amd64")


def test_what_is_no_private_key_is_no_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Public keys, code that speaks of keys, keys elsewhere, links, FIFOs, files without an end."""
    (project / "bpf/dev.pub").write_text((project / "keys/dev.pub").read_text())
    (project / "bpf/find.h").write_text('#define KEY "-----BEGIN PRIVATE KEY-----"\n')
    (project / "other/tls.pem").write_text(HEADER)
    (project / "bpf/tls.pem").symlink_to("../other/tls.pem")
    (project / "bpf/loop").symlink_to(".")
    (project / "bpf/null").symlink_to("/dev/zero")
    os.mkfifo(project / "bpf/fifo")
    (project / "include/vmlinux.h").write_text("\n" * 70_000 + HEADER)
    assert run(["render", *ARGUMENTS]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("links", "target"),
    [
        ({"bpf/x.bpf.c": "../other/x.c"}, "../other/x.c"),
        ({"bpf/x.bpf.c": "{project}/include/x.c"}, "{project}/include/x.c"),
        ({"bpf/x.bpf.c": "../../{name}/bpf/y.c"}, "../../{name}/bpf/y.c"),
        ({"bpf/x.bpf.c": "y.c", "bpf/y.c": "../other/x.c"}, "../other/x.c"),
        ({"bpf/x.bpf.c": "../other/y.c", "other/y.c": "../include/x.c"}, "../other/y.c"),
        ({"bpf/x.bpf.c": "down/x.c", "bpf/down": "../other"}, "../other"),
    ],
)
def test_source_that_would_not_arrive(
    project: Path, capsys: pytest.CaptureFixture[str], links: dict[str, str], target: str
) -> None:
    """The line names the link's own words; here all of them lead to a file."""
    for place in ("other/x.c", "include/x.c", "bpf/y.c"):
        (project / place).write_text("int x;\n")
    names = {"project": str(project), "name": project.name}
    for place, text in links.items():
        (project / place).unlink(missing_ok=True)
        (project / place).symlink_to(text.format(**names))
    assert (project / "bpf/x.bpf.c").read_text() == "int x;\n"
    line = "bpf/x.bpf.c: a link that leads out of the directories that are sent (to {target})"
    _check_refused(project, capsys, line.format(target=target.format(**names)))


def test_links_that_arrive(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Between directories that are sent."""
    (project / "include/x.c").write_text("int x;\n")
    (project / "bpf/x.bpf.c").rename(project / "bpf/y.c")
    (project / "bpf/down").mkdir()
    (project / "bpf/down/z.c").symlink_to("../../include/x.c")
    (project / "bpf/x.bpf.c").symlink_to("down/z.c")
    (project / "bpf/y.bpf.c").symlink_to("./y.c")
    assert run(["render", *ARGUMENTS]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["bpf", "include"])
@pytest.mark.parametrize("target", ["other", "../{name}/other", "/{parent}/outside"])
def test_directory_that_is_a_link_is_refused(
    project: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    name: str,
    target: str,
) -> None:
    """A link would send another directory than the named one, of this project or of this machine."""
    outside = tmp_path_factory.mktemp("outside")
    text = target.format(name=project.name, parent=project.parent).replace("/outside", f"/{outside.name}")
    for place in (outside, project / "other"):
        (place / "x.bpf.c").write_text("int x;\n")
    (project / name).rename(project / "moved")
    (project / name).symlink_to(text)
    _check_refused(project, capsys, f"{name}: a symbolic link, which is not sent to the builder")
