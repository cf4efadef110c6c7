# SPDX-License-Identifier: Apache-2.0
"""Virtual machines: one boot for each kernel and architecture, shared by all tests of the session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from labs.vm import CACHE, Guest, Lab

from buildtool.check.vm.kernels import Kernel, find_kernel
from buildtool.core.platforms import MACHINES, Platform


def _need_qemu(arch: str) -> None:
    program = MACHINES[arch].qemu[0]
    if shutil.which(program) is None:
        pytest.skip(f"needs-tool: {program}")


@pytest.fixture(scope="session")
def vm_kernel() -> Callable[[str, str], Kernel]:
    """Return a function that returns a kernel by name and architecture, from the cache of the tests."""

    def find(name: str, arch: str) -> Kernel:
        _need_qemu(arch)
        return find_kernel(name, arch, CACHE)

    return find


@pytest.fixture(scope="session")
def guests(
    clang: Path, sysroot_of: Callable[[Platform], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Guest]:
    """Return a function that boots a kernel once and runs all cases on it."""
    lab = Lab(directory=tmp_path_factory.mktemp("vm"), clang=clang, sysroot_of=sysroot_of)

    # A failed boot is not repeated: every test of that machine gets its error.
    @cache
    def boot(name: str, arch: str) -> Guest | Exception:
        try:
            return lab.boot(name, arch)
        except Exception as error:  # noqa: BLE001 - raised again for each test
            return error

    def give(name: str, arch: str) -> Guest:
        _need_qemu(arch)
        found = boot(name, arch)
        if isinstance(found, Exception):
            raise found
        return found

    return give


@pytest.fixture
def guest(request: pytest.FixtureRequest, guests: Callable[[str, str], Guest]) -> Guest:
    """Return the guest of the parameter (kernel, architecture)."""
    return guests(*request.param)
