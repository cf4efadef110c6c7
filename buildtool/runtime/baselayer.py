# SPDX-License-Identifier: Apache-2.0
"""
Make the layer of the distroless base, and tini, from Debian packages.

Both engines use this module: `images prepare` loads the layer into Docker, and `make loaders` puts
it into the wheel for builds without Docker.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence

from buildtool.core.errors import ObjectFormatError
from buildtool.core.platforms import Platform
from buildtool.core.process import Runner
from buildtool.oci.write import Layer, gzip_layer
from buildtool.runtime import debian
from buildtool.runtime.debian import Package

# The day of trixie's release. Newer times of files are replaced by this one.
EPOCH = 1754697600

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ACCOUNTS = """\
root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin
"""
GROUP = "root:x:0:\ntty:x:5:\nstaff:x:50:\nnobody:x:65534:\nnonroot:x:65532:\n"
NSSWITCH = "hosts: files dns\n"
CA_SOURCES = "usr/share/ca-certificates/mozilla/"
CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
# Left out of the base: documentation other than licences, and files for interactive systems.
BASE_DROPPED = re.compile(
    r"usr/share/doc/(?![^/]+/copyright$).+/.+|usr/share/(lintian|base-files|ca-certificates|bug|man|info)(/.*)?"
    r"|etc/(update-motd\.d|ca-certificates|dpkg|default|profile\.d|skel)(/.*)?|usr/share/zoneinfo/(right|posix)(/.*)?"
    r"|(usr/)?s?bin/.+|usr/lib/dpkg(/.*)?"
)
# Directories of the C library, the only difference between base-files of two architectures.
_LIBRARY_LAYOUT = re.compile(r"(usr/)?lib[a-z]*\d+(/.*)?")
# The configuration of the base image.
BASE_CONFIG = {
    "User": "65532:65532",
    "WorkingDir": "/",
    "Env": [f"PATH={SEARCH_PATH}", f"SSL_CERT_FILE=/{CA_BUNDLE}"],
}

Members = dict[str, tuple[tarfile.TarInfo, bytes]]


def base_layer(packages: Sequence[Package], platform: Platform, runner: Runner) -> Layer:
    """
    Return the layer of the base for *platform*, made from *packages*.

    A package of `debian.SHARED_CONTENT` may be of another architecture.

    Raises: ToolFailedError, ObjectFormatError.
    """
    members: Members = {}
    certificates = {}
    wanted = {*debian.BASE_PACKAGES, *debian.BASE_PACKAGES_PER_ARCH}
    for package in _choose(packages, wanted, platform):
        for member, data in debian.read_members(package, runner):
            if package.architecture not in ("all", platform.debian):
                _check_shared(package, member, data)
                if _LIBRARY_LAYOUT.fullmatch(member.name):
                    continue
            if member.name.startswith(CA_SOURCES) and member.isfile():
                certificates[member.name] = data
            elif not BASE_DROPPED.fullmatch(member.name):
                members[member.name] = (member, data)
        # Scanners of images without dpkg read the list of packages from this directory.
        _add_file(members, f"var/lib/dpkg/status.d/{package.name}", package.control)
    _add_file(members, CA_BUNDLE, b"".join(data for _, data in sorted(certificates.items())))
    for name, text in {"etc/passwd": ACCOUNTS, "etc/group": GROUP, "etc/nsswitch.conf": NSSWITCH}.items():
        _add_file(members, name, text.encode())
    _add_directory(members, "home/nonroot", mode=0o700, owner=65532)
    for name, target in {"var/run": "/run", "var/lock": "/run/lock"}.items():
        _add_link(members, name, target)
    return gzip_layer(_pack_members(members))


def _choose(packages: Sequence[Package], names: Iterable[str], platform: Platform) -> Iterator[Package]:
    """Yield the packages *names* for *platform*, or of another architecture if the content is shared."""
    for name in sorted(names):
        named = [package for package in packages if package.name == name]
        own = [package for package in named if package.architecture in ("all", platform.debian)]
        yield from own or (named[:1] if name in debian.SHARED_CONTENT else ())


def _check_shared(package: Package, member: tarfile.TarInfo, data: bytes) -> None:
    if data.startswith(b"\x7fELF"):
        raise ObjectFormatError(
            f"{package.path.name}: {member.name} is a program for {package.architecture}, not shared content"
        )


def read_tini(packages: Sequence[Package], platform: Platform, runner: Runner) -> tuple[bytes, bytes]:
    """
    Return tini-static of *platform*, and its copyright file.

    Raises: ObjectFormatError, if no package has it; ToolFailedError.
    """
    for package in packages:
        # Since Debian forky, tini-static is a package of its own.
        if package.name in debian.TINI_PACKAGES and package.architecture == platform.debian:
            files = {member.name: data for member, data in debian.read_members(package, runner)}
            if "usr/bin/tini-static" in files:
                return files["usr/bin/tini-static"], files.get(f"usr/share/doc/{package.name}/copyright", b"")
    raise ObjectFormatError(f"the archive has no tini-static for {platform.debian}")


def tini_layer(packages: Sequence[Package], platforms: Sequence[Platform], runner: Runner) -> Layer:
    """
    Return a layer with tini-static of each platform, and the accounts that builds may name.

    Raises: ObjectFormatError, ToolFailedError.
    """
    members: Members = {}
    for platform in platforms:
        program, terms = read_tini(packages, platform, runner)
        _add_file(members, f"usr/lib/buildtool/tini/{platform.arch}/tini-static", program, mode=0o755)
        _add_file(members, "usr/share/doc/tini/copyright", terms)
    _add_file(members, "etc/passwd", ACCOUNTS.encode())
    _add_file(members, "etc/group", GROUP.encode())
    return gzip_layer(_pack_members(members))


def _add_file(members: Members, name: str, data: bytes, *, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), mode, EPOCH
    parent = name.rpartition("/")[0]
    while parent and parent not in members:
        _add_directory(members, parent)
        parent = parent.rpartition("/")[0]
    members[name] = (member, data)


def _add_directory(members: Members, name: str, *, mode: int = 0o755, owner: int = 0) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = tarfile.DIRTYPE, mode, EPOCH
    member.uid = member.gid = owner
    members[name] = (member, b"")


def _add_link(members: Members, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mtime = tarfile.SYMTYPE, target, EPOCH
    members[name] = (member, b"")


def _pack_members(members: Members) -> bytes:
    """Return the tar of *members*, sorted, with numeric owners and bounded times, for reproducible bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, (member, data) in sorted(members.items()):
            if name.rstrip("/") in ("", "."):
                continue
            member.uname = member.gname = ""
            member.mtime = min(int(member.mtime), EPOCH)
            tar.addfile(member, io.BytesIO(data) if member.isfile() else None)
    return buffer.getvalue()
