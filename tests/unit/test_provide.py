# SPDX-License-Identifier: Apache-2.0
"""Parts of images where the installation carries none: a named directory, the cache, or one command."""

from __future__ import annotations

from pathlib import Path

import pytest
from labs.image import make_parts

from buildtool.config.file import Config, ProjectConfig
from buildtool.core.errors import FileAccessError, ToolMissingError
from buildtool.core.platforms import PLATFORMS
from buildtool.core.process import Runner
from buildtool.load import choose_program
from buildtool.runtime import carried, provide
from buildtool.runtime.packagelock import PackageLock, read_lock
from buildtool.runtime.provide import find_parts, provide_parts

AMD64 = (PLATFORMS["amd64"],)


@pytest.fixture(autouse=True)
def _nothing_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the installation be one from a checkout."""
    for module in (carried, provide):
        monkeypatch.setattr(module, "data_directory", lambda: tmp_path / "data")


def _provide(environ: dict[str, str], said: list[str]) -> Path:
    return provide_parts(AMD64, environ, report=said.append, runner=Runner())


def test_a_named_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    """BUILDTOOL_LOADERS names what was made elsewhere; nothing is linked in its place."""
    environ = {"BUILDTOOL_LOADERS": str(tmp_path / "none"), "BUILDTOOL_CACHE": str(tmp_path / "cache")}
    said: list[str] = []
    assert _provide(environ, said) == find_parts(environ) == tmp_path / "none"
    assert not said


def test_what_was_linked_before_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler is asked for it; other sources of the loader or another lock need parts of their own."""
    environ = {"BUILDTOOL_CACHE": str(tmp_path / "cache")}
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cache").mkdir(mode=0o700)
    place = tmp_path / "cache" / f"parts-{carried.loader_digest()[:16]}-{read_lock().digest()[:16]}"
    make_parts(place, ["amd64"], base=True)
    said: list[str] = []
    assert _provide(environ, said) == find_parts(environ) == place
    assert not said
    for name, other in (("loader_digest", lambda: "0" * 64), ("read_lock", PackageLock)):
        with monkeypatch.context() as changed:
            changed.setattr(provide, name, other)
            with pytest.raises(ToolMissingError):
                _provide(environ, said)


def test_load_starts_what_a_build_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of a build hold the loader for this host; neither compiler nor engine is asked."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cache").mkdir(mode=0o700)
    environ = {"BUILDTOOL_CACHE": str(tmp_path / "cache"), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    place = tmp_path / "cache" / f"parts-{carried.loader_digest()[:16]}"
    make_parts(place, ["amd64"], base=True)
    config = Config(root=tmp_path, project=ProjectConfig(name="x"))
    found = choose_program("loader", config, environ=environ, runner=Runner())
    assert found.read_bytes().startswith(b"loader of amd64")


def test_without_a_compiler_the_hint_is_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what is missing, and nothing is left in the cache."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="loader for images: cannot link it: ") as caught:
        _provide({"BUILDTOOL_CACHE": str(tmp_path / "cache")}, [])
    assert caught.value.hint == "apt-get install clang-19 lld-19 llvm-19"
    assert not list((tmp_path / "cache").glob("p*"))


def test_without_a_cache_there_is_no_place(tmp_path: Path) -> None:
    """Others could have put a loader into a shared directory."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    for environ in ({}, {"BUILDTOOL_CACHE": str(tmp_path / "shared")}):
        with pytest.raises(FileAccessError, match="no place to keep it") as caught:
            _provide(environ, [])
        assert "BUILDTOOL_CACHE" in str(caught.value.hint)
