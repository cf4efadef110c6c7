# SPDX-License-Identifier: Apache-2.0
"""
Start other programs, from argument lists and never by a shell. No other module starts programs.

Each child has its own process group, so that an interrupt also ends the child's children.
"""

from __future__ import annotations

import logging
import os
import re
import selectors
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildtool.core.errors import ToolFailedError, ToolMissingError, UsageError, system_reason
from buildtool.core.relay import Relay

log = logging.getLogger(__name__)

STOP_SECONDS = 10
# Secrets of this process. A child that needs one receives it explicitly, in its *env*.
KEY_VARIABLE = "BUILDTOOL_SIGNING_KEY"
PASSPHRASE_VARIABLE = "BUILDTOOL_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
SECRET_VARIABLES = (KEY_VARIABLE, PASSPHRASE_VARIABLE)
# Of BuildKit's caches: "Cache storage backends", s3, azblob and gha.
_FIELD = re.compile(
    r"\b(access_key_id|secret_access_key|session_token|token|password)=[^,\s]*", re.IGNORECASE
)
_PRIVATE_KEY = "PRIVATE KEY-----"
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The end of a program: *returncode* (-n after signal n) and its output."""

    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Starts programs. Tests pass another runner if a fault cannot be produced for real."""

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | Callable[[], bytes] | None = None,
        show_stderr: bool = False,
        check: bool = True,
        timeout_seconds: float | None = None,
        without: Collection[str] = (),
    ) -> Completed:
        """
        Run *argv* to its end and return its output.

        The program's environment is this process's environment without secrets and the variables *without*,
        plus *env*.
        With *show_stderr* the program's stderr is also passed on to this process's stderr, by a terminal if
        that is one. Completed.stderr then has its last bytes only. If *stdin* is a function, it is called
        while the program starts. If that function raises, the program is killed.

        Raises: ToolMissingError; ToolFailedError, if *check* is true and the exit code is not 0,
        or if the program runs longer than *timeout_seconds*.
        """
        child: subprocess.Popen[bytes] | None = None
        relay: Relay | None = None
        try:
            with _deferred_interrupts():
                relay = Relay() if show_stderr else None
                child = _start(
                    argv,
                    cwd=cwd,
                    env={**_remaining(without), **(env or {})},
                    stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=relay.writing if relay else subprocess.PIPE,
                    start_new_session=not show_stderr,
                    process_group=0 if show_stderr else None,
                )
                if relay:
                    relay.start()
            data = _make_input(child, stdin) if callable(stdin) else stdin
            stdout, stderr = child.communicate(data, timeout_seconds)
            if relay:
                stderr = relay.finish()
        except BaseException as error:
            if child is not None and child.returncode is None:
                _stop_group(child)
                for pipe in filter(None, (child.stdin, child.stdout, child.stderr)):
                    pipe.close()
            if relay is not None:
                relay.abandon() if child is None else relay.finish()
            if isinstance(error, subprocess.TimeoutExpired):
                name = Path(argv[0]).name
                raise ToolFailedError(
                    f"{name}: no answer in {timeout_seconds:g} seconds",
                    hint="--signer-timeout gives a signer more time, --timeout a kernel",
                ) from error
            raise
        done = Completed(returncode=child.returncode, stdout=stdout or b"", stderr=stderr or b"")
        if check and done.returncode != 0:
            raise ToolFailedError(
                f"{Path(argv[0]).name} failed with exit code {done.returncode}",
                hint="buildtool -v shows the whole command",
                detail=done.stderr.decode(errors="replace").strip() or None,
            )
        return done


def public_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* without SECRET_VARIABLES and without every variable that holds a PEM private key."""
    return {
        name: value
        for name, value in environ.items()
        if name not in SECRET_VARIABLES and _PRIVATE_KEY not in value
    }


def _remaining(without: Collection[str]) -> dict[str, str]:
    return {name: value for name, value in public_environment(os.environ).items() if name not in without}


def run_parallel(
    commands: Sequence[Sequence[str]],
    *,
    jobs: int,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_end: Callable[[], None] = lambda: None,
) -> list[Completed]:
    """
    Run *commands*, at most *jobs* at once, and return their ends in order. Standard output is dropped.

    *env* is the whole environment of the children. One thread serves all children, so an
    exception, such as an interrupt, is raised in this function and ends each child.

    Raises: ToolMissingError; ToolFailedError, if a program cannot be started.
    """
    done: list[Completed | None] = [None] * len(commands)
    waiting = iter(enumerate(commands))
    running: dict[int, subprocess.Popen[bytes]] = {}
    said: dict[int, bytearray] = {}
    with selectors.DefaultSelector() as selector:

        def start() -> None:
            for index, argv in waiting:
                with _deferred_interrupts():
                    child = _start(
                        argv,
                        cwd=cwd,
                        env=env,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE,
                        process_group=0,
                    )
                    running[index], said[index] = child, bytearray()
                assert child.stderr is not None
                selector.register(child.stderr, selectors.EVENT_READ, index)
                return

        try:
            for _ in range(max(jobs, 1)):
                start()
            while running:
                for key, _ in selector.select():
                    index: int = key.data
                    chunk = os.read(key.fd, 65536)
                    said[index] += chunk
                    if chunk:
                        continue
                    # End of file on stderr means the program's end: no child of clang keeps stderr open.
                    selector.unregister(key.fileobj)
                    with running.pop(index) as child:
                        done[index] = Completed(
                            returncode=child.wait(), stdout=b"", stderr=bytes(said.pop(index))
                        )
                    on_end()
                    start()
        finally:
            for child in running.values():
                _stop_group(child)
                assert child.stderr is not None
                child.stderr.close()
    return [completed for completed in done if completed is not None]


def run_console(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    max_bytes: int,
    on_output: Callable[[bytes], None] = lambda _: None,
    stop: int | None = None,
    keep: Sequence[int] = (),
) -> Completed:
    """
    Run *argv*, the emulator of a machine with its console on stdout, and return its output.

    *on_output* receives each chunk of stdout on arrival. The program inherits the descriptors
    *keep* under their numbers.

    The program and its group are killed after *timeout_seconds*, after *max_bytes* of output, or
    when descriptor *stop* is readable. The return code is then that of SIGKILL. setpriv of
    util-linux also kills the program when the calling thread ends.

    Raises: ToolMissingError; ToolFailedError, if the program cannot be started.
    """
    deadline = time.monotonic() + timeout_seconds
    with _deferred_interrupts():
        child = _start(
            ["setpriv", "--pdeathsig", "KILL", *argv],
            env=public_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            pass_fds=keep,
        )
    said = {"stdout": bytearray(), "stderr": bytearray()}
    with child:
        try:
            if _listen(child, said, deadline=deadline, max_bytes=max_bytes, on_output=on_output, stop=stop):
                child.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            pass  # the program closed its output, but still runs; the kill follows
        finally:
            if child.poll() is None:
                _signal_group(child, signal.SIGKILL)
    return Completed(returncode=child.returncode, stdout=bytes(said["stdout"]), stderr=bytes(said["stderr"]))


def _listen(
    child: subprocess.Popen[bytes],
    said: Mapping[str, bytearray],
    *,
    deadline: float,
    max_bytes: int,
    on_output: Callable[[bytes], None],
    stop: int | None,
) -> bool:
    """Append the output of *child* to *said*. Return whether *child* closed both of its outputs."""
    assert child.stdout is not None
    assert child.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, "stdout")
        selector.register(child.stderr, selectors.EVENT_READ, "stderr")
        if stop is not None:
            selector.register(stop, selectors.EVENT_READ, "stop")
        ends = 2
        while ends and time.monotonic() < deadline and sum(map(len, said.values())) <= max_bytes:
            for key, _ in selector.select(max(deadline - time.monotonic(), 0)):
                if key.data == "stop":
                    return False
                chunk = os.read(key.fd, 65536)
                said[key.data] += chunk
                if not chunk:
                    selector.unregister(key.fileobj)
                    ends -= 1
                elif key.data == "stdout":
                    on_output(chunk)
    return not ends


def hide_passwords(text: str) -> str:
    """Return *text*, a command line or a tool's output, without passwords in URIs and in fields of caches."""
    # Match up to the last @ of a word: a password that is not percent-encoded may contain / and @.
    return _FIELD.sub(r"\1=...", re.sub(r"(https?://)\S*@", r"\1", text))


def _start(argv: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
    log.debug("run: %s", hide_passwords(shlex.join(argv)))
    try:
        return subprocess.Popen(list(argv), **settings)
    except FileNotFoundError as error:
        raise ToolMissingError(
            f"{argv[0]}: not found", hint="buildtool doctor says what is missing"
        ) from error
    except OSError as error:
        raise ToolFailedError(f"{argv[0]}: cannot start: {system_reason(error)}") from error


@contextmanager
def _deferred_interrupts() -> Iterator[None]:
    """
    Defer the handlers of INTERRUPTS while a program is started.

    An exception between fork and the assignment of the child would leave a running program that
    no code can end. A signal mask is no alternative, because the child would inherit it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers only in the main thread
        return
    waiting: list[int] = []
    handlers = {number: signal.getsignal(number) for number in INTERRUPTS}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in ours:
        signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


def _make_input(child: subprocess.Popen[bytes], make: Callable[[], bytes]) -> bytes:
    """Return *make*(), the input for *child*. If *make* raises, kill *child*, which still waits for it."""
    try:
        return make()
    except BaseException:
        with child:
            os.killpg(child.pid, signal.SIGKILL)
        raise


def _stop_group(child: subprocess.Popen[bytes]) -> None:
    """
    Send SIGINT to the child's group, so that the child can clean up (buildx cancels the build), then SIGKILL.

    SIGKILL also ends the background jobs of a shell, which ignore SIGINT.
    """
    _signal_group(child, signal.SIGINT)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal_group(child, signal.SIGKILL)
        child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        pass


def check_operand(value: str) -> str:
    """
    Return *value* if no program can read it as an option or a response file.

    Raises: UsageError.
    """
    if value.startswith(("-", "@")) or not value or "\0" in value:
        raise UsageError(f"{value!r}: a file name must not begin with '-' or '@'", hint=f"write ./{value}")
    return value
