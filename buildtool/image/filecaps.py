# SPDX-License-Identifier: Apache-2.0
"""Gives the image's static programs what they need, as capabilities of their files, and nothing more."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from buildtool.core.errors import ConfigError, FileAccessError, ObjectFormatError, system_reason
from buildtool.core.files import read_bounded, write_atomic
from buildtool.objects.capabilities import FILE_ATTRIBUTE, file_attribute, find_capabilities
from buildtool.objects.describe import ObjectContents, describe_object
from buildtool.objects.elf import parse_object, read_object_file

MAX_PROGRAM_BYTES = 64 * 1024 * 1024


def needed_capabilities(objects: Iterable[ObjectContents]) -> tuple[str, ...]:
    """Return the sorted capabilities that the programs of *objects* require together, at least BPF."""
    contents = list(objects)
    return find_capabilities(
        (program.section for item in contents for program in item.programs),
        helpers=(number for item in contents for number in item.helpers),
        maps=(found.type for item in contents for found in item.maps),
    )


def check_capabilities(
    objects: Iterable[ObjectContents], capabilities: Iterable[str], *, exactly: bool
) -> None:
    """
    Check that *objects* require no more than *capabilities*, and with *exactly* no less.

    Raises: ConfigError.
    """
    needed, given = set(needed_capabilities(objects)), set(capabilities)
    listed = ", ".join(f'"{name}"' for name in sorted(needed))
    hint = f"in buildtool.toml: image.capabilities = [{listed}]"
    if needed - given:
        names = " ".join(sorted(needed - given))
        raise ConfigError(f"the programs require {names}, which the image lacks", hint=hint)
    if exactly and given - needed:
        names = " ".join(sorted(given - needed))
        raise ConfigError(f"the sources appear to require {names}, but no compiled object does", hint=hint)


def read_contents(paths: Iterable[Path]) -> list[ObjectContents]:
    """
    Return the contents of the objects in files *paths*.

    Raises: FileAccessError, ObjectFormatError.
    """
    contents = []
    for path in paths:
        try:
            contents.append(describe_object(parse_object(read_object_file(path))))
        except ObjectFormatError as error:
            raise ObjectFormatError(f"{path}: {error.message}", hint=error.hint) from error
    return contents


def copy_program(program: Path, output: Path, capabilities: Iterable[str]) -> None:
    """
    Copy *program* to *output*, permitted *capabilities* by its file; with none it gets no attribute.

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
