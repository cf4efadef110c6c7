# SPDX-License-Identifier: Apache-2.0
"""
Make the headers of a project that a command generates: [[compile.generate]].

Only `buildtool generate` runs these commands, on the machine of the person who calls it. Compiling, checking
and building never do, and no builder does, so that a build of foreign sources runs no program of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from buildtool.config.file import Config
from buildtool.core.errors import FileAccessError, ToolFailedError, UsageError
from buildtool.core.files import made_directories, read_bounded, write_all_atomic
from buildtool.core.process import Runner

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
TIMEOUT_SECONDS = 600


def run_generators(config: Config, *, runner: Runner) -> dict[Path, bytes]:
    """
    Return the output of each command of *config* by the file that it makes. Nothing is written.

    A command runs in the project's directory without a shell, stdin, and keys in its environment.

    Raises: UsageError, without a command; ToolMissingError; ToolFailedError, also for too much output.
    """
    if not config.compile.generate:
        raise UsageError(
            "nothing to generate: no [[compile.generate]] in the configuration",
            hint="docs/reference/configuration.md shows one",
        )
    made = {}
    for entry in config.compile.generate:
        done = runner.run(entry.command, cwd=config.root, timeout_seconds=TIMEOUT_SECONDS, check=False)
        if done.returncode != 0:
            raise ToolFailedError(
                f"{entry.output}: cannot generate: {entry.command[0]} ended with exit code {done.returncode}",
                hint="correct the command in [[compile.generate]], or its input",
                detail=done.stderr.decode(errors="replace").strip(),
            )
        if len(done.stdout) > MAX_OUTPUT_BYTES:
            raise ToolFailedError(f"{entry.output}: the command printed more than {MAX_OUTPUT_BYTES} bytes")
        made[config.root / entry.output] = done.stdout
    return made


def write_generated(files: Mapping[Path, bytes]) -> list[Path]:
    """
    Write those of *files* that are missing or different, all or none. Return their paths.

    Raises: FileAccessError.
    """
    changed = {path: data for path, data in files.items() if not _holds(path, data)}
    with made_directories([path.parent for path in changed]):
        write_all_atomic(changed)
    return list(changed)


def find_changed(files: Mapping[Path, bytes]) -> list[Path]:
    """Return the paths of *files* that are missing or different."""
    return [path for path, data in files.items() if not _holds(path, data)]


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_bounded(path, len(data)) == data
    except FileAccessError:
        return False
