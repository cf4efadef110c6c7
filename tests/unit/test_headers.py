# SPDX-License-Identifier: Apache-2.0
"""The headers that programs include: made of two packages, and those that a Dockerfile brings along."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from labs.headers import STAND_INS, write_headers
from labs.mirror import Deb, Mirror

from buildtool.compile.headers import LIST_NAME, Headers, read_headers
from buildtool.config.file import CompileConfig, Config, ProjectConfig
from buildtool.core.errors import ConfigError, FileAccessError, ToolFailedError, ToolMissingError
from buildtool.core.platforms import PLATFORMS
from buildtool.core.process import Runner
from buildtool.image.sentheaders import PLACE, choose_headers
from buildtool.metrics.header import HEADER_NAME
from buildtool.runtime.clibrary import own_headers
from buildtool.runtime.debian import find_system_mirror
from buildtool.runtime.headers import (
    HeadersRequest,
    find_headers,
    lock_digest,
    make_headers,
    provide_headers,
)
from buildtool.runtime.packagelock import PackageLock, make_lock, read_lock

UAPI = {
    f"usr/lib/linux/uapi/{platform.target_arch}/asm/types.h": platform.arch.encode()
    for platform in PLATFORMS.values()
}
LINUX = {
    **UAPI,
    "usr/lib/linux/uapi/mips/asm/types.h": b"mips",
    "usr/include/x86_64-linux-gnu/asm/types.h": "../../../lib/linux/uapi/x86/asm/types.h",
    "usr/include/linux/bpf.h": b"bpf",
    "usr/share/doc/linux-libc-dev/copyright": b"terms",
}
LIBBPF = {"usr/include/bpf/bpf_helpers.h": b"helpers", "usr/include/bpf/libbpf.h": b"for user space"}


@pytest.fixture
def stand_ins(tmp_path: Path) -> Headers:
    """Give headers that stand in for the carried ones."""
    return read_headers(write_headers(tmp_path / "headers"))


@pytest.mark.tools
def test_headers_are_made_of_two_packages(mirror: Mirror, tmp_path: Path) -> None:
    """Those of the architectures of the table and those for programs; no others, no links."""
    debs = [
        mirror.add("linux-libc-dev", "6.12", "all", LINUX),
        mirror.add("libbpf-dev", "1:1.5", "amd64", LIBBPF),
    ]
    mirror.publish(*debs, arch="amd64")
    lock = make_lock(mirror.locked(deb, "amd64") for deb in debs)
    request = HeadersRequest(
        directory=tmp_path / "made",
        cache=tmp_path / "cache",
        mirror=mirror.uri,
        keyring=mirror.keys.keyring,
        lock=lock,
    )
    made = make_headers(request)
    headers = {name for name in made.files if name.endswith(".h")}
    assert headers == {
        "common/linux/bpf.h",
        "common/bpf/bpf_helpers.h",
        *(f"common/{name}" for name in own_headers()),
        f"common/{HEADER_NAME}",
        *(f"{arch}/asm/types.h" for arch in PLATFORMS),
    }
    for arch in PLATFORMS:
        assert made.read(f"{arch}/asm/types.h") == arch.encode()
    assert made.read("copyright.linux-libc-dev") == b"terms"
    assert (made.packages, made.lock) == (
        {"linux-libc-dev": "6.12", "libbpf-dev": "1:1.5"},
        lock_digest(lock),
    )
    assert sorted(path.name for path in tmp_path.glob(".made*")) == []

    # Made once for a lock; again for another lock, or when a file was changed.
    asked = len(mirror.requests)
    before = (tmp_path / "made" / LIST_NAME).read_bytes()
    assert make_headers(request) == made
    assert len(mirror.requests) == asked
    (tmp_path / "made/arm64/asm/types.h").write_text("changed")
    (tmp_path / "made/common/linux/old.h").write_text("left over")
    assert make_headers(request) == made
    assert (tmp_path / "made" / LIST_NAME).read_bytes() == before
    assert not (tmp_path / "made/common/linux/old.h").exists()
    assert len(mirror.requests) > asked
    assert make_headers(replace(request, lock=PackageLock())).lock != made.lock


@pytest.mark.tools
def test_packages_that_lack_headers_replace_nothing(mirror: Mirror, tmp_path: Path) -> None:
    """Should Debian move the files one day, the error names those that are missing."""
    write_headers(tmp_path / "made")
    before = read_headers(tmp_path / "made")
    files = {name: data for name, data in LINUX.items() if "/s390/" not in name}
    mirror.publish(
        mirror.add("linux-libc-dev", "7", "all", files),
        mirror.add("libbpf-dev", "2", "amd64", LIBBPF),
        arch="amd64",
    )
    request = HeadersRequest(
        directory=tmp_path / "made",
        cache=tmp_path / "cache",
        mirror=mirror.uri,
        keyring=mirror.keys.keyring,
        lock=PackageLock(),
    )
    with pytest.raises(ToolFailedError, match=r"lack headers: s390x/asm/types\.h$"):
        make_headers(request)
    assert read_headers(tmp_path / "made") == before


def test_named_headers_go_over_those_of_the_installation(
    tmp_path: Path, stand_ins: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BUILDTOOL_HEADERS, the installation, the cache, where each lock has headers of its own."""
    monkeypatch.setattr("buildtool.runtime.headers.carried_headers", lambda: tmp_path / "carried")
    environ = {"BUILDTOOL_CACHE": str(tmp_path / "cache")}
    assert find_headers(environ) is None
    cached = write_headers(tmp_path / f"cache/headers-{lock_digest(read_lock())[:16]}")
    assert find_headers(environ) == read_headers(cached)
    write_headers(tmp_path / "carried")
    said: list[str] = []
    provided = provide_headers(environ, report=said.append, runner=Runner())
    assert (provided.directory, said) == (tmp_path / "carried", [])
    named = {**environ, "BUILDTOOL_HEADERS": str(stand_ins.directory)}
    assert find_headers(named) == stand_ins
    with pytest.raises(FileAccessError, match=r"none/headers\.json: cannot read"):
        find_headers({**environ, "BUILDTOOL_HEADERS": str(tmp_path / "none")})


@pytest.mark.tools
def test_a_checkout_fetches_the_headers_once(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay in the cache of this user; the packages do not."""
    debs = [mirror.add("linux-libc-dev", "7", "all", LINUX), mirror.add("libbpf-dev", "2", "amd64", LIBBPF)]
    mirror.publish(*debs, arch="amd64")
    made = partial(HeadersRequest, mirror=mirror.uri, keyring=mirror.keys.keyring)
    monkeypatch.setattr("buildtool.runtime.headers.HeadersRequest", made)
    monkeypatch.setattr("buildtool.runtime.headers.carried_headers", lambda: tmp_path / "none")
    environ, said = {"BUILDTOOL_CACHE": str(tmp_path / "cache")}, list[str]()
    first = provide_headers(environ, report=said.append, runner=Runner())
    assert first.packages == {"linux-libc-dev": "7", "libbpf-dev": "2"}
    assert said[0] == "this installation carries no headers for programs: fetch Debian's, once"
    asked = len(mirror.requests)
    said.clear()
    assert provide_headers(environ, report=said.append, runner=Runner()) == first
    assert (said, len(mirror.requests)) == ([], asked)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name != "v1"] == [
        first.directory.name
    ]
    with pytest.raises(FileAccessError, match="no place to keep them"):
        provide_headers({}, report=said.append, runner=Runner())


def keep(mirror: Mirror, deb: Deb, path: str) -> None:
    """Let the mirror have *deb* at *path*."""
    place = mirror.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(mirror.root / deb.path, place)


@pytest.mark.tools
def test_locked_packages_come_from_the_pool_without_apt(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock has their digests. Other bytes are never used: apt is asked, and is not there."""
    linux = mirror.add("linux-libc-dev", "6.12.1-1", "all", LINUX)
    libbpf = mirror.add("libbpf-dev", "1:1.5.0-3", "amd64", LIBBPF)
    lock = make_lock(mirror.locked(deb, "amd64") for deb in (linux, libbpf))
    request = HeadersRequest(directory=tmp_path / "made", cache=tmp_path / "cache", lock=lock)
    monkeypatch.setattr("buildtool.runtime.headers.find_system_mirror", lambda: mirror.uri)
    monkeypatch.setenv("PATH", "/nonexistent")
    pool = "pool/main/l/linux/linux-libc-dev_6.12.1-1_all.deb"
    keep(mirror, linux, pool)
    with pytest.raises(ToolMissingError, match="apt"):
        make_headers(request)
    keep(mirror, libbpf, "pool/main/libb/libbpf/libbpf-dev_1.5.0-3_amd64.deb")
    made = make_headers(request)
    assert made.packages == {"linux-libc-dev": "6.12.1-1", "libbpf-dev": "1:1.5.0-3"}
    assert made.read("s390x/asm/types.h") == b"s390x"

    keep(mirror, libbpf, pool)
    with pytest.raises(ToolMissingError, match="apt"):
        make_headers(replace(request, directory=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_another_system_names_a_mirror_or_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Debian mirror the error says why there are no packages."""
    monkeypatch.setattr(
        "buildtool.runtime.headers.find_system_mirror",
        lambda: find_system_mirror(tmp_path, tmp_path / "os-release"),
    )
    with pytest.raises(ToolFailedError, match="no packages linux-libc-dev, libbpf-dev: this is not a Debian"):
        make_headers(HeadersRequest(directory=tmp_path / "made", cache=tmp_path / "cache"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "files": {"x": 1}}'])
def test_a_damaged_list_is_an_error(stand_ins: Headers, text: str) -> None:
    """The hint says what makes it again."""
    (stand_ins.directory / LIST_NAME).write_text(text)
    with pytest.raises(FileAccessError, match="not a list of headers") as caught:
        read_headers(stand_ins.directory)
    assert "make loaders" in str(caught.value.hint)


def test_a_list_without_files_is_one(stand_ins: Headers) -> None:
    """A builder is sent the list of the headers that the sources read, which may read none."""
    (stand_ins.directory / LIST_NAME).write_bytes(stand_ins.list_document([]))
    assert dict(read_headers(stand_ins.directory).files) == {}


def choose(root: Path, headers: Headers, *archs: str, include: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the files that a Dockerfile for *archs* brings along, without the list."""
    config = Config(root=root, project=ProjectConfig(name="x"), compile=CompileConfig(include=include))
    platforms = [PLATFORMS[arch] for arch in archs]
    chosen = choose_headers(config, ["bpf/x.bpf.c"], platforms, headers)
    files = {f"{file.directory}/{file.name}".removeprefix(f"{PLACE}/"): file.text for file in chosen}
    listed = json.loads(files.pop(LIST_NAME))
    assert listed["files"] == {name: headers.files[name] for name in files}
    return files


def write(root: Path, **files: str) -> None:
    """Write sources, whose names have __ for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_h", ".h")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "bpf/x").rename(root / "bpf/x.bpf.c")


def test_a_dockerfile_brings_the_headers_that_sources_reach(tmp_path: Path, stand_ins: Headers) -> None:
    """Through headers of the project and of Linux, in branches that are not taken, for each architecture."""
    write(tmp_path, bpf__x="#include <linux/bpf.h>\n")
    reached = ["arm/asm/types.h", "common/linux/bpf.h", "common/linux/types.h", "s390x/asm/types.h"]
    assert sorted(choose(tmp_path, stand_ins, "arm", "s390x")) == reached
    for text in (
        '#if 0\n # include "a.h" // why\n#endif\n',
        '%: include_next "a.h"\n',
        '#include \\\n "a.h"\n',
        '#if __has_include("a.h")\n#endif\n',
        "#include <a.h>\n",
        '#include /* sizes */ "a.h"\n',
        '#import "a.h"\n',
    ):
        write(tmp_path, bpf__x=text, inc__a_h="#include <bpf/bpf_helpers.h>\n")
        names = sorted(choose(tmp_path, stand_ins, "arm", include=("inc",)))
        assert names == ["common/bpf/bpf_helper_defs.h", "common/bpf/bpf_helpers.h"], text
    write(tmp_path, bpf__x='#include "bpf_helpers.h"\n#include "../../out.h"\n')
    assert choose(tmp_path, stand_ins, "arm") == {}


def test_a_header_of_the_project_may_replace_one_that_a_carried_header_includes(
    tmp_path: Path, stand_ins: Headers
) -> None:
    """Both are read: which one the compiler takes is not for a reader of text to say."""
    write(tmp_path, bpf__x="#include <linux/bpf.h>\n", inc__linux__types_h="#include <linux/unused.h>\n")
    assert "common/linux/unused.h" in choose(tmp_path, stand_ins, "arm", include=("inc",))


def test_a_header_named_by_a_macro_brings_all(tmp_path: Path, stand_ins: Headers) -> None:
    """Of the architectures that are built, though."""
    write(tmp_path, bpf__x="#define H <linux/bpf.h>\n#include H\n")
    wanted = {name for name in STAND_INS if name.startswith(("common/", "arm/"))}
    assert set(choose(tmp_path, stand_ins, "arm")) == wanted


def test_a_changed_header_is_not_sent(tmp_path: Path, stand_ins: Headers) -> None:
    """A Dockerfile would carry it to other machines."""
    write(tmp_path, bpf__x="#include <linux/types.h>\n")
    (stand_ins.directory / "common/linux/types.h").write_text("changed")
    with pytest.raises(FileAccessError, match=r"types\.h: not the file that headers\.json lists"):
        choose(tmp_path, stand_ins, "arm")


def test_headers_outside_are_sent_alone(tmp_path: Path, stand_ins: Headers) -> None:
    """Of a directory outside the project, the builder gets what the sources name; by a macro, all headers."""
    root = tmp_path / "project"
    for name, text in {
        "project/bpf/x.bpf.c": '#include "x.h"\n',
        "outside/x.h": '#include "deep/y.h"\n',
        "outside/deep/y.h": "#include <linux/bpf.h>\n",
        "outside/secret.h": "int secret;\n",
        "outside/secret.txt": "secret\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    settings = CompileConfig(include=("../outside",))
    config = Config(root=root, project=ProjectConfig(name="x"), compile=settings)

    def sent() -> set[str]:
        files = choose_headers(config, ["bpf/x.bpf.c"], [PLATFORMS["arm64"]], stand_ins)
        return {f"{file.directory}/{file.name}" for file in files}

    outside = "buildtool/data/outside/0"
    assert {name for name in sent() if outside in name} == {f"{outside}/x.h", f"{outside}/deep/y.h"}
    assert f"{PLACE}/common/linux/bpf.h" in sent()
    (root / "bpf/x.bpf.c").write_text("#include NAME\n")
    assert {name for name in sent() if outside in name} == {
        f"{outside}/{name}" for name in ("x.h", "deep/y.h", "secret.h")
    }


@pytest.mark.parametrize("text", ["#include KEY\n", '#include "key.h"\n'])
def test_key_outside_the_project_is_refused(tmp_path: Path, stand_ins: Headers, text: str) -> None:
    """A private key under the name of a header, which a source includes, reaches no builder."""
    (tmp_path / "project/bpf").mkdir(parents=True)
    (tmp_path / "project/bpf/x.bpf.c").write_text(text)
    (tmp_path / "key.h").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    settings = CompileConfig(include=("..",))
    config = Config(root=tmp_path / "project", project=ProjectConfig(name="x"), compile=settings)
    with pytest.raises(ConfigError, match=r"\.\./key\.h: a private key"):
        choose_headers(config, ["bpf/x.bpf.c"], [PLATFORMS["arm64"]], stand_ins)
