# SPDX-License-Identifier: Apache-2.0
"""
Turn Debian packages into root file systems: by mmdebstrap for the builder, by unpacking for the base.

Packages are unpacked, and their maintainer scripts never run. Unpacking is fast, needs no emulation of
other architectures, and copies no files of this machine. apt checks the archive's signature with the
keys of one keyring, and each package against its digest.
"""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from buildtool.core.errors import (
    ConfigError,
    FileAccessError,
    ObjectFormatError,
    PackageUnavailableError,
    ToolFailedError,
    ToolMissingError,
)
from buildtool.core.process import Runner, hide_passwords
from buildtool.oci.tarreader import describe_tar_error

APT_SOURCES = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The alias of each release on a mirror. An alias moves to the next release, so its Codename is checked.
ALIASES = {"bookworm": "oldstable", "trixie": "stable", "sid": "unstable"}
# Arguments of apt-get that print the codename in the signed text of each package list's Release file.
LIST_CODENAMES = ("indextargets", "--format", "$(CODENAME)", "Created-By: Packages")

# The name of the package with libgcc.a contains gcc's version. The builder supports the suites listed here.
LIBGCC_DEV = {"trixie": "libgcc-14-dev"}

# Libraries and headers of the static loader, for each target architecture. No program is linked with the
# library of libbpf-dev (loader/vendor has a newer one): the package has headers of eBPF programs.
HEADER_PACKAGE = "libbpf-dev"
CROSS_PACKAGES = (
    "libc6-dev",
    HEADER_PACKAGE,
    "libelf-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libsodium-dev",
    "libjansson-dev",
    "libssl-dev",
)
# dash and coreutils run RUN lines. python3 runs the same compile and sign code as the host.
BUILDER_PACKAGES = (
    "base-files",
    "dash",
    "coreutils",
    "clang",
    "lld",
    "llvm",
    "python3-minimal",
    "python3-click",
    "python3-cryptography",
    "python3-pyelftools",
)
BASE_PACKAGES = ("netbase", "tzdata", "tzdata-legacy", "media-types", "ca-certificates")
BASE_PACKAGES_PER_ARCH = ("base-files",)
# Packages without programs, whose files are the same in each architecture. Only links to the directory of
# the C library differ. `baselayer` leaves out the links of another architecture.
SHARED_CONTENT = ("base-files",)
TINI_PACKAGES = ("tini", "tini-static")  # the package with tini-static: in trixie, and later

# No stage reads these 180 MB: C++ and sanitiser runtimes, translations, manuals, a CPU benchmark.
UNUSED = (
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/doc/*/changelog*",
    "usr/include/c++",
    "usr/lib/llvm-*/bin/llvm-exegesis",
    "usr/lib/*/lib?san.so*",
    "usr/lib/*/libhwasan.so*",
    "usr/lib/gcc/*/*/lib?san.a",
    "usr/lib/gcc/*/*/libhwasan.a",
    "usr/lib/gcc/*/*/libstdc++.a",
)

# Maintainer scripts, which would compile modules to byte code, do not run. The byte code is unchecked:
# mmdebstrap changes the times of sources, so Python would compile a checked module at each start.
PRECOMPILE = """\
import concurrent.futures, hashlib, json, py_compile, subprocess, sys, tempfile, tomllib
import click
import cryptography.hazmat.primitives.asymmetric.ed25519, cryptography.hazmat.primitives.serialization
import elftools.common.utils, elftools.elf.enums, elftools.elf.structs
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for module in list(sys.modules.values()):
    source = getattr(module, "__file__", None) or ""
    if source.endswith(".py"):
        py_compile.compile(source, invalidation_mode=mode)
"""


# The image contains apt's sources, so remove the password of the mirror's URI. Keyrings are binary files.
HIDE_LOGIN = (
    'find "$1/etc/apt" -type f ! -name "*.gpg" ! -name "*.pgp" -exec sed -i "s,//[^[:space:]]*@,//,g" {} +'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """
    A source of packages: *suite* (a codename) of the Debian *mirror*, signed by a key in *keyring*.

    *alias* is the suite's name in requests to the mirror, if it is not *suite*.

    Raises: ConfigError, if *mirror* is not the URI of a mirror.
    """

    suite: str
    mirror: str
    keyring: Path = KEYRING
    alias: str = ""

    def __post_init__(self) -> None:
        """Check the mirror's URI, which becomes part of apt's sources and of arguments of programs."""
        check_mirror(self.mirror)

    @property
    def name(self) -> str:
        """The suite's name in requests to the mirror."""
        return self.alias or self.suite

    @property
    def shown(self) -> str:
        """The mirror's URI for messages, without a password."""
        return hide_passwords(self.mirror)

    def check_keyring(self) -> None:
        """
        Refuse a missing keyring, because apt would then trust all keys in its own directories.

        Raises: FileAccessError.
        """
        if not self.keyring.exists():
            install = "apt-get install debian-archive-keyring"
            hint = install if self.keyring == KEYRING else "name a file of OpenPGP public keys"
            raise FileAccessError(f"{self.keyring}: no keyring", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package file: *name*, Debian *architecture* (or "all"), *control* text, *path* of the .deb."""

    name: str
    architecture: str
    control: bytes
    path: Path


def check_options(suite: str, mirror: str | None) -> None:
    """
    Check the options of an archive without access to its mirror.

    Raises: ConfigError.
    """
    if suite not in LIBGCC_DEV:
        raise ConfigError(f"unknown suite {suite!r}", hint="choose from " + ", ".join(LIBGCC_DEV))
    if mirror is not None:
        check_mirror(mirror)


def check_mirror(mirror: str) -> None:
    """
    Check that *mirror* is the URI of a Debian mirror, with percent-encoded user and password.

    Raises: ConfigError, whose message shows no password.
    """
    # Hide all text up to the last @, because a password may contain white space.
    shown = re.sub(r"//.*@", "//", mirror, flags=re.DOTALL)
    if not re.fullmatch(r"(https?|file|copy):/[!-~]+", mirror):
        raise ConfigError(
            f"{shown!r} is not the URI of a Debian mirror", hint="for example http://mirror/debian"
        )
    # apt reads the text up to the first / as the host, and would print a part of such a password.
    if re.match(r"https?:", mirror) and not re.fullmatch(r"https?://([^/@]*@)?[^/@]+(/[^@]*)?", mirror):
        raise ConfigError(
            f"mirror {shown}: the user and the password are not percent-encoded",
            hint="write @ as %40 and / as %2F",
        )


def find_archive(suite: str, mirror: str | None) -> Archive:
    """
    Return the archive of *suite* on *mirror*, by default on the mirror of this machine's apt.

    Raises: ConfigError.
    """
    mirror = mirror or find_system_mirror()
    check_options(suite, mirror)
    return Archive(suite=suite, mirror=mirror)


def find_system_mirror(apt: Path = APT_SOURCES, os_release: Path = OS_RELEASE) -> str:
    """
    Return the mirror of this Debian machine.

    Raises: ConfigError, if this is not a Debian machine, or apt's sources name no mirror.
    """
    hint = "name one with --mirror URI"
    if not re.search(r"^ID=\"?debian\"?$", _read_text(os_release), re.MULTILINE):
        raise ConfigError("this is not a Debian system, so its package mirror is unknown", hint=hint)
    files = [*sorted((apt / "sources.list.d").glob("*.sources")), apt / "sources.list"]
    for path in [*files, *sorted((apt / "sources.list.d").glob("*.list"))]:
        for uri, suite in _list_sources(_read_text(path)):
            if uri.rstrip("/").endswith("/debian") and "-" not in suite:
                return uri
    raise ConfigError("apt's sources name no Debian mirror", hint=hint)


def make_builder_tree(
    archive: Archive,
    architectures: Sequence[str],
    *,
    tar: Path,
    debs: Path,
    epoch: int,
    runner: Runner,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """
    Write the builder's root file system to *tar*, and download the base's packages to directory *debs*.

    One run of apt does both, because fetching package lists is slow. The first of the Debian
    *architectures* is the host's. If the mirror lacks a package, a second run uses fresh lists
    and the suite's alias.

    Raises: FileAccessError, ToolMissingError, ToolFailedError, PackageUnavailableError.
    """
    failure = _run_mmdebstrap(archive, architectures, tar=tar, debs=debs, epoch=epoch, runner=runner)
    alias = ALIASES.get(archive.suite)
    if isinstance(failure, PackageUnavailableError) and alias:
        report(f"{failure.message}; try its alias {alias}")
        under_alias = replace(archive, alias=alias)
        tar.unlink(missing_ok=True)
        if (
            _run_mmdebstrap(under_alias, architectures, tar=tar, debs=debs, epoch=epoch, runner=runner)
            is None
        ):
            return
    if failure is not None:
        raise failure


def _run_mmdebstrap(
    archive: Archive, architectures: Sequence[str], *, tar: Path, debs: Path, epoch: int, runner: Runner
) -> ToolFailedError | None:
    """Run mmdebstrap. Return the error of a failure, or None. Raises: ToolMissingError."""
    archive.check_keyring()
    include = [*BUILDER_PACKAGES]
    for arch in architectures:
        include += [f"{name}:{arch}" for name in (*CROSS_PACKAGES, LIBGCC_DEV[archive.suite])]
    argv = [
        "mmdebstrap",
        "--variant=extract",
        "--format=tar",
        f"--architectures={','.join(architectures)}",
        f"--include={','.join(include)}",
        '--aptopt=Acquire::Retries "3"',
        f"--keyring={archive.keyring}",
        *([f"--extract-hook={check_codename(archive)}"] if archive.alias else []),
        f"--extract-hook={_download_hook(architectures)}",
        f"--extract-hook=sync-out /debs {shlex.quote(str(debs))}",
        f'--extract-hook=cd "$1" && rm -rf debs {" ".join(UNUSED)}',
        f'--extract-hook=chroot "$1" /usr/bin/python3 -c {shlex.quote(PRECOMPILE)}',
        # After all hooks that run apt, because apt finds its lists by the name in its sources.
        *([f"--extract-hook={name_suite(archive)}"] if archive.alias else []),
        f"--extract-hook={HIDE_LOGIN}",
        archive.name,
        str(tar),
        archive.mirror,
    ]
    environment = {"SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(tar.parent)}
    try:
        done = runner.run(argv, env=environment, check=False)
    except ToolMissingError as error:
        raise ToolMissingError("mmdebstrap: not found", hint="apt-get install mmdebstrap") from error
    if done.returncode == 0:
        return None
    return _explain_failure(archive, architectures, done.stderr.decode(errors="replace"))


def check_codename(archive: Archive) -> str:
    """Return a shell command that fails unless the lists of mmdebstrap's apt are of *archive*'s suite."""
    apt = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get {shlex.join(LIST_CODENAMES)}'
    return f'test "$({apt} | sort -u)" = {archive.suite}'


def name_suite(archive: Archive) -> str:
    """Return a shell command that replaces the alias by the suite in apt's sources of tree $1."""
    return f'find "$1/etc/apt" -type f -exec sed -i "s/ {archive.alias} / {archive.suite} /" {{}} +'


def read_packages(debs: Path, runner: Runner) -> list[Package]:
    """
    Return the packages in directory *debs*, sorted by file name.

    Raises: ToolMissingError, ToolFailedError.
    """
    packages = []
    for path in sorted(debs.glob("*.deb")):
        control = runner.run(["dpkg-deb", "--field", str(path)]).stdout
        fields = read_fields(control.decode(errors="replace"))
        packages.append(
            Package(
                name=fields.get("Package", ""),
                architecture=fields.get("Architecture", ""),
                control=control,
                path=path,
            )
        )
    return packages


def read_fields(stanza: str) -> dict[str, str]:
    """Return the fields of one line in a stanza of a control file or a package list."""
    return dict(re.findall(r"^(\S+): (.*)$", stanza, re.MULTILINE))


def read_members(package: Package, runner: Runner) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """
    Yield each member of *package* with its bytes. Names have no leading "./".

    Raises: ToolFailedError, ObjectFormatError.
    """
    data = runner.run(["dpkg-deb", "--fsys-tarfile", str(package.path)]).stdout
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                member.name = member.name.removeprefix("./")
                yield member, file.read() if file else b""
    except tarfile.TarError as error:
        problem = describe_tar_error(error)
        raise ObjectFormatError(f"{package.path.name}: not a Debian package: {problem}") from error


def _download_hook(architectures: Sequence[str]) -> str:
    names = [*BASE_PACKAGES]
    for arch in architectures:
        names += [f"{name}:{arch}" for name in (*BASE_PACKAGES_PER_ARCH, TINI_PACKAGES[0])]
    apt = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq -o APT::Sandbox::User=root download'
    return f'mkdir "$1/debs" && cd "$1/debs" && {apt} {" ".join(names)}'


def _explain_failure(archive: Archive, architectures: Sequence[str], stderr: str) -> ToolFailedError:
    lines = [line for line in stderr.splitlines() if line and not line.startswith(("I:", "W:"))]
    detail = hide_passwords("\n".join(lines[-8:])) or None
    if "No space left on device" in stderr:
        return ToolFailedError(
            "mmdebstrap failed: the disk is full",
            hint="let TMPDIR name a directory with 3 GB of room",
            detail=detail,
        )
    message = f"no packages from {archive.shown} ({archive.suite})"
    hint = "check the network, or name another mirror with --mirror URI"
    if re.search(r"Could not (resolve|connect)|Unable to", stderr):
        return ToolFailedError(message, hint=hint, detail=detail)
    if re.search(r"Failed to fetch|does not have a Release file", stderr):
        # Only the file name shows the architecture of the missing package.
        found = re.search(r"Failed to fetch \S+/([a-z0-9][a-z0-9.+-]+)_[^/\s]+_([a-z0-9]+)\.deb", stderr)
        return PackageUnavailableError(
            message,
            architecture=found[2] if found else architectures[0],
            packages=(found[1],) if found else (),
            hint=hint,
            detail=detail,
        )
    return ToolFailedError("mmdebstrap could not make the builder image", detail=detail)


def _list_sources(text: str) -> Iterator[tuple[str, str]]:
    """Yield URI and suite of each deb822 stanza and each one-line entry."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(URIs|Suites):[ \t]*(.*)$", stanza, re.MULTILINE))
        for uri in fields.get("URIs", "").split():
            for suite in fields.get("Suites", "").split():
                yield uri, suite
    yield from re.findall(r"^deb[ \t]+(?:\[[^]]*\][ \t]+)?(\S+)[ \t]+(\S+)", text, re.MULTILINE)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
