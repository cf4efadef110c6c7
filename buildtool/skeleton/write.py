# SPDX-License-Identifier: Apache-2.0
"""Write skeletons: the source files of a language, and the objects that they embed beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from buildtool.core.errors import FileAccessError, ObjectFormatError, UsageError
from buildtool.core.files import make_directory, read_bounded, staged_files
from buildtool.core.process import Runner
from buildtool.core.text import quote
from buildtool.skeleton import go, rust
from buildtool.skeleton.c import MARK as C_MARK
from buildtool.skeleton.c import c_file
from buildtool.skeleton.embedded import Embedded, check_alike, check_contents, default_name, read_embedded
from buildtool.skeleton.names import is_name

LANGUAGES = ("c", "go", "rust")
# How a file begins that a skeleton may replace: our mark, or an object.
_OWN = (C_MARK.encode(), go.MARK.encode(), rust.MARK.encode(), b"\x7fELF")


def write_skeleton(
    paths: Sequence[Path],
    language: str,
    directory: Path,
    *,
    name: str = "",
    package: str = "main",
    sigverify: str = "buildtool/sigverify",
    runner: Runner,
) -> tuple[Path, ...]:
    """
    Write the skeleton of the signed objects *paths*, one for each architecture, and return its files.

    In C, each object has a file of its own. *name* begins all names; by default it is the object's.

    Raises: UsageError, FileAccessError, ObjectFormatError, ToolMissingError, ToolFailedError.
    """
    objects = tuple(map(read_embedded, paths))
    check_alike(objects)
    check_contents(objects[0])
    if not name:
        name = default_name(objects)
        if not is_name(name, language):
            raise UsageError(
                f"{paths[0]}: its name gives {quote(name)}, which is not a name in {language}",
                hint="--name NAME gives another one",
            )
    for text, option, of in ((name, "--name", language), (package, "--package", "go")):
        if not is_name(text, of):
            raise UsageError(
                f"{option} {quote(text)}: not a name in {of}",
                hint="letters, digits and _, a letter first; no word of the language",
            )
    try:
        files = _contents(objects, language, name=name, package=package, sigverify=sigverify, runner=runner)
    except ObjectFormatError as error:
        raise ObjectFormatError(f"{paths[0]}: {error.message}", hint=error.hint) from error
    made = {directory / file: data for file, data in files.items()}
    for path in made:
        _check_own(path)
    make_directory(directory)
    with staged_files(list(made), replace=True) as stage:
        for path, data in made.items():
            stage.write(path, data)
    return tuple(made)


def _contents(
    objects: Sequence[Embedded], language: str, *, name: str, package: str, sigverify: str, runner: Runner
) -> Mapping[str, bytes]:
    if language == "c":
        several = len(objects) > 1
        return {
            f"{name}{f'.{item.platform.arch}' if several else ''}.skel.h": c_file(
                item, name=name, runner=runner
            ).encode()
            for item in objects
        }
    if language == "go":
        files: dict[str, bytes] = {}
        for item in objects:
            stem = f"{name.lower()}_{go.TOKENS[item.platform.arch][0]}"
            text = go.go_file(item, name=name, package=package, sigverify=sigverify, file=f"{stem}.o")
            files |= {f"{stem}.go": text.encode(), f"{stem}.o": item.data}
        return files
    named = [(item, f"{name}.{item.platform.arch}.bpf.o") for item in objects]
    text = rust.rust_file(named, name=name)
    return {f"{name}.rs": text.encode()} | {file: item.data for item, file in named}


def _check_own(path: Path) -> None:
    """Check that *path* is free, or that a skeleton wrote it. Raises: FileAccessError."""
    if not path.exists() and not path.is_symlink():
        return
    if not read_bounded(path, len(max(_OWN, key=len))).startswith(_OWN):
        raise FileAccessError(
            f"{path}: already exists, and no skeleton wrote it",
            hint="name another directory by --output, or other names by --name",
        )
