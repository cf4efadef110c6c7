# SPDX-License-Identifier: Apache-2.0
"""
Packages of any Debian suite and architecture, downloaded and unpacked without root.

apt works on a state of its own: the system's lists, architectures and
installed packages stay as they are. It takes the mirror that this machine
uses and checks the archive's signature with Debian's keys.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from buildtool.core.errors import FileAccessError, ToolFailedError, ToolMissingError
from buildtool.core.files import make_directory, write_atomic
from buildtool.core.process import Runner
from buildtool.runtime.debian import Archive, hide_passwords

CHECK_NETWORK = "check the network"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_NO_NETWORK = re.compile(r"Failed to fetch|Could not (resolve|connect)|does not have a Release file")
_DISK_FULL = re.compile(r"No space left on device|don't have enough free space")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSource:
    """Packages of *archive* for the Debian *architecture*; apt's state is below directory *state*."""

    archive: Archive
    architecture: str
    state: Path
    runner: Runner = field(default_factory=Runner)

    def update(self) -> None:
        """
        Fetch the package lists.

        Raises: ToolMissingError, ToolFailedError, FileAccessError.
        """
        for name in ("lists/partial", "cache/archives/partial"):
            make_directory(self.state / name)
        trust = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        line = f"deb {trust}{self.archive.mirror} {self.archive.suite} main\n"
        # The mirror's URI may have a password in it.
        write_atomic(self.state / "sources.list", line.encode(), mode=0o600)
        write_atomic(self.state / "status", b"")
        self._run("apt-get", "update")

    def describe(self, package: str) -> Mapping[str, str]:
        """
        Return the fields of *package*'s newest version (Version, Depends, ...).

        Raises: ToolMissingError, ToolFailedError, when there is no such package.
        """
        text = self._run("apt-cache", "show", "--no-all-versions", package)
        return dict(re.findall(r"^(\S+): (.*)$", text.partition("\n\n")[0], re.MULTILINE))

    def unpack(self, packages: Sequence[str], directory: Path) -> None:
        """
        Download *packages*, without what they depend on, and unpack them into *directory*.

        Raises: ToolMissingError, ToolFailedError, FileAccessError.
        """
        make_directory(directory)
        try:
            with tempfile.TemporaryDirectory(prefix="debs-", dir=self.state) as work:
                self.unpack_files(self.download(packages, Path(work)), directory)
        except OSError as error:
            raise FileAccessError(f"{self.state}: cannot write: {(error.strerror or '').lower()}") from error

    def download(self, packages: Sequence[str], directory: Path) -> list[Path]:
        """
        Download *packages*, without what they depend on, into *directory*; return its packages by name.

        Raises: ToolMissingError, ToolFailedError, FileAccessError.
        """
        make_directory(directory)
        self._run("apt-get", "download", *packages, cwd=directory)
        return sorted(directory.glob("*.deb"))

    def unpack_files(self, files: Sequence[Path], directory: Path) -> None:
        """
        Unpack package *files* into *directory*.

        Raises: ToolMissingError, ToolFailedError, FileAccessError.
        """
        make_directory(directory)
        for deb in files:
            self._call(["dpkg-deb", "-x", str(deb), str(directory)])

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        settings = {
            "Dir::State": str(self.state),
            "Dir::State::status": str(self.state / "status"),
            "Dir::Cache": str(self.state / "cache"),
            "Dir::Etc::SourceList": str(self.state / "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            # apt would change to a user that cannot write here.
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            # apt takes a mirror that does not answer for a passing thing, and says that all went well.
            "APT::Update::Error-Mode": "any",
            # A closed site's mirror is often frozen: signatures are checked, the age of the lists is not.
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Retries": "3",
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return self._call([program, "-qq", *words, *arguments], cwd=cwd)

    def _call(self, argv: Sequence[str], *, cwd: Path | None = None) -> str:
        # apt writes its configuration for gpgv to a temporary file.
        environment = {"LC_ALL": "C.UTF-8", "TMPDIR": str(self.state)}
        try:
            done = self.runner.run(argv, cwd=cwd, env=environment, check=False)
        except ToolMissingError as error:
            raise ToolMissingError(
                f"{argv[0]}: not found", hint="Debian kernels come through apt; on another system name a file"
            ) from error
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode != 0:
            raise self._explain(argv[0], said)
        return done.stdout.decode(errors="replace")

    def _explain(self, program: str, said: str) -> ToolFailedError:
        where = f"{self.archive.suite} {self.architecture}"
        detail = hide_passwords("\n".join(said.splitlines()[-5:])) or None
        if _DISK_FULL.search(said):
            return ToolFailedError(
                f"no space left below {self.state}", hint="free some, or name another cache"
            )
        if found := re.search(r"Unable to locate package (\S+)|No packages found", said):
            return ToolFailedError(f"Debian {where} has no package {found[1] or 'of that name'}")
        if _NO_NETWORK.search(said):
            return ToolFailedError(
                f"no packages from {self.archive.shown} ({where})", hint=CHECK_NETWORK, detail=detail
            )
        return ToolFailedError(f"{program} failed ({where})", detail=detail)
