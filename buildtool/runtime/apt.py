# SPDX-License-Identifier: Apache-2.0
"""
Download and unpack packages of any Debian suite and architecture without root.

apt uses its own state directory, so the system's lists, architectures and installed packages do not
change. apt reads the mirror of this machine, and checks the archive's signature with Debian's keys.

A mirror is often between two states: its list names a package that its pool lacks. Therefore the
attempts for a package are, in this order:
1. the locked version;
2. the suite's present version;
3. both again, with fresh lists;
4. the suite under its alias (stable for trixie);
5. another architecture's package with the same files.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from buildtool.core.errors import (
    FileAccessError,
    PackageUnavailableError,
    ToolFailedError,
    ToolMissingError,
    system_reason,
)
from buildtool.core.files import make_directory, write_atomic
from buildtool.core.process import Runner, hide_passwords
from buildtool.runtime.debian import (
    ALIASES,
    CROSS_PACKAGES,
    LIBGCC_DEV,
    LIST_CODENAMES,
    SHARED_CONTENT,
    Archive,
    read_fields,
)
from buildtool.runtime.packagelock import LOCK_NAME, LockedPackage, PackageLock

CHECK_NETWORK = "check the network"
TRY_LATER = "the mirror may be between two releases: try again later, or use another mirror"
_NO_NETWORK = re.compile(r"Failed to fetch|Could not (resolve|connect)|does not have a Release file")
_NO_ANSWER = re.compile(r"Could not (resolve|connect)|Unable to connect|Temporary failure")
_NOT_SIGNED = re.compile(r"GPG error|is not signed")
_DISK_FULL = re.compile(r"No space left on device|don't have enough free space")
_STAMP_NAME = ".complete"
_NOT_LISTED = "not in the package list"
_NOT_LOCKED = f"the bytes are not those in {LOCK_NAME}"
# Debian builds each package for these architectures. They replace a missing package of SHARED_CONTENT.
_OTHER_ARCHITECTURES = ("arm64", "amd64")

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSource:
    """
    Packages of *archive* for the Debian *architecture*, with apt's state in directory *state*.

    The versions in *lock* are tried first. *report* receives a line about packages of other
    versions or places. apt repeats a failed request *retries* times, after a pause.
    """

    archive: Archive
    architecture: str
    state: Path
    lock: PackageLock = field(default_factory=PackageLock)
    report: Report = field(default=lambda _: None)
    retries: int = 3
    runner: Runner = field(default_factory=Runner)

    def update(self) -> None:
        """
        Fetch the package lists. If the mirror has none under the suite's name, fetch those of its alias.

        Raises: ToolMissingError, ToolFailedError, PackageUnavailableError, FileAccessError.
        """
        try:
            self._read_lists(self.archive)
        except PackageUnavailableError as error:
            alias = _under_alias(self.archive)
            if alias is None or _NO_ANSWER.search(error.detail or ""):
                raise
            try:
                self._read_lists(alias)
            except ToolFailedError:
                raise error from None
            self.report(f"{self._where}: no package list under this name, use its alias {alias.name}")

    def describe(self, package: str) -> Mapping[str, str]:
        """
        Return the fields of *package*'s newest version (Version, Depends, ...).

        Raises: ToolMissingError; ToolFailedError, if the list lacks the package.
        """
        text = self._run("apt-cache", "show", "--no-all-versions", package)
        return read_fields(text.partition("\n\n")[0])

    def list_versions(self, packages: Iterable[str]) -> dict[str, list[LockedPackage]]:
        """
        Return the versions of each of *packages* in the package list, the newest first.

        Raises: ToolMissingError.
        """
        found: dict[str, list[LockedPackage]] = {name: [] for name in packages}
        # The exit code is ignored: a name without a package has an empty entry in the result.
        for stanza in self._call(self._apt("apt-cache", "show", *found))[1].split("\n\n"):
            fields = read_fields(stanza)
            if fields.get("Package") in found and "SHA256" in fields:
                package = LockedPackage(
                    suite=self.archive.suite,
                    architecture=self.architecture,
                    name=fields["Package"],
                    version=fields["Version"],
                    sha256=fields["SHA256"],
                )
                found[package.name].append(package)
        return found

    def unpack(self, packages: Sequence[str], directory: Path) -> None:
        """
        Download *packages*, without their dependencies, and unpack them into *directory*.

        Raises: ToolMissingError, ToolFailedError, PackageUnavailableError, FileAccessError.
        """
        make_directory(directory)
        try:
            with tempfile.TemporaryDirectory(prefix="debs-", dir=self.state) as work:
                self.unpack_files(self.download(packages, Path(work)), directory)
        except OSError as error:
            raise FileAccessError(f"{self.state}: cannot write: {system_reason(error)}") from error

    def download(self, packages: Sequence[str], directory: Path) -> list[Path]:
        """
        Download *packages*, without their dependencies, into *directory*. Return their files, sorted.

        Raises: ToolMissingError, ToolFailedError, FileAccessError; PackageUnavailableError, if none of
        the attempts that this module lists delivers a package.
        """
        make_directory(directory)
        taken, missing = self.take(packages, directory)
        self._tell(self, taken)
        files = [*taken.values()]
        for source in self._other_ways():
            names = [
                name for name in missing if source.architecture == self.architecture or name in SHARED_CONTENT
            ]
            if not names or any(_NO_ANSWER.search(cause) for cause in missing.values()):
                continue
            try:
                source.update()
                taken, causes = source.take(names, directory)
            except PackageUnavailableError:
                continue  # without a list nothing can be downloaded; keep the causes so far
            self._tell(source, taken)
            files += taken.values()
            for package in taken:
                del missing[package.name]
            # Keep the cause of a failed download rather than "not listed" from another source.
            missing |= {name: cause for name, cause in causes.items() if cause != _NOT_LISTED}
        if missing:
            raise self._explain_missing(missing)
        return sorted(files)

    def take(
        self, packages: Iterable[str], directory: Path
    ) -> tuple[dict[LockedPackage, Path], dict[str, str]]:
        """
        Download those of *packages* that this source has into *directory*.

        Return the files by package, and the cause by name for each missing package.

        Raises: ToolMissingError, ToolFailedError, FileAccessError.
        """
        taken: dict[LockedPackage, Path] = {}
        causes: dict[str, str] = {}
        candidates = {}
        for name, versions in self.list_versions(packages).items():
            candidates[name], causes[name] = self._choose(name, versions)
        # Fetch the locked version of all packages, then the present version of those still missing.
        for rank in range(2):
            wanted = [each[rank] for name, each in candidates.items() if name in causes and len(each) > rank]
            if wanted:
                for package, outcome in self._fetch(wanted, directory).items():
                    if isinstance(outcome, Path):
                        taken[package] = outcome
                        del causes[package.name]
                    else:
                        causes[package.name] = outcome
        return taken, causes

    def unpack_files(self, files: Sequence[Path], directory: Path) -> None:
        """
        Unpack package *files* into *directory*.

        Raises: ToolMissingError, ToolFailedError, FileAccessError.
        """
        make_directory(directory)
        for deb in files:
            code, _, said = self._call(["dpkg-deb", "-x", str(deb), str(directory)])
            if code != 0:
                raise self._explain("dpkg-deb", said)

    @property
    def _where(self) -> str:
        return f"Debian {self.archive.suite} {self.architecture}"

    def under_alias(self) -> PackageSource | None:
        """Return this source with the suite's alias, or None if the suite has none."""
        alias = _under_alias(self.archive)
        return None if alias is None else replace(self, archive=alias, state=self.state / "alias")

    def _other_ways(self) -> Iterator[PackageSource]:
        """Yield the next sources to try: this one with fresh lists, its alias, other architectures."""
        yield self
        if alias := self.under_alias():
            yield alias
        for other in _OTHER_ARCHITECTURES:
            if other != self.architecture:
                yield replace(self, architecture=other, state=self.state / other)

    def _choose(self, name: str, versions: Sequence[LockedPackage]) -> tuple[list[LockedPackage], str]:
        """Return the versions to try, in order, and the cause to report if none is delivered."""
        locked = self.lock.find(self.archive.suite, self.architecture, name)
        cause = _NOT_LISTED
        if locked is not None and any(
            each.version == locked.version and each.sha256 != locked.sha256 for each in versions
        ):
            # Debian never changes the bytes of a version, so another party built this package.
            versions = [each for each in versions if each.version != locked.version]
            cause = _NOT_LOCKED
        first = [each for each in versions if each == locked]
        return [*first, *(each for each in versions[:1] if each not in first)], cause

    def _fetch(self, packages: Sequence[LockedPackage], directory: Path) -> dict[LockedPackage, Path | str]:
        """Return, for each package, its file in *directory* or the cause of its absence."""
        make_directory(self.state)
        found: dict[LockedPackage, Path | str] = {}
        try:
            with tempfile.TemporaryDirectory(prefix="debs-", dir=self.state) as work:
                argv = self._apt("apt-get", "download", *(f"{each.name}={each.version}" for each in packages))
                code, _, said = self._call(argv, cwd=Path(work))
                if code != 0 and _DISK_FULL.search(said):
                    raise self._explain("apt-get", said)
                # apt's exit code covers all packages, although some may have arrived, so look at the files.
                files = {_digest(path): path for path in Path(work).glob("*.deb")}
                for each in packages:
                    file = files.get(each.sha256)
                    found[each] = (
                        Path(shutil.move(file, directory / file.name))
                        if file
                        else _find_cause(each.name, said)
                    )
        except OSError as error:
            raise FileAccessError(f"{directory}: cannot write: {system_reason(error)}") from error
        return found

    def _tell(self, source: PackageSource, packages: Iterable[LockedPackage]) -> None:
        """Report, in one line, those *packages* of *source* that differ from the lock."""
        words = []
        for each in packages:
            locked = self.lock.find(self.archive.suite, self.architecture, each.name)
            if locked is None or locked.version == each.version:
                words.append(f"{each.name} {each.version}")
            else:
                words.append(f"{each.name} {each.version} (locked: {locked.version})")
        if source.architecture != self.architecture:
            text = f"use packages of {source.architecture}, whose files are the same"
        elif source.archive.alias:
            text = f"use the alias {source.archive.alias}"
        else:
            text = "use other versions than the locked ones"
            words = [word for word in words if "(locked" in word]
        if words:
            self.report(f"{self._where}: {text}: {', '.join(words)}")

    def _read_lists(self, archive: Archive) -> None:
        for name in ("lists/partial", "cache/archives/partial"):
            make_directory(self.state / name)
        archive.check_keyring()
        line = f"deb [signed-by={archive.keyring}] {archive.mirror} {archive.name} main\n"
        # Mode 0600, because the mirror's URI may contain a password.
        write_atomic(self.state / "sources.list", line.encode(), mode=0o600)
        write_atomic(self.state / "status", b"")
        self._run("apt-get", "update")
        if archive.alias:
            self._check_codename(archive)

    def _check_codename(self, archive: Archive) -> None:
        """Refuse lists of another release, because an alias moves to the next release of Debian."""
        # Ask apt, which reads the signed text only. The file may hold unsigned lines around that text.
        found = sorted({*self._run("apt-get", *LIST_CODENAMES).split()})
        if found == [archive.suite]:
            return
        try:
            shutil.rmtree(self.state / "lists")  # later commands must not use these lists
        except OSError as error:
            raise FileAccessError(f"{self.state}: cannot remove: {system_reason(error)}") from error
        raise self._unavailable(
            f"{archive.shown}: {archive.alias} is not {archive.suite}:"
            f" the codename in its Release file is {', '.join(found) or '(none)'}"
        )

    def _apt(self, program: str, *arguments: str) -> list[str]:
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
            # By default, apt switches to user _apt, who cannot write to the state directory.
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            # By default, apt-get update succeeds although a mirror does not answer.
            "APT::Update::Error-Mode": "any",
            # The mirror of an isolated site is often frozen: check signatures, but not the age of the lists.
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Retries": str(self.retries),
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return [program, "-qq", *words, *arguments]

    def _run(self, program: str, *arguments: str) -> str:
        code, text, said = self._call(self._apt(program, *arguments))
        if code != 0:
            raise self._explain(program, said)
        return text

    def _call(self, argv: Sequence[str], *, cwd: Path | None = None) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error of a program. Raises: ToolMissingError."""
        # apt writes its configuration for gpgv to a temporary file.
        environment = {"LC_ALL": "C.UTF-8", "TMPDIR": str(self.state)}
        try:
            done = self.runner.run(argv, cwd=cwd, env=environment, check=False)
        except ToolMissingError as error:
            raise ToolMissingError(
                f"{argv[0]}: not found", hint="install apt, or name a kernel's file: --kernel ./bzImage"
            ) from error
        return (
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace").strip(),
        )

    def _explain(self, program: str, said: str) -> ToolFailedError:
        where = f"{self.archive.suite} {self.architecture}"
        detail = hide_passwords("\n".join(said.splitlines()[-5:])) or None
        if _DISK_FULL.search(said):
            return ToolFailedError(
                f"no space left below {self.state}",
                hint="free space there, or let XDG_CACHE_HOME name another place",
            )
        if found := re.search(r"Unable to locate package (\S+)|No packages found", said):
            return self._unavailable(f"Debian {where} has no package {found[1] or 'of that name'}")
        if _NOT_SIGNED.search(said):
            keyring = self.archive.keyring
            return ToolFailedError(
                f"{self.archive.shown}: package lists ({where}): not signed by a key in {keyring}",
                hint="apt-get install debian-archive-keyring; no package of this mirror was used",
                detail=detail,
            )
        if _NO_NETWORK.search(said):
            return self._unavailable(
                f"no packages from {self.archive.shown} ({where})", hint=CHECK_NETWORK, detail=detail
            )
        return ToolFailedError(f"{program} failed ({where})", detail=detail)

    def _explain_missing(self, missing: Mapping[str, str]) -> PackageUnavailableError:
        """Return the error for *missing* packages, given as name and cause."""
        names = tuple(sorted(missing))
        causes = sorted({hide_passwords(cause).lower() for cause in missing.values()})
        if causes == [_NOT_LISTED]:
            return self._unavailable(f"{self._where} has no package {', '.join(names)}", names)
        hint = CHECK_NETWORK if any(map(_NO_ANSWER.search, missing.values())) else TRY_LATER
        if _NOT_LOCKED in causes:
            hint = "find out who rebuilt the package; tools/loaders --lock accepts the mirror's bytes"
        return self._unavailable(
            f"{self._where}: cannot download {', '.join(names)}: {'; '.join(causes)}", names, hint=hint
        )

    def _unavailable(
        self,
        message: str,
        packages: tuple[str, ...] = (),
        *,
        hint: str | None = None,
        detail: str | None = None,
    ) -> PackageUnavailableError:
        return PackageUnavailableError(
            message, architecture=self.architecture, packages=packages, hint=hint, detail=detail
        )


def linking_packages(source: PackageSource) -> list[str]:
    """
    Return the names of the packages with which the static loader is linked.

    Raises: ToolMissingError, ToolFailedError.
    """
    return [*CROSS_PACKAGES, "linux-libc-dev", LIBGCC_DEV.get(source.archive.suite) or _find_libgcc(source)]


def provide_tree(source: PackageSource, packages: Sequence[str], directory: Path) -> None:
    """
    Unpack *packages* into *directory*, unless it holds them. Several processes may call this at once.

    A tree of other versions is replaced as a whole.

    Raises: ToolMissingError, ToolFailedError, PackageUnavailableError; FileAccessError, also if *directory*
    holds other files.
    """
    directory = directory.resolve()
    text = f"{source.archive.suite} {lock_stamp(source, packages)}\n"
    make_directory(source.state)
    try:
        with (source.state / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _holds_tree(directory, text):
                return
            source.update()
            _replace_tree(source, packages, directory, text)
    except OSError as error:
        raise FileAccessError(f"{source.state}: cannot write: {system_reason(error)}") from error


def _holds_tree(directory: Path, text: str) -> bool:
    """Return whether *directory* is a tree with stamp *text*. Raises: FileAccessError, if it is no tree."""
    stamp = directory / _STAMP_NAME
    if stamp.exists():
        return stamp.read_text("utf-8") == text
    if directory.exists() and any(directory.iterdir()):
        raise FileAccessError(
            f"{directory}: not a tree of packages, so it is not replaced",
            hint="choose another directory, or remove this one",
        )
    return False


def _replace_tree(source: PackageSource, packages: Sequence[str], directory: Path, text: str) -> None:
    """Unpack beside *directory*, then rename: no older file stays, and no incomplete tree is used."""
    fresh, old = (directory.with_name(f".{directory.name}.{word}") for word in ("new", "old"))
    for left in (fresh, old):
        if left.exists():
            shutil.rmtree(left)
    try:
        source.unpack(packages, fresh)
        write_atomic(fresh / _STAMP_NAME, text.encode())
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
    finally:
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)


def lock_stamp(source: PackageSource, packages: Iterable[str]) -> str:
    """Return *packages* with their locked versions, the stamp of a tree of these packages."""
    words = []
    for name in packages:
        locked = source.lock.find(source.archive.suite, source.architecture, name)
        words.append(f"{name}={locked.version}" if locked else name)
    return " ".join(words)


def _find_libgcc(source: PackageSource) -> str:
    """Return the package with libgcc.a of the suite's default gcc."""
    found = re.search(r"\bgcc-(\d+)\b", source.describe("gcc").get("Depends", ""))
    if found is None:
        raise ToolFailedError(f"Debian {source.archive.suite} names no version of gcc")
    return f"libgcc-{found[1]}-dev"


def _under_alias(archive: Archive) -> Archive | None:
    alias = ALIASES.get(archive.suite, "")
    return None if archive.alias or not alias else replace(archive, alias=alias)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_cause(name: str, said: str) -> str:
    """Return the cause, from apt's messages *said*, why package *name* has no file."""
    lines = re.findall(r"^[EW]: Failed to fetch (\S+)\s+(.*)$", said, re.MULTILINE)
    causes = [text for uri, text in lines if f"/{name}_" in urllib.parse.unquote(uri)]
    last = (causes or re.findall(r"^E: (.*)$", said, re.MULTILINE) or ["apt did not deliver the file"])[-1]
    return " ".join(re.sub(r"\[IP: [^]]*\]", "", last).split()).rstrip(".")
