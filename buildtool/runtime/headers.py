# SPDX-License-Identifier: Apache-2.0
"""
Makes the headers that programs include, of two Debian packages, and finds those that were made.

Debian's linux-libc-dev is one package for all architectures, libbpf's headers are the same in each. A wheel
of a release carries the headers. An installation from a checkout does not, so the first compilation fetches
the two packages and keeps the headers in the cache of this user.

The locked packages come from the pool of this machine's Debian mirror, by their digests in the lock. A mirror
that has other versions by now is asked by apt, which checks its signatures.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import re
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from buildtool.compile.headers import (
    COMMON,
    HEADERS_VARIABLE,
    LIST_NAME,
    Headers,
    carried_headers,
    make_list,
    read_headers,
)
from buildtool.core.cache import open_cache
from buildtool.core.digests import Digest
from buildtool.core.errors import (
    ConfigError,
    FileAccessError,
    ObjectFormatError,
    ToolFailedError,
    ToolMissingError,
    system_reason,
)
from buildtool.core.files import hold_lock, make_directory, read_bounded, write_atomic
from buildtool.core.platforms import PLATFORMS
from buildtool.core.process import Runner
from buildtool.metrics.header import HEADER_NAME, header_text
from buildtool.runtime.apt import PackageSource
from buildtool.runtime.clibrary import own_headers
from buildtool.runtime.debian import KEYRING, Archive, find_system_mirror
from buildtool.runtime.packagelock import LOCK_NAME, LockedPackage, PackageLock, read_lock

PACKAGES = ("linux-libc-dev", "libbpf-dev")
_SUITE = "trixie"
_ARCHITECTURE = "amd64"  # whose packages are taken; the files are the same in those of each
# What programs include from libbpf; its other headers are for user space.
_LIBBPF = (
    "bpf_helpers.h",
    "bpf_helper_defs.h",
    "bpf_tracing.h",
    "bpf_core_read.h",
    "bpf_endian.h",
    "usdt.bpf.h",
)
_POOLS = {"linux-libc-dev": "main/l/linux", "libbpf-dev": "main/libb/libbpf"}
_SECONDS = 20  # without an answer
_MAX_DEB_BYTES = 64 * 1024 * 1024
_PREFIX = "headers-"
_HINT = f"install a release, whose wheel carries them, or let {HEADERS_VARIABLE} name those of `make loaders`"

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersRequest:
    """
    Where to make the headers: *directory*, which is replaced as a whole, with packages kept below *cache*.

    *mirror* is another Debian mirror than this machine's, signed by a key in *keyring*; *update* makes them
    anew; *lock* names the versions to take, by default those in tools/packages.lock.
    """

    directory: Path
    cache: Path
    mirror: str | None = None
    keyring: Path = KEYRING
    update: bool = False
    lock: PackageLock = field(default_factory=read_lock)
    report: Report = field(default=lambda _: None)


def make_headers(request: HeadersRequest, *, runner: Runner | None = None) -> Headers:
    """
    Make the headers, unless those in the directory are of the same lock.

    Raises: ToolMissingError, ToolFailedError, PackageUnavailableError, ConfigError, FileAccessError,
    ObjectFormatError.
    """
    runner = runner or Runner()
    make_directory(request.cache)
    with hold_lock(request.cache / "headers.lock"):
        if not request.update and (found := _find_current(request)) is not None:
            return found
        request.report("make the headers for eBPF programs")
        with tempfile.TemporaryDirectory(prefix="headers-", dir=request.cache) as debs:
            _take_packages(request, Path(debs), runner)
            versions, files = _read_packages(sorted(Path(debs).glob("*.deb")))
        _write(request, versions, files)
    return read_headers(request.directory)


def provide_headers(environ: Mapping[str, str], *, report: Report, runner: Runner) -> Headers:
    """
    Return the headers for programs; *report* hears when they are fetched first.

    Headers that BUILDTOOL_HEADERS names are taken as they are.

    Raises: FileAccessError whose hint says what to do; ConfigError for a damaged package lock.
    """
    if (found := find_headers(environ)) is not None:
        return found
    place = _cached_place(environ)
    if place is None:
        raise FileAccessError(
            "headers for programs: no place to keep them: this user has no cache directory",
            hint="set BUILDTOOL_CACHE to a directory that only this user may write to",
        )
    report("this installation carries no headers for programs: fetch Debian's, once")
    try:
        with tempfile.TemporaryDirectory(prefix="packages-", dir=place.parent) as packages:
            return make_headers(
                HeadersRequest(directory=place, cache=Path(packages), report=report), runner=runner
            )
    except (ObjectFormatError, ToolFailedError, ToolMissingError) as error:
        message = f"headers for programs: cannot fetch them: {error.message}"
        raise FileAccessError(message, hint=_HINT, detail=error.detail) from error
    except OSError as error:
        raise FileAccessError(f"{place.parent}: cannot write: {system_reason(error)}") from error


def find_headers(environ: Mapping[str, str]) -> Headers | None:
    """
    Return the headers that a compilation would use, without fetching any; None when there are none.

    Raises: FileAccessError for a damaged list; ConfigError for a damaged package lock.
    """
    if environ.get(HEADERS_VARIABLE):
        return read_headers(Path(environ[HEADERS_VARIABLE]))
    places = [carried_headers()]
    if not (places[0] / LIST_NAME).exists() and (cached := _cached_place(environ)) is not None:
        places.append(cached)
    return next((read_headers(place) for place in places if (place / LIST_NAME).exists()), None)


def lock_digest(lock: PackageLock) -> Digest:
    """Return the digest of what *lock* says of the packages of headers, and of our headers."""
    found = (lock.find(_SUITE, _ARCHITECTURE, name) for name in PACKAGES)
    text = "".join([*(each.line for each in found if each), *_own_files().values()])
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def _own_files() -> dict[str, str]:
    """Return our own headers by their places. A builder, which makes no headers, lacks the last one."""
    return {f"{COMMON}/{name}": text for name, text in {**own_headers(), HEADER_NAME: header_text()}.items()}


def _cached_place(environ: Mapping[str, str]) -> Path | None:
    """Return where headers of the present lock are kept; None without a cache."""
    cache = open_cache(environ).directory
    return None if cache is None else cache.parent / f"{_PREFIX}{lock_digest(read_lock())[:16]}"


def _find_current(request: HeadersRequest) -> Headers | None:
    try:
        found = read_headers(request.directory)
        # Compare what the lock says, not versions: a mirror may have lacked a locked one.
        if found.lock == lock_digest(request.lock):
            for name in found.files:
                found.read(name)
            return found
    except FileAccessError:
        pass
    return None


def _take_packages(request: HeadersRequest, debs: Path, runner: Runner) -> None:
    """Put the packages into directory *debs*: those that linking loaders has left in the cache, or others."""
    place = request.cache / f"{_SUITE}-{_ARCHITECTURE}"
    found = (request.lock.find(_SUITE, _ARCHITECTURE, name) for name in PACKAGES)
    locked = [each for each in found if each is not None]
    present = [] if request.update else [*place.glob("libraries/*.deb")]
    digests = {hashlib.sha256(read_bounded(path, _MAX_DEB_BYTES)).hexdigest(): path for path in present}
    if len(locked) == len(PACKAGES) and all(each.sha256 in digests for each in locked):
        for each in locked:
            shutil.copy(digests[each.sha256], debs)
        return
    try:
        mirror = request.mirror or find_system_mirror()
    except ConfigError as error:
        raise ToolFailedError(f"no packages {', '.join(PACKAGES)}: {error.message}") from error
    if len(locked) == len(PACKAGES):
        request.report(f"download {', '.join(f'{each.name} {each.version}' for each in locked)}")
        with suppress(ToolFailedError):
            for each in locked:
                write_atomic(debs / f"{each.name}.deb", _download(each, mirror))
            return
    source = PackageSource(
        archive=Archive(suite=_SUITE, mirror=mirror, keyring=request.keyring),
        architecture=_ARCHITECTURE,
        state=place / "apt",
        lock=request.lock,
        report=request.report,
        runner=runner,
    )
    request.report(f"download Debian {_SUITE} packages {', '.join(PACKAGES)} by apt")
    source.update()
    source.download(PACKAGES, debs)


def _download(package: LockedPackage, mirror: str) -> bytes:
    """
    Return the bytes of *package*, which have its digest, from the pool of *mirror*.

    Raises: ToolFailedError, if the mirror has another version by now.
    """
    version = package.version.partition(":")[2] or package.version
    architecture = {"linux-libc-dev": "all"}.get(package.name, package.architecture)
    file = f"{package.name}_{version}_{architecture}.deb"
    return _check(package, _read_uri(f"{mirror.rstrip('/')}/pool/{_POOLS[package.name]}/{file}"))


def _check(package: LockedPackage, data: bytes) -> bytes:
    if hashlib.sha256(data).hexdigest() != package.sha256:
        raise ToolFailedError(f"{package.name}: the bytes are not those in {LOCK_NAME}")
    return data


def _read_uri(uri: str) -> bytes:
    try:
        with urllib.request.urlopen(uri, timeout=_SECONDS) as answer:  # noqa: S310 - a Debian mirror's
            data: bytes = answer.read(_MAX_DEB_BYTES)
            return data
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        text = system_reason(reason) if isinstance(reason, OSError) else str(reason).lower()
        raise ToolFailedError(f"{uri}: {text}") from error


def _unpack(deb: bytes) -> Iterator[tuple[str, bytes]]:
    """
    Yield name and bytes of the regular files in package *deb*, and its control file as "control".

    Python reads it: this machine may have no dpkg.

    Raises: ObjectFormatError.
    """
    try:
        for name, part in _read_ar(deb):
            if not name.startswith(("control.tar", "data.tar")):
                continue
            with tarfile.open(fileobj=io.BytesIO(part)) as tar:
                for member in tar:
                    file = tar.extractfile(member) if member.isfile() else None
                    if file is not None and (name.startswith("data") or member.name == "./control"):
                        yield member.name.removeprefix("./"), file.read()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ObjectFormatError(f"not a Debian package: {error}") from error


def _read_ar(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the members of the archive *data* (ar)."""
    if not data.startswith(b"!<arch>\n"):
        raise ValueError("no ar archive")
    at = 8
    while at < len(data):
        size = int(data[at + 48 : at + 58])
        yield data[at : at + 16].decode("ascii").rstrip(" /"), data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2  # each begins at an even place


def _read_packages(debs: Iterable[Path]) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the versions of packages *debs* by name, and the headers and terms in them, and our headers."""
    versions, files = {}, {name: text.encode() for name, text in _own_files().items()}
    for path in debs:
        unpacked = dict(_unpack(read_bounded(path, _MAX_DEB_BYTES)))
        control = unpacked.pop("control", b"").decode(errors="replace")
        fields = dict(re.findall(r"^(Package|Version): (.*)$", control, re.MULTILINE))
        package = fields.get("Package", "")
        versions[package] = fields.get("Version", "")
        for name, data in unpacked.items():
            if name == f"usr/share/doc/{package}/copyright":
                files[f"copyright.{package}"] = data
            elif header := _place_header(name):
                files[header] = data
    return versions, files


def _place_header(path: str) -> str | None:
    """Return where the header at *path* of its package belongs, or None for one that no program includes."""
    if found := re.fullmatch(r"usr/lib/linux/uapi/([a-z0-9]+)/(asm/.+\.h)", path):
        arch = next((each.arch for each in PLATFORMS.values() if each.target_arch == found[1]), None)
        return None if arch is None else f"{arch}/{found[2]}"
    name = path.removeprefix("usr/include/")
    if name == path or not name.endswith(".h"):
        return None
    if name.startswith("bpf/"):
        return f"{COMMON}/{name}" if name.removeprefix("bpf/") in _LIBBPF else None
    return f"{COMMON}/{name}"


def _write(request: HeadersRequest, versions: Mapping[str, str], files: Mapping[str, bytes]) -> None:
    """Replace the directory as a whole, so that no file of an older version stays and no half is used."""
    wanted = [
        f"{COMMON}/linux/bpf.h",
        f"{COMMON}/bpf/bpf_helpers.h",
        *(f"{arch}/asm/types.h" for arch in PLATFORMS),
    ]
    if missing := [name for name in wanted if name not in files]:
        raise ToolFailedError(f"Debian's packages {', '.join(PACKAGES)} lack headers: {', '.join(missing)}")
    directory = request.directory
    make_directory(directory.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as work:
            fresh = Path(work, "new")
            for name, data in files.items():
                path = fresh / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
            write_atomic(fresh / LIST_NAME, make_list(versions, lock_digest(request.lock), digests))
            if directory.exists():
                directory.rename(Path(work, "old"))
            fresh.rename(directory)
    except OSError as error:
        raise FileAccessError(f"{directory}: cannot write: {system_reason(error)}") from error
