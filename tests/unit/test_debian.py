# SPDX-License-Identifier: Apache-2.0
"""Debian's mirrors and package files, and errors of mmdebstrap."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from buildtool.core.errors import (
    BuildtoolError,
    ConfigError,
    FileAccessError,
    PackageUnavailableError,
    ToolFailedError,
    ToolMissingError,
)
from buildtool.core.process import Completed, Runner, hide_passwords
from buildtool.runtime import debian
from buildtool.runtime.apt import PackageSource

DEB822 = """\
Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security

Types: deb
# URIs: http://commented.test/debian
URIs: http://mirror.test/debian/
Suites: bookworm bookworm-updates
"""
# Nothing reads this file: the tests have no real mmdebstrap.
KEYRING = Path(__file__)
ARCHIVE = debian.Archive(suite="trixie", mirror="http://mirror.test/debian", keyring=KEYRING)


def make_apt(directory: Path, *, name: str, text: str, system: str = "debian") -> tuple[Path, Path]:
    """Lay out the files of a machine and return its /etc/apt and os-release."""
    path = directory / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (directory / "os-release").write_text(f'NAME="x"\nID={system}\n')
    return directory, directory / "os-release"


class FailingRunner(Runner):
    """Stands for an mmdebstrap that fails with a message that cannot be made to order."""

    message = b""

    def run(self, argv: object, **_: object) -> Completed:
        """Fail as told."""
        return Completed(returncode=1, stdout=b"", stderr=self.message)


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        ("apt/sources.list.d/debian.sources", DEB822, "http://mirror.test/debian/"),
        (
            "apt/sources.list",
            "deb [arch=amd64] http://one.test/debian bookworm main",
            "http://one.test/debian",
        ),
        ("apt/sources.list.d/x.list", "deb http://two.test/debian trixie main", "http://two.test/debian"),
    ],
)
def test_the_mirror_is_the_one_of_apt(tmp_path: Path, name: str, text: str, mirror: str) -> None:
    """Both formats are read, and neither security nor foreign archives are taken for the mirror."""
    _, release = make_apt(tmp_path, name=name, text=text)
    assert debian.find_system_mirror(tmp_path / "apt", release) == mirror


@pytest.mark.parametrize(
    ("text", "system", "message"),
    [
        ("deb http://foreign.test/apt stable main", "debian", "name no Debian mirror"),
        ("deb http://one.test/debian trixie main", "ubuntu", "not a Debian system"),
    ],
)
def test_without_a_mirror_the_option_is_named(tmp_path: Path, text: str, system: str, message: str) -> None:
    """Another distribution's archive is never tried."""
    _, release = make_apt(tmp_path, name="apt/sources.list", text=text, system=system)
    with pytest.raises(ConfigError, match=message) as caught:
        debian.find_system_mirror(tmp_path / "apt", release)
    assert caught.value.hint == "name one with --mirror URI"


@pytest.mark.parametrize("mirror", ["ftp://x/debian", "http://x/a b", "http://x/\ndeb", "-oAPT::x=y", ""])
def test_a_mirror_is_a_uri_and_nothing_else(mirror: str) -> None:
    """A mirror that is no URI is refused, because apt's sources and arguments contain it."""
    with pytest.raises(ConfigError, match="not the URI of a Debian mirror"):
        debian.check_options("trixie", mirror)
    with pytest.raises(ConfigError, match="not the URI of a Debian mirror"):
        debian.Archive(suite="sid", mirror=mirror)


@pytest.mark.parametrize("password", ["hun/ter2", "hun@ter2", "a/b@ter2", "hun ter2", "hun\nter2"])
def test_a_password_that_is_not_encoded_is_refused(password: str) -> None:
    """A part of such a password is the host or the path to apt, which prints both."""
    mirror = f"http://me:{password}@mirror.test/debian"
    with pytest.raises(ConfigError, match=r"http://mirror\.test/debian") as caught:
        debian.Archive(suite="trixie", mirror=mirror)
    assert "ter2" not in f"{caught.value.message} {caught.value.hint}"
    if password == "".join(password.split()):
        assert "ter2" not in hide_passwords(f"E: Failed to fetch {mirror}/x  404  Not Found")


@pytest.mark.parametrize(
    "mirror",
    [
        "http://h/debian",
        "https://me:hun%40t%2Fer2@h:8443/debian/",
        "http://h",
        "file:/srv/a@b",
        "copy:///a@b/",
    ],
)
def test_mirrors_that_are_used(mirror: str) -> None:
    """A directory's name may hold @; a user and a password are percent-encoded."""
    assert debian.Archive(suite="trixie", mirror=mirror).mirror == mirror


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        (b"I: x\ntar: write: No space left on device\n", "the disk is full"),
        (
            b"E: Failed to fetch http://x Could not resolve 'x'\n",
            "no packages from http://mirror.test/debian",
        ),
        (b"E: something else\n", "could not make the builder image"),
    ],
)
def test_a_failure_names_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: bytes, message: str
) -> None:
    """The tool's own last lines are kept as the detail."""
    monkeypatch.setattr(FailingRunner, "message", stderr)
    with pytest.raises(ToolFailedError, match=message) as caught:
        make_tree(tmp_path, FailingRunner())
    assert caught.value.detail == stderr.decode().strip().splitlines()[-1]


def test_password_of_a_mirror_is_for_apt_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror's password is in no message and not in the image."""
    mirror = "https://me:hunter2@mirror.test/debian"
    archive = debian.Archive(suite="trixie", mirror=mirror, keyring=KEYRING)
    monkeypatch.setattr(FailingRunner, "message", f"E: Failed to fetch {archive.mirror}/x 404".encode())
    with pytest.raises(ToolFailedError, match=r"no packages from https://mirror\.test/debian") as caught:
        debian.make_builder_tree(
            archive, ["amd64"], tar=tmp_path / "x", debs=tmp_path, epoch=0, runner=FailingRunner()
        )
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint} {caught.value.detail}"
    sources = tmp_path / "etc/apt/sources.list"
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    keyring = tmp_path / "etc/apt/trusted.gpg"
    keyring.write_bytes(b"//bytes@of a key")
    sources.write_text(
        f"deb {archive.mirror} trixie main\ndeb http://a@b/debian trixie main\n"
        "deb\thttp://a:b/c@d@b/debian\ttrixie main\nURIs: http://a:b@c/ http://a:b@d/\n"
    )
    subprocess.run(["sh", "-c", debian.HIDE_LOGIN, "sh", tmp_path], check=True)
    assert sources.read_text().splitlines() == [
        "deb https://mirror.test/debian trixie main",
        "deb http://b/debian trixie main",
        "deb\thttp://b/debian\ttrixie main",
        "URIs: http://c/ http://d/",
    ]
    assert keyring.read_bytes() == b"//bytes@of a key"


@dataclass(frozen=True, slots=True, kw_only=True)
class BetweenReleases(Runner):
    """Stands for an mmdebstrap whose mirror lacks a package under the names in *lacking*."""

    lacking: tuple[str, ...]
    suites: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    keyrings: list[str] = field(default_factory=list)

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        """Fail or succeed, depending on the requested suite."""
        suite = argv[-3]
        self.suites.append(suite)
        self.hooks[:] = [word for word in argv if word.startswith("--extract-hook=")]
        self.keyrings.extend(word for word in argv if word.startswith("--keyring="))
        said = f"E: Failed to fetch {argv[-1]}/pool/base-files_13.8%2bdeb13u8_arm64.deb  404  Not Found\n"
        failed = suite in self.lacking
        return Completed(returncode=int(failed), stdout=b"", stderr=said.encode() if failed else b"")


def test_a_mirror_between_two_releases_is_asked_under_the_alias(tmp_path: Path) -> None:
    """The builder is made from the alias's packages after a check of the codename, with a report."""
    told: list[str] = []
    runner = BetweenReleases(lacking=("trixie",))
    make_tree(tmp_path, runner, told.append)
    assert runner.suites == ["trixie", "stable"]
    assert runner.keyrings == [f"--keyring={KEYRING}"] * 2
    assert told == ["no packages from http://mirror.test/debian (trixie); try its alias stable"]
    alias = debian.Archive(suite="trixie", mirror="http://mirror.test/debian", alias="stable")
    assert runner.hooks[0] == f"--extract-hook={debian.check_codename(alias)}"
    assert runner.hooks[-2] == f"--extract-hook={debian.name_suite(alias)}"
    runner = BetweenReleases(lacking=("trixie", "stable"))
    with pytest.raises(PackageUnavailableError, match="no packages from") as caught:
        make_tree(tmp_path, runner)
    assert (caught.value.architecture, caught.value.packages) == ("arm64", ("base-files",))


def test_the_tree_names_the_suite_and_not_its_alias(tmp_path: Path) -> None:
    """A builder made of an alias's packages has the same sources as any other builder."""
    archive = debian.Archive(suite="trixie", mirror="http://mirror.test/debian", alias="stable")
    sources = tmp_path / "etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text("deb http://mirror.test/debian stable main\n")
    subprocess.run(["sh", "-c", debian.name_suite(archive), "sh", tmp_path], check=True)
    assert sources.read_text() == "deb http://mirror.test/debian trixie main\n"


def test_a_machine_without_mmdebstrap_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint is a command."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="mmdebstrap: not found") as caught:
        make_tree(tmp_path, Runner())
    assert caught.value.hint == "apt-get install mmdebstrap"


@pytest.mark.parametrize(
    ("name", "hint"), [("none.gpg", "apt-get install debian-archive-keyring"), ("my.gpg", "name a file of")]
)
def test_a_missing_keyring_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    """Without the file, apt would trust every key of this machine, also those of other vendors."""
    monkeypatch.setattr(debian, "KEYRING", tmp_path / "none.gpg")
    archive = replace(ARCHIVE, keyring=tmp_path / name)
    runner = BetweenReleases(lacking=())
    with pytest.raises(FileAccessError, match="no keyring") as caught:
        make_tree(tmp_path, runner, archive=archive)
    assert hint in str(caught.value.hint)
    source = PackageSource(archive=archive, architecture="amd64", state=tmp_path / "apt", runner=runner)
    with pytest.raises(FileAccessError, match="no keyring"):
        source.update()
    assert runner.suites == []


def test_what_is_not_a_package_is_an_error(tmp_path: Path) -> None:
    """A file that dpkg-deb cannot read is an error."""
    path = tmp_path / "x.deb"
    path.write_bytes(b"!<arch>\nnothing")
    package = debian.Package(name="x", architecture="all", control=b"", path=path)
    with pytest.raises(BuildtoolError):
        list(debian.read_members(package, Runner()))


def make_tree(
    directory: Path,
    runner: Runner,
    report: Callable[[str], None] = lambda _: None,
    archive: debian.Archive = ARCHIVE,
) -> None:
    """Request a builder tree with a runner that fails."""
    debian.make_builder_tree(
        archive,
        ["amd64"],
        tar=directory / "root.tar",
        debs=directory,
        epoch=0,
        runner=runner,
        report=report,
    )
