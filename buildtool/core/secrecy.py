# SPDX-License-Identifier: Apache-2.0
"""Memory with a key in it stays in this process: no core dump has it, and no other process reads it."""

from __future__ import annotations

import ctypes
import resource

from buildtool.core.errors import SigningKeyError

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>


def keep_out_of_core_dumps() -> None:
    """
    Keep the memory of this process, and cores of programs that it starts from now on, from everybody.

    Call it before a key, a passphrase or a PIN is read. Forks inherit both protections.

    Raises: SigningKeyError, when the kernel refuses.
    """
    # A limit of 0 stops files alone: a core_pattern that is a pipe (systemd-coredump, apport) gets the core
    # whatever the limit is, unless it is 1 (Linux, fs/coredump.c). No core file has one byte either.
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else 1, hard))
    # Of this process also no core for a socket, and no ptrace(2) or /proc/PID/mem by programs of the same
    # user. execve(2) undoes it, so that the limit above is what protects a signer that is a program.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise SigningKeyError(
            f"cannot keep signing keys out of core dumps: prctl: error {ctypes.get_errno()}"
        )
