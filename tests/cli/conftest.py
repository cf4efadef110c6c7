# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from labs.mirrorfixtures import keys, mirror
from labs.project import make_local_project

from buildtool.oci import registry as registries

__all__ = ["keys", "mirror"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path) -> Path:
    """Make a project that needs no engine."""
    assert clang
    return make_local_project(tmp_path, monkeypatch)


@pytest.fixture
def quick_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let a client try again after 10 ms, and have the settings of Docker in a directory of the test."""
    monkeypatch.setattr(registries, "PAUSE_SECONDS", 0.01)
    (tmp_path / "docker").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
