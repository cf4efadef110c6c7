# SPDX-License-Identifier: Apache-2.0
"""
The loader of every architecture on every vector and on every bad trust store.

Numbers, offsets and times can overflow on a 32-bit machine (arm) and not on this one, and s390x swaps bytes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from labs.emulation import emulator_of
from labs.vectors.index import INDEX, write_store, write_stores
from labs.verifiers import ask_loader, run_loader

from buildtool.core.platforms import Platform
from buildtool.runtime.carried import find_loader

# The first test makes the loaders of seven architectures.
pytestmark = pytest.mark.timeout(900)


def test_every_vector(platform: Platform, qemu: Path, tmp_path: Path) -> None:
    """The loader of each architecture gives the expected answers of the vectors."""
    stores, work = tmp_path / "stores", tmp_path / "work"
    for directory in (stores, work):
        directory.mkdir()
    write_stores(stores)
    said = ask_loader(find_loader(platform).path, stores, work, emulator=emulator_of(platform, qemu))
    assert said == {vector["name"]: vector["expect"] for vector in INDEX["vectors"]}


def test_every_bad_trust_store(platform: Platform, qemu: Path, tmp_path: Path) -> None:
    """Each bad trust store is exit code 2 with one line, and no object is verified."""
    accepted = []
    for name, files in INDEX["badTrust"].items():
        store = write_store(tmp_path / name, files)
        arguments = ["--objects", tmp_path, "--trust", store]
        code, lines = run_loader(find_loader(platform).path, *arguments, emulator=emulator_of(platform, qemu))
        if (code, [line["event"] for line in lines]) != (2, ["error"]):
            accepted.append(name)
    assert accepted == []
