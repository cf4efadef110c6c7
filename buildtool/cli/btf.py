# SPDX-License-Identifier: Apache-2.0
"""`buildtool btf`."""

from __future__ import annotations

import os
import platform as host
import re
from pathlib import Path

import click

from buildtool.cli.options import OutputPath, arch_option, config_option, read_config
from buildtool.cli.output import say
from buildtool.config.compiling import OBJECT_SUFFIX
from buildtool.config.project import choose_platforms
from buildtool.core.errors import FileAccessError, ObjectFormatError, UsageError
from buildtool.core.files import made_directories, read_bounded, write_all_atomic
from buildtool.core.platforms import Platform
from buildtool.core.text import quote
from buildtool.core.validate import check_object_name
from buildtool.objects.elf import ElfObject, parse_object, read_object_file
from buildtool.objects.kernelbtf import (
    MAX_TYPES_BYTES,
    TYPES_SUFFIX,
    TypeGraph,
    minimize,
    pack_types,
    read_types,
)

_RELEASE = re.compile(r"[0-9]+\.[0-9]+")
_OF_THIS_KERNEL = Path("/sys/kernel/btf/vmlinux")
_HINT = "a file is BTF alone: /sys/kernel/btf/vmlinux, or .BTF of a kernel (llvm-objcopy --dump-section)"


@click.command("btf")
@click.argument("kernels", metavar="BTF...", nargs=-1, required=True, type=click.Path(path_type=Path))
@arch_option(help="Architecture of the kernels. Default: build.arch, else this machine's.")
@click.option(
    "--object",
    "objects",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Object whose types are kept, may be repeated; default: those below build/ARCH.",
)
@click.option("--whole", is_flag=True, help="Keep all types of the kernels.")
@click.option("--release", help="The kernel's release (uname -r), if the file is not called RELEASE.btf.")
@click.option("--output", type=OutputPath(path_type=Path), help="Directory; default: btf/ARCH.")
@config_option
def command(
    *,
    kernels: tuple[Path, ...],
    arch: tuple[str, ...],
    objects: tuple[Path, ...],
    whole: bool,
    release: str | None,
    output: Path | None,
    config_path: Path | None,
) -> None:
    """
    Make RELEASE.btf.o: the types of a kernel that has no BTF, for --btf of the loader.

    BTF is a file with the types of one kernel, for example of BTFHub. The result
    has only the types that the relocations of the objects need. Sign it like an
    object: buildtool sign.
    """
    config = read_config(config_path)
    platforms = choose_platforms(arch, config)
    if len(platforms) > 1:
        raise UsageError("btf requires exactly one --arch", hint="run the command for each architecture")
    if release and len(kernels) > 1:
        raise UsageError("--release requires exactly one BTF", hint="call each file RELEASE.btf")
    if whole and objects:
        raise UsageError("--whole and --object exclude each other", hint="leave one of them out")
    (platform,) = platforms
    used = [] if whole else _read_objects(objects, config.root / "build" / platform.arch, platform)
    directory = output or config.root / "btf" / platform.arch
    made = {}
    for path in kernels:
        found = release or _find_release(path)
        name = check_object_name(found + TYPES_SUFFIX)
        if not _RELEASE.match(found):
            raise UsageError(
                f"{path}: {quote(found)} is not the release of a kernel, by which a host finds the file",
                hint="--release NAME gives what uname -r prints there, for example 5.4.0-150-generic",
            )
        if directory / name in made:
            raise UsageError(f"{path}: two files for {name}", hint="call each file RELEASE.btf")
        made[directory / name] = _make(path, used, platform, whole=whole)
    with made_directories([directory]):
        write_all_atomic(made)
    for result in made:
        click.echo(os.path.relpath(result))
    say(f"sign them: buildtool sign --arch {platform.arch} {os.path.relpath(directory)}/*{TYPES_SUFFIX}")


def _find_release(path: Path) -> str:
    if path == _OF_THIS_KERNEL:
        return host.release()
    return path.name.removesuffix(".btf")


def _make(
    path: Path, objects: list[tuple[ElfObject, TypeGraph]], platform: Platform, *, whole: bool
) -> bytes:
    data = read_bounded(path, MAX_TYPES_BYTES)
    if len(data) > MAX_TYPES_BYTES:
        raise FileAccessError(f"{path}: larger than {MAX_TYPES_BYTES} bytes", hint=_HINT)
    try:
        kernel = TypeGraph(data, "<" if platform.little_endian else ">")
        types = data if whole else minimize(kernel, objects)
    except ObjectFormatError as error:
        hint = f"{_HINT}; --arch names its architecture"
        raise FileAccessError(
            f"{path}: not the types of a kernel for {platform.arch}: {error.message}", hint=hint
        ) from error
    return pack_types(types, little_endian=platform.little_endian)


def _read_objects(
    paths: tuple[Path, ...], directory: Path, platform: Platform
) -> list[tuple[ElfObject, TypeGraph]]:
    found = []
    for path in paths or sorted(directory.rglob(f"*{OBJECT_SUFFIX}")):
        try:
            obj = parse_object(read_object_file(path))
            types = read_types(obj)
        except ObjectFormatError as error:
            raise FileAccessError(f"{path}: {error.message}", hint=error.hint) from error
        if obj.is_little_endian != platform.little_endian:
            raise UsageError(f"{path}: of another byte order than {platform.arch}", hint="name its --arch")
        found += [(obj, types)] if types else []
    if not found:
        raise UsageError(
            f"{os.path.relpath(directory)}: no objects with types",
            hint=f"buildtool compile --arch {platform.arch} makes them; --whole keeps all types",
        )
    return found
