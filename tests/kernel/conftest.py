# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that run the loader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.emulation import provide_emulators
from labs.kernel import bpf_file_system
from labs.loader import Lab, in_kernel, is_clean
from labs.net import veth
from labs.pins import RAW, XDP, Releases
from labs.run import let_others_read

from buildtool.core.platforms import PLATFORMS, Platform
from buildtool.runtime.link import MadeParts


@pytest.fixture(scope="session")
def lab(clang: Path, sysroot: Path, loader_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Return the lab: compiler, sysroot and loader for the loader's tests."""
    directory = tmp_path_factory.mktemp("lab")
    return Lab(clang=clang, sysroot=sysroot, loader=loader_binary, directory=directory)


@pytest.fixture(autouse=True)
def _readable(tmp_path: Path) -> None:
    """Let the loaders and workloads of other users read the test's directory."""
    let_others_read(tmp_path)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Check at the end of a test that the kernel holds no program and no map of the tests."""
    yield
    assert is_clean(), in_kernel()


@pytest.fixture
def place(lab: Lab, tmp_path: Path) -> Iterator[tuple[Releases, str, str]]:
    """Yield releases of an XDP object, and the two ends of a veth pair that carries frames."""
    with veth() as (left, right), bpf_file_system(tmp_path) as mount:
        yield Releases(lab, tmp_path, mount / "pins", XDP), left, right


@pytest.fixture
def shared(lab: Lab, tmp_path: Path) -> Iterator[Releases]:
    """Yield releases of an object whose section names its hook, in the parent of a shared directory."""
    with bpf_file_system(tmp_path) as mount:
        yield Releases(lab, tmp_path, mount / "share", RAW)


@pytest.fixture(scope="session")
def qemu() -> Path:
    """Return a directory with QEMU's emulators for single programs of other architectures."""
    return provide_emulators()


@pytest.fixture(scope="session", params=PLATFORMS)
def platform(request: pytest.FixtureRequest, carried_parts: Path, made_parts: MadeParts) -> Platform:
    """Return each platform whose parts were made; raise the error of a platform whose parts were not."""
    assert carried_parts.is_dir()
    platform = PLATFORMS[request.param]
    if error := made_parts.failed.get(platform):
        raise error
    return platform
