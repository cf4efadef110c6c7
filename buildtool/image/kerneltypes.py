# SPDX-License-Identifier: Apache-2.0
"""The signed types of kernels without BTF that an image holds: files of `buildtool btf` and `sign`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from buildtool.config.file import Config
from buildtool.core.errors import ConfigError, FileAccessError, ObjectFormatError, RefusedError
from buildtool.core.files import read_bounded
from buildtool.core.platforms import Platform
from buildtool.image.metadata import TYPES_DIRECTORY
from buildtool.objects.elf import MAX_OBJECT_BYTES, parse_object
from buildtool.objects.kernelbtf import TYPES_SUFFIX
from buildtool.oci.tarwriter import TarEntry
from buildtool.trust.store import TrustStore, read_policy
from buildtool.trust.verify import verify_object

TypesByArch = Mapping[str, Mapping[str, bytes]]


def find_types(config: Config, platform: Platform) -> dict[str, bytes]:
    """
    Return the files of load.btf for *platform* by name, or none without the key. They are not verified.

    Raises: ConfigError, if the directory has no such file; FileAccessError.
    """
    if not config.load.btf:
        return {}
    directory = config.root / config.load.btf / platform.arch
    paths = sorted(directory.glob(f"*{TYPES_SUFFIX}"))
    if not paths:
        raise ConfigError(
            f"load.btf: {config.load.btf}/{platform.arch}: no file RELEASE{TYPES_SUFFIX}",
            hint=f"buildtool btf --arch {platform.arch} BTF makes it, and buildtool sign signs it",
        )
    return {path.name: read_bounded(path, MAX_OBJECT_BYTES) for path in paths}


def verify_types(config: Config, platforms: Sequence[Platform], policy: str, now: int) -> TypesByArch:
    """
    Return the signed files of load.btf by architecture and name, each as the image's *policy* accepts it.

    Raises: ConfigError, if a file is missing, or the image would refuse it; FileAccessError.
    """
    found = {platform.arch: find_types(config, platform) for platform in platforms}
    trust = read_policy(policy.encode())
    # The first time at which the image could start, as for its objects.
    now = max([now, *(key.not_before or 0 for key in trust.keys.values())])
    for platform in platforms:
        for name, data in found[platform.arch].items():
            _check(f"load.btf: {config.load.btf}/{platform.arch}/{name}", name, data, platform, trust, now)
    return found


def _check(shown: str, name: str, data: bytes, platform: Platform, trust: TrustStore, now: int) -> None:
    sign = f"buildtool sign --force --arch {platform.arch} FILE signs it with the project's key"
    try:
        verified = verify_object(data, trust, platform=platform.oci, now=now)
        sections = parse_object(data).sections
    except RefusedError as error:
        raise ConfigError(f"{shown}: {error.reason}: {error.message}", hint=sign) from error
    except ObjectFormatError as error:
        raise FileAccessError(f"{shown}: {error.message}", hint=error.hint) from error
    # The rules of the loader (docs/reference/loader.md, types of a kernel).
    if verified.statement.name != name:
        raise ConfigError(
            f"{shown}: signed as {verified.statement.name}", hint="give the file its signed name, or sign it"
        )
    if any(item.size and item.name not in _SECTIONS for item in sections):
        raise ConfigError(f"{shown}: holds more than types", hint="buildtool btf makes such files")


_SECTIONS = frozenset((b"", b".BTF", b".sig", b".strtab", b".shstrtab"))


def types_entries(files: Mapping[str, bytes], mtime: int, directory: str = "") -> list[TarEntry]:
    """Return an entry for each of *files*, called by its name in *directory*."""
    place = directory or TYPES_DIRECTORY.strip("/")
    return [TarEntry(path=f"{place}/{name}", data=data, mtime=mtime) for name, data in sorted(files.items())]
