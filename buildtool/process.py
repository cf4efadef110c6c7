# SPDX-License-Identifier: Apache-2.0
"""
The only place that starts other programs: argument lists, never a shell.

Each child gets its own process group, so that an interrupt ends the whole of
it and nothing of ours goes on after the prompt is back.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildtool.errors import ToolFailedError, ToolMissingError, UsageError

log = logging.getLogger(__name__)

STOP_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a program ended: *returncode* and what it wrote."""

    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Starts programs; tests hand in another one where a fault cannot be made for real."""

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        show_stderr: bool = False,
        check: bool = True,
    ) -> Completed:
        """
        Run *argv* to its end; *env* is added to this process's environment.

        With *show_stderr* the program writes its progress to our stderr as it
        goes, and Completed.stderr is empty.

        Raises: ToolMissingError; ToolFailedError when *check* and the code is not 0.
        """
        log.debug("run: %s", shlex.join(argv))
        try:
            child = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env={**os.environ, **env} if env else None,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if show_stderr else subprocess.PIPE,
                start_new_session=not show_stderr,
                process_group=0 if show_stderr else None,
            )
        except FileNotFoundError as error:
            raise ToolMissingError(
                f"{argv[0]}: not found", hint="buildtool doctor says what is missing"
            ) from error
        except OSError as error:
            raise ToolFailedError(f"{argv[0]}: cannot start: {error.strerror}") from error
        try:
            stdout, stderr = child.communicate(stdin)
        except BaseException:
            _stop_group(child)
            raise
        done = Completed(returncode=child.returncode, stdout=stdout or b"", stderr=stderr or b"")
        if check and done.returncode != 0:
            raise ToolFailedError(
                f"{Path(argv[0]).name} failed with exit code {done.returncode}",
                detail=done.stderr.decode(errors="replace").strip() or None,
            )
        return done


def _stop_group(child: subprocess.Popen[bytes]) -> None:
    """Interrupt the child's group so that it can clean up (buildx cancels the build), then kill."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return


def check_operand(value: str) -> str:
    """
    Return *value* if a program cannot take it for an option or a response file.

    Raises: UsageError.
    """
    if value.startswith(("-", "@")) or not value or "\0" in value:
        raise UsageError(f"{value!r}: a file name must not begin with '-' or '@'", hint=f"write ./{value}")
    return value
