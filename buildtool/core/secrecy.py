# SPDX-License-Identifier: Apache-2.0
"""Keeps the memory of a process with a key out of core dumps and unreadable by other processes."""

from __future__ import annotations

import ctypes
import resource

from buildtool.core.errors import SigningKeyError

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>


def keep_out_of_core_dumps() -> None:
    """
    Make this process undumpable, and disable core dumps of it and of programs that it starts later.

    Call it before a key, a passphrase or a PIN is read. Forks inherit both protections.

    Raises: SigningKeyError, if the kernel refuses.
    """
    # A limit of 0 disables core files only. If core_pattern is a pipe (systemd-coredump, apport), the kernel
    # ignores each limit but 1 (Linux, fs/coredump.c). A limit of 1 byte disables core files, too.
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else 1, hard))
    # An undumpable process has no core for a socket either. Programs of the same user can't use ptrace(2) or
    # /proc/PID/mem on it. execve(2) resets the flag, so only the limit above protects an external signer.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise SigningKeyError(
            f"cannot keep signing keys out of core dumps: prctl: error {ctypes.get_errno()}"
        )
