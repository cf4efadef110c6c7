# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests with a real Docker engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.engine import remove_images
from labs.project import Project, make_project


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path, prepared_images: object) -> Iterator[Project]:
    """Yield a project for this test; afterwards remove the images that the module's TAG names."""
    assert prepared_images
    yield make_project(tmp_path / "lab")
    remove_images(request.module.TAG.partition(":")[0])
