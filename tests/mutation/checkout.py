# SPDX-License-Identifier: Apache-2.0
"""A copy of the checkout, in which mutants are built and tested."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labs import TOP

WORK = TOP / ".cache/mutants"
MEMORY_BYTES = 6 << 30
# Caches of downloads, which no mutant changes.
_SHARED = (".venv", ".cache/apt", ".cache/sysroot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The end of a command: whether it *failed*, its *output*, and whether the time limit ended it."""

    failed: bool
    output: bytes
    timed_out: bool = False

    def outcome(self) -> tuple[str, str]:
        """Return the outcome of the mutant that the tests ran on, and the first test that failed."""
        if not self.failed:
            return "survived", ""
        lines = self.output.decode(errors="replace").splitlines()
        tests = [line.split()[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
        return "killed", tests[
            0
        ] if tests else "no end in time" if self.timed_out else "the tests do not start"


def copy_checkout(name: str) -> Path:
    """Make a new copy of all files that git knows or does not ignore, and return its directory."""
    directory = WORK / name
    shutil.rmtree(directory, ignore_errors=True)
    argv = ["git", "-C", TOP, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, check=True, capture_output=True).stdout.decode()
    for file in filter(None, listed.split("\0")):
        if (TOP / file).is_file():
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / file, directory / file)
    for file in _SHARED:
        if (TOP / file).exists():
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / file).symlink_to((TOP / file).resolve())
    return directory


def run_limited(
    argv: Sequence[str | Path],
    directory: Path,
    seconds: float,
    *,
    stdin: Path | None = None,
    environment: Mapping[str, str] = {},
    limit_memory: bool = True,
) -> Done:
    """
    Run *argv* in *directory* for at most *seconds*. End its whole process group, whatever happens.

    AddressSanitizer reserves more address space than any limit, so *limit_memory* is False for it.
    """

    def limit() -> None:
        if limit_memory:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    with open(stdin or os.devnull, "rb") as source:  # noqa: PTH123 - /dev/null, if there is none
        process = subprocess.Popen(
            argv,
            cwd=directory,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            process_group=0,
            preexec_fn=limit,  # noqa: PLW1509 - this program has one thread
        )
        try:
            output, _ = process.communicate(timeout=seconds)
            return Done(failed=process.returncode != 0, output=output)
        except subprocess.TimeoutExpired:
            return Done(failed=True, output=b"", timed_out=True)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.communicate()


def run_pytest(
    directory: Path, seconds: float, *arguments: str, before: Sequence[str] = (), **environment: str
) -> Done:
    """Run tests of the copy in *directory*, until the first that fails. Command *before* starts pytest."""
    argv = [
        *before,
        TOP / ".venv/bin/python",
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    # Other runs of pytest close the directory of temporary files that all of them share.
    with tempfile.TemporaryDirectory(prefix="mutants-") as root:
        settings = {"PYTHONPATH": str(directory), "PYTEST_DEBUG_TEMPROOT": root, **environment}
        return run_limited([*argv, *arguments], directory, seconds, environment=settings, limit_memory=False)
