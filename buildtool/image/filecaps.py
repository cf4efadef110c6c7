# SPDX-License-Identifier: Apache-2.0
"""Grants the image's static programs exactly the capabilities that they require, by their files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from buildtool.core.errors import ConfigError, FileAccessError, ObjectFormatError, system_reason
from buildtool.core.files import read_bounded, write_atomic
from buildtool.objects.capabilities import FILE_ATTRIBUTE, file_attribute, find_capabilities
from buildtool.objects.describe import ObjectContents
from buildtool.objects.elf import parse_object, read_object_file
from buildtool.objects.optional import EVERYTHING, Selection
from buildtool.signing.statement import describe_stated

MAX_PROGRAM_BYTES = 64 * 1024 * 1024


def needed_capabilities(
    objects: Iterable[tuple[str, ObjectContents]], selection: Selection = EVERYTHING
) -> tuple[str, ...]:
    """
    Return the sorted capabilities that *objects* (name and contents) require together, at least BPF.

    The types of programs count that *selection* loads; of each object, all helpers and maps.
    """
    pairs = list(objects)
    contents = [item for _, item in pairs]
    return find_capabilities(
        (
            program.loaded_as
            for name, item in pairs
            for program in item.programs
            if selection.loads(program.name, program.section, name)
        ),
        helpers=(number for item in contents for number in item.helpers),
        maps=(found.type for item in contents for found in item.maps),
    )


def check_capabilities(
    objects: Iterable[tuple[str, ObjectContents]],
    capabilities: Iterable[str],
    *,
    exactly: bool,
    selection: Selection = EVERYTHING,
) -> None:
    """
    Check that the programs of *selection* require no more than *capabilities*, and with *exactly* no less.

    Raises: ConfigError.
    """
    needed, given = set(needed_capabilities(objects, selection)), set(capabilities)
    listed = ", ".join(f'"{name}"' for name in sorted(needed))
    hint = f"in buildtool.toml: image.capabilities = [{listed}]"
    if needed - given:
        names = " ".join(sorted(needed - given))
        raise ConfigError(f"the programs require {names}, which the image lacks", hint=hint)
    if exactly and given - needed:
        names = " ".join(sorted(given - needed))
        raise ConfigError(f"the sources appear to require {names}, but no compiled object does", hint=hint)


def read_contents(paths: Iterable[Path]) -> list[tuple[str, ObjectContents]]:
    """
    Return the names and the contents of the objects in files *paths*.

    Raises: FileAccessError, ObjectFormatError.
    """
    contents = []
    for path in paths:
        try:
            contents.append((path.name, describe_stated(parse_object(read_object_file(path)))))
        except ObjectFormatError as error:
            raise ObjectFormatError(f"{path}: {error.message}", hint=error.hint) from error
    return contents


def copy_program(program: Path, output: Path, capabilities: Iterable[str]) -> None:
    """
    Copy *program* to *output*, and permit *capabilities* by its file. Without any, set no attribute.

    Raises: FileAccessError.
    """
    given = tuple(capabilities)
    write_atomic(output, read_bounded(program, MAX_PROGRAM_BYTES), mode=0o755)
    if not given:
        return
    try:
        os.setxattr(output, FILE_ATTRIBUTE, file_attribute(given))
    except OSError as error:
        output.unlink()
        raise FileAccessError(
            f"{output}: cannot set file capabilities: {system_reason(error)}",
            hint='set image.file-capabilities = false and image.user = "root"',
        ) from error
