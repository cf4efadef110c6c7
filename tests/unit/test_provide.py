# SPDX-License-Identifier: Apache-2.0
"""Parts of images where the installation carries none: a named directory, the cache, or one command."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from labs.image import make_parts

from buildtool.config.file import Config, ProjectConfig
from buildtool.core.cache import open_cache
from buildtool.core.errors import ConfigError, FileAccessError, ToolMissingError
from buildtool.core.platforms import PLATFORMS
from buildtool.core.process import Runner
from buildtool.load import choose_program
from buildtool.runtime import carried, provide
from buildtool.runtime.link import MadeParts, PartsRequest
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


def linked_parts(cache: Path) -> Path:
    """Return where *cache* keeps the parts for the present sources and lock."""
    return cache / f"parts-{carried.loader_digest()[:16]}-{read_lock().digest()[:16]}"


def test_a_named_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    """BUILDTOOL_LOADERS names what was made elsewhere; nothing is linked in its place."""
    environ = {"BUILDTOOL_LOADERS": str(tmp_path / "none"), "BUILDTOOL_CACHE": str(tmp_path / "cache")}
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"BUILDTOOL_LOADERS: .*none: no such directory"):
        _provide(environ, said)
    (tmp_path / "none").mkdir()
    assert _provide(environ, said) == find_parts(environ) == tmp_path / "none"
    assert not said
    with pytest.raises(FileAccessError, match=r"no loaders/loaders\.json in it") as caught:
        carried.find_loader(PLATFORMS["amd64"], tmp_path / "none")
    assert "BUILDTOOL_LOADERS" in str(caught.value.hint)


def test_what_was_linked_before_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linked parts are used again without a compiler. Other sources or another lock need new parts."""
    environ = {"BUILDTOOL_CACHE": str(tmp_path / "cache")}
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cache").mkdir(mode=0o700)
    place = linked_parts(tmp_path / "cache")
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
    """`load` uses the loader that a build linked, without compiler and engine."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cache").mkdir(mode=0o700)
    environ = {"BUILDTOOL_CACHE": str(tmp_path / "cache"), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    place = linked_parts(tmp_path / "cache")
    make_parts(place, ["amd64"], base=True)
    config = Config(root=tmp_path, project=ProjectConfig(name="x"))
    found = choose_program("loader", config, environ=environ, runner=Runner())
    assert found.read_bytes().startswith(b"loader of amd64")


def test_without_a_compiler_the_hint_is_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing compiler, and only the lock stays in the cache."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="loader for images: cannot link it: ") as caught:
        _provide({"BUILDTOOL_CACHE": str(tmp_path / "cache")}, [])
    assert caught.value.hint == "apt-get install clang-19 lld-19 llvm-19"
    assert [path.name for path in (tmp_path / "cache").glob("p*")] == [provide.LOCK_NAME]


def test_without_a_cache_there_is_no_place(tmp_path: Path) -> None:
    """Others could have put a loader into a shared directory."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    for environ in ({}, {"BUILDTOOL_CACHE": str(tmp_path / "shared")}):
        with pytest.raises(FileAccessError, match="no place to keep it") as caught:
            _provide(environ, [])
        assert "BUILDTOOL_CACHE" in str(caught.value.hint)
        assert caught.value.message.endswith("cannot be used" if environ else "has no cache directory")


def test_a_cache_that_is_no_path_is_named(tmp_path: Path) -> None:
    """A relative name would be another directory in each project; it is not taken for no cache."""
    with pytest.raises(ConfigError, match=r"^BUILDTOOL_CACHE: 'rel' is not an absolute path$") as caught:
        open_cache({"BUILDTOOL_CACHE": "rel", "HOME": str(tmp_path)})
    assert caught.value.hint


def test_two_first_builds_keep_the_parts_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second build waits, finds what the first one linked, and links the other platform only."""
    environ = {"BUILDTOOL_CACHE": str(tmp_path / "cache")}
    begun, linked = threading.Barrier(3), list[str]()

    def link(request: PartsRequest, **_: object) -> MadeParts:
        """Write the list as the linker does, but slowly: read it, and write it with another platform."""
        linked.extend(platform.arch for platform in request.platforms)
        try:
            present = [*carried.read_list(request.data)]
        except FileAccessError:
            present = []
        time.sleep(0.3)
        make_parts(request.data, [*present, *(each.arch for each in request.platforms)], base=True)
        return MadeParts(made=request.platforms, failed={})

    monkeypatch.setattr(provide, "make_parts", link)

    def build(arch: str) -> Path:
        begun.wait()
        return provide_parts((PLATFORMS[arch],), environ, report=lambda _: None, runner=Runner())

    with ThreadPoolExecutor(3) as pool:
        (data,) = {*pool.map(build, ("amd64", "arm64", "amd64"))}
    assert sorted(carried.read_list(data)) == sorted(linked) == ["amd64", "arm64"]


def test_parts_that_no_build_uses_are_removed(tmp_path: Path) -> None:
    """Parts of other sources or another lock go after a day; what was used since then stays."""
    environ = {"BUILDTOOL_CACHE": str(tmp_path / "cache")}
    (tmp_path / "cache").mkdir(mode=0o700)
    place = linked_parts(tmp_path / "cache")
    for directory, days in (
        (place, 40),
        (tmp_path / "cache/parts-1-1", 2),
        (tmp_path / "cache/parts-2", 0.5),
    ):
        make_parts(directory, ["amd64"], base=True)
        then = time.time() - days * 24 * 3600
        os.utime(directory, (then, then))
    (tmp_path / "cache/packages-x").mkdir()
    assert _provide(environ, []) == place
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left == {place.name, "parts-2", "packages-x", "v1"}
    assert time.time() - place.stat().st_mtime < 3600
