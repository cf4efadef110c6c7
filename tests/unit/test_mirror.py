# SPDX-License-Identifier: Apache-2.0
"""Mirrors with missing, wrong, incomplete or old packages: the chosen package and the report."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from labs.mirror import Keys, Mirror, forget_keys, make_keys, serve

from buildtool.compile.toolchain import find_toolchain
from buildtool.core.errors import ConfigError, FileAccessError, PackageUnavailableError, ToolFailedError
from buildtool.core.platforms import PLATFORMS
from buildtool.runtime import debian
from buildtool.runtime.apt import CHECK_NETWORK, TRY_LATER, provide_tree
from buildtool.runtime.carried import LINKED_FROM, list_path, loader_digest, part_path
from buildtool.runtime.debian import Archive, check_codename
from buildtool.runtime.link import PartsRequest, make_parts
from buildtool.runtime.packagelock import LockedPackage, make_lock, read_lock, write_lock


@pytest.fixture
def told() -> list[str]:
    """Give the list of what is reported."""
    return []


def names(directory: Path) -> list[str]:
    """Return the names of the files in *directory*."""
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.tools
def test_the_locked_version_comes_first(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """The locked version is used without a report, although the list has a newer one."""
    old, new = mirror.add("tool", "1"), mirror.add("tool", "2")
    mirror.publish(old, new)
    source = mirror.source(tmp_path / "apt", told, old)
    source.update()
    (file,) = source.download(["tool"], tmp_path / "out")
    assert file.read_bytes() == (mirror.root / old.path).read_bytes()
    assert told == []
    source = mirror.source(tmp_path / "apt", told)
    (file,) = source.download(["tool"], tmp_path / "newest")
    assert (file.name, told) == ("tool_2_s390x.deb", [])


@pytest.mark.tools
@pytest.mark.parametrize("present", ["1", "3"])
def test_the_present_version_replaces_a_locked_one(
    mirror: Mirror, tmp_path: Path, told: list[str], present: str
) -> None:
    """The present version of an older or newer mirror is used, and one line reports it."""
    locked, other = mirror.add("tool", "2"), mirror.add("other", "5")
    mirror.publish(mirror.add("tool", present), other)
    source = mirror.source(tmp_path / "apt", told, locked, other)
    source.update()
    source.download(["tool", "other"], tmp_path / "out")
    assert names(tmp_path / "out") == ["other_5_s390x.deb", f"tool_{present}_s390x.deb"]
    assert told == [
        f"Debian trixie s390x: use other versions than the locked ones: tool {present} (locked: 2)"
    ]


@pytest.mark.tools
def test_a_locked_version_that_the_pool_lacks(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """The present version of the same list is taken instead."""
    old, new = mirror.add("tool", "1"), mirror.add("tool", "2")
    mirror.publish(old, new)
    mirror.faults[old.path] = "missing"
    source = mirror.source(tmp_path / "apt", told, old)
    source.update()
    source.download(["tool"], tmp_path / "out")
    assert names(tmp_path / "out") == ["tool_2_s390x.deb"]
    assert told == ["Debian trixie s390x: use other versions than the locked ones: tool 2 (locked: 1)"]
    assert mirror.asked("InRelease") == 1


@pytest.mark.tools
def test_lists_are_refreshed_once(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """If the pool changed after the list was read, the list is fetched again."""
    gone, new = mirror.add("tool", "1"), mirror.add("tool", "2")
    mirror.publish(gone)
    source = mirror.source(tmp_path / "apt", told)
    source.update()
    mirror.publish(new)
    mirror.faults[gone.path] = "missing"
    source.download(["tool"], tmp_path / "out")
    assert names(tmp_path / "out") == ["tool_2_s390x.deb"]
    assert mirror.asked("trixie/InRelease") == 2
    assert mirror.asked("stable/InRelease") == 0


@pytest.mark.tools
def test_the_alias_has_what_the_suite_lacks(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """Missing packages come from the suite's alias, and the others are not fetched twice."""
    gone, older, other = mirror.add("tool", "2"), mirror.add("tool", "1"), mirror.add("other", "5")
    mirror.publish(gone, other)
    mirror.publish(older, other, suite="stable")
    mirror.faults[gone.path] = "missing"
    source = mirror.source(tmp_path / "apt", told, gone, other)
    source.update()
    files = source.download(["tool", "other"], tmp_path / "out")
    assert [file.name for file in files] == ["other_5_s390x.deb", "tool_1_s390x.deb"]
    assert told == ["Debian trixie s390x: use the alias stable: tool 1 (locked: 2)"]
    assert mirror.asked(other.path) == 1


@pytest.mark.tools
def test_an_alias_of_another_release_is_refused(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """After a release `stable` is another one; its packages are never taken for trixie's."""
    gone, foreign = mirror.add("tool", "2"), mirror.add("tool", "3")
    mirror.publish(gone)
    mirror.publish(foreign, suite="stable", codename="forky")
    mirror.faults[gone.path] = "missing"
    source = mirror.source(tmp_path / "apt", told)
    source.update()
    with pytest.raises(PackageUnavailableError, match="cannot download tool: 404 not found") as caught:
        source.download(["tool"], tmp_path / "out")
    assert (caught.value.architecture, caught.value.packages) == ("s390x", ("tool",))
    assert caught.value.hint == TRY_LATER
    assert mirror.asked(foreign.path) == 0
    assert names(tmp_path / "out") == []


UNSIGNED = "Codename: trixie\n"
HEAD = "-----BEGIN PGP SIGNED MESSAGE-----\n"


def add_unsigned_codename(mirror: Mirror, place: str) -> None:
    """Put a line that nobody signed into the Release file of `stable`."""
    path = mirror.root / "dists/stable/InRelease"
    text = path.read_text()
    path.write_text(UNSIGNED + text if place == "before" else text.replace(HEAD, HEAD + UNSIGNED, 1))


@pytest.mark.tools
@pytest.mark.parametrize("place", ["nowhere", "before", "header"])
def test_the_codename_is_that_of_the_signed_text(
    mirror: Mirror, tmp_path: Path, told: list[str], place: str
) -> None:
    """A mirror cannot give another release the wanted codename; refused lists are not kept."""
    foreign = mirror.add("tool", "3")
    mirror.publish(foreign, suite="stable", codename="forky")
    if place != "nowhere":
        add_unsigned_codename(mirror, place)
    source = mirror.source(tmp_path / "apt", told)
    with pytest.raises(PackageUnavailableError, match="no packages from"):
        source.update()
    assert source.list_versions(["tool"]) == {"tool": []}
    with pytest.raises(ToolFailedError):
        source.download(["tool"], tmp_path / "out")
    assert mirror.asked(foreign.path) == 0
    assert told == []


@pytest.mark.tools
@pytest.mark.parametrize(("codename", "code"), [("trixie", 0), ("forky", 1)])
def test_the_hook_of_mmdebstrap_reads_the_signed_codename(
    mirror: Mirror, tmp_path: Path, codename: str, code: int
) -> None:
    """The hook refuses an alias of another release, even if an unsigned line names the suite."""
    state, archive = tmp_path / "apt", Archive(suite="trixie", mirror=mirror.uri, alias="stable")
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={mirror.keys.keyring}] {mirror.uri} stable main\n")
    settings = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "APT::Architecture": "s390x",
        "APT::Architectures": "s390x",
        "APT::Sandbox::User": "",
    }
    config = tmp_path / "apt.conf"
    config.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    environment = {**os.environ, "APT_CONFIG": str(config), "MMDEBSTRAP_APT_CONFIG": str(config)}
    mirror.publish(mirror.add("tool", "1"), suite="stable", codename=codename)
    add_unsigned_codename(mirror, "header")
    subprocess.run(["apt-get", "-qq", "update"], env=environment, check=True)
    argv = ["sh", "-c", check_codename(archive), "sh", tmp_path]
    assert subprocess.run(argv, env=environment, check=False).returncode == code


@pytest.mark.tools
def test_lists_that_only_the_alias_has(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """If a suite has no lists under its name, those of its alias are used."""
    mirror.publish(mirror.add("tool", "1"), suite="stable")
    source = mirror.source(tmp_path / "apt", told)
    source.update()
    assert told == ["Debian trixie s390x: no package list under this name, use its alias stable"]
    source.download(["tool"], tmp_path / "out")
    assert names(tmp_path / "out") == ["tool_1_s390x.deb"]
    mirror.publish(mirror.add("tool", "2"), suite="stable", codename="forky")
    with pytest.raises(PackageUnavailableError, match="no packages from http"):
        source.update()


@pytest.mark.tools
def test_shared_content_comes_from_another_architecture(
    mirror: Mirror, tmp_path: Path, told: list[str]
) -> None:
    """base-files has the same files everywhere; a package with programs is never taken from elsewhere."""
    for name in ("base-files", "tool"):
        gone, other = mirror.add(name, "2"), mirror.add(name, "2", "arm64")
        mirror.publish(gone)
        mirror.publish(other, arch="arm64")
        mirror.faults[gone.path] = "missing"
        source = mirror.source(tmp_path / name, told, gone)
        source.update()
        if name == "base-files":
            (file,) = source.download([name], tmp_path / "out")
            assert file.name == "base-files_2_arm64.deb"
        else:
            with pytest.raises(PackageUnavailableError, match="cannot download tool"):
                source.download([name], tmp_path / "out")
            assert mirror.asked(other.path) == 0
    assert told == [
        "Debian trixie s390x: use packages of arm64, whose files are the same: base-files 2",
    ]


@pytest.mark.tools
def test_other_bytes_under_the_locked_version_are_refused(
    mirror: Mirror, tmp_path: Path, told: list[str]
) -> None:
    """Other bytes under the locked version are refused. Another source may have the locked ones."""
    locked = mirror.add("tool", "1")
    rebuilt = mirror.add("tool", "1+", files={"usr/bin/tool": b"other"})
    rebuilt = replace(rebuilt, stanza=rebuilt.stanza.replace("Version: 1+", "Version: 1"))
    mirror.publish(rebuilt)
    source = mirror.source(tmp_path / "apt", told, locked)
    source.update()
    with pytest.raises(PackageUnavailableError, match=r"not those in tools/packages\.lock") as caught:
        source.download(["tool"], tmp_path / "out")
    assert "tools/loaders --lock" in str(caught.value.hint)
    assert mirror.asked(rebuilt.path) == 0
    mirror.publish(locked, suite="stable")
    (file,) = source.download(["tool"], tmp_path / "out")
    assert file.read_bytes() == (mirror.root / locked.path).read_bytes()
    assert told == ["Debian trixie s390x: use the alias stable: tool 1"]


@pytest.mark.tools
def test_bytes_that_are_not_listed_are_refused(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """A changed file in the pool is not what the signed list names."""
    deb = mirror.add("tool", "1")
    mirror.publish(deb)
    path = mirror.root / deb.path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    source = mirror.source(tmp_path / "apt", told)
    source.update()
    with pytest.raises(PackageUnavailableError, match="cannot download tool: hash sum mismatch"):
        source.download(["tool"], tmp_path / "out")
    assert names(tmp_path / "out") == []


@pytest.mark.tools
def test_lists_need_the_signature_of_the_keyring(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """Lists that another key signed are not used, and a keyring that does not exist is no way around it."""
    mirror.publish(mirror.add("tool", "1"))
    (tmp_path / "other").mkdir()
    other = make_keys(tmp_path / "other")
    forget_keys(other)
    with pytest.raises(ToolFailedError, match=r"not signed by a key in /\S+/other/keyring\.gpg"):
        mirror.source(tmp_path / "apt", told, keyring=other.keyring).update()
    with pytest.raises(FileAccessError, match="no keyring"):
        mirror.source(tmp_path / "apt", told, keyring=tmp_path / "none").update()


@pytest.mark.tools
def test_a_download_that_is_cut(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """Half a file is fetched again; when it stays half, nothing is left."""
    deb = mirror.add("tool", "1")
    mirror.publish(deb)
    source = mirror.source(tmp_path / "apt", told)
    source.update()
    mirror.faults[deb.path] = "once"
    source.download(["tool"], tmp_path / "out")
    assert (tmp_path / "out" / "tool_1_s390x.deb").read_bytes() == (mirror.root / deb.path).read_bytes()
    mirror.faults[deb.path] = "cut"
    with pytest.raises(PackageUnavailableError, match="cannot download tool"):
        source.download(["tool"], tmp_path / "second")
    assert names(tmp_path / "second") == []


@pytest.mark.tools
def test_a_mirror_that_is_down(keys: Keys, tmp_path: Path, told: list[str]) -> None:
    """The error names the mirror and the network, before and after the lists were read."""
    with serve(tmp_path / "mirror", keys) as mirror:
        mirror.publish(mirror.add("tool", "1"))
        source = mirror.source(tmp_path / "apt", told)
        source.update()
    for job in (source.update, lambda: source.download(["tool"], tmp_path / "out")):
        with pytest.raises(PackageUnavailableError) as caught:
            job()
        assert caught.value.hint == CHECK_NETWORK
    assert told == []


@pytest.mark.tools
def test_one_missing_package_keeps_the_others(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """The error names the package that no way gave, and only that one."""
    mirror.publish(mirror.add("tool", "1"))
    source = mirror.source(tmp_path / "apt", told)
    source.update()
    with pytest.raises(PackageUnavailableError, match="Debian trixie s390x has no package nothing") as caught:
        source.download(["nothing", "tool"], tmp_path / "out")
    assert caught.value.packages == ("nothing",)


@pytest.mark.tools
def test_a_tree_is_unpacked_once(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """A second call uses no mirror. Another locked version causes a new tree."""
    deb = mirror.add("tool", "1")
    mirror.publish(deb)
    source = mirror.source(tmp_path / "apt", told, deb)
    provide_tree(source, ["tool"], tmp_path / "tree")
    assert (tmp_path / "tree/usr/share/doc/tool/version").read_bytes().startswith(b"1 s390x")
    asked = len(mirror.requests)
    provide_tree(source, ["tool"], tmp_path / "tree")
    assert len(mirror.requests) == asked
    new = mirror.add("tool", "2")
    mirror.publish(new)
    provide_tree(mirror.source(tmp_path / "apt", told, new), ["tool"], tmp_path / "tree")
    assert (tmp_path / "tree/usr/share/doc/tool/version").read_bytes().startswith(b"2 s390x")


@pytest.mark.tools
def test_a_tree_holds_nothing_of_other_versions(mirror: Mirror, tmp_path: Path, told: list[str]) -> None:
    """A header that the new version lacks is gone; a download that fails leaves the old tree complete."""
    old = mirror.add("tool", "1", files={"usr/include/old.h": b"1"})
    new = mirror.add("tool", "2", files={"usr/include/new.h": b"2"})
    tree = tmp_path / "cache/tree"
    mirror.publish(old)
    provide_tree(mirror.source(tmp_path / "apt", told, old), ["tool"], tree)
    mirror.publish(new)
    mirror.faults[new.path] = "missing"
    with pytest.raises(PackageUnavailableError):
        provide_tree(mirror.source(tmp_path / "apt", told, new), ["tool"], tree)
    provide_tree(mirror.source(tmp_path / "apt", told, old), ["tool"], tree)
    assert names(tree / "usr/include") == ["old.h"]
    assert names(tree.parent) == ["tree"]
    mirror.faults.clear()
    (tree.parent / ".tree.new").mkdir()  # what a run left that was killed
    (tree.parent / ".tree.new/half").touch()
    provide_tree(mirror.source(tmp_path / "apt", told, new), ["tool"], tree)
    assert names(tree / "usr/include") == ["new.h"]
    assert names(tree) == [".complete", "usr"]
    assert names(tree.parent) == ["tree"]


@pytest.mark.tools
def test_a_directory_of_something_else_is_not_replaced(
    mirror: Mirror, tmp_path: Path, told: list[str]
) -> None:
    """Files that a user has in the named directory are never removed; an empty directory is used."""
    mirror.publish(mirror.add("tool", "1"))
    source = mirror.source(tmp_path / "apt", told)
    for name in ("used", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "used/thesis").touch()
    with pytest.raises(FileAccessError, match="used: not a tree of packages, so it is not replaced"):
        provide_tree(source, ["tool"], tmp_path / "used")
    assert names(tmp_path / "used") == ["thesis"]
    (tmp_path / "link").symlink_to("empty")
    provide_tree(source, ["tool"], tmp_path / "link")
    assert names(tmp_path / "empty") == [".complete", "usr"]


LIBRARIES = (*debian.CROSS_PACKAGES, "linux-libc-dev", "libgcc-14-dev")
OTHERS = (*debian.BASE_PACKAGES, *debian.BASE_PACKAGES_PER_ARCH, "tini")


@pytest.mark.tools
def test_packages_to_link_with_are_fetched_once_per_lock(mirror: Mirror, tmp_path: Path) -> None:
    """Another locked version of any of them is fetched; a changed password of the mirror is no reason to."""
    debs = {name: mirror.add(name, "1") for name in (*LIBRARIES, *OTHERS)}
    mirror.publish(*debs.values())
    locked = [mirror.locked(deb) for deb in debs.values()]

    def fetch(password: str, packages: Sequence[LockedPackage]) -> int:
        before = len(mirror.requests)
        done = make_parts(
            PartsRequest(
                platforms=(PLATFORMS["s390x"],),
                data=tmp_path / "data",
                cache=tmp_path / "cache",
                mirror=mirror.uri.replace("//", f"//me:{password}@"),
                keyring=mirror.keys.keyring,
                lock=make_lock(packages),
            )
        )
        # These packages hold no program, so the run ends behind the downloads.
        assert "no tini-static" in str(done.failed[PLATFORMS["s390x"]])
        return len(mirror.requests) - before

    assert fetch("hunter2", locked) > len(debs)
    assert fetch("hunter3", locked) == 0
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file() and b"hunter" in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0
    for name in ("libgcc-14-dev", "libsodium-dev", "tzdata"):
        locked = [replace(each, version="0") if each.name == name else each for each in locked]
        assert fetch("hunter2", locked) > len(debs)


@pytest.mark.tools
def test_parts_are_made_again_after_the_lock_changed(mirror: Mirror, tmp_path: Path) -> None:
    """The parts of a platform are current for the locked packages of this platform alone."""
    platform, clang = PLATFORMS["s390x"], find_toolchain("clang-19")
    locked = [mirror.locked(mirror.add(name, "1")) for name in ("libgcc-14-dev", "tzdata")]
    lock = make_lock(locked)
    record = {"source": loader_digest(), "compiler": clang.name, "lock": lock.digest("trixie", "s390x")}
    data = make_stand_ins(tmp_path / "data", "s390x", record)

    def made_again(packages: Sequence[LockedPackage]) -> bool:
        request = PartsRequest(
            platforms=(platform,),
            data=data,
            cache=tmp_path / "cache",
            mirror=f"file:{tmp_path}/none",
            lock=make_lock(packages),
        )
        return platform in make_parts(request).failed

    assert not made_again(locked)
    assert not made_again([*locked, replace(locked[0], architecture="arm64")])
    assert made_again([*locked, replace(locked[0], name="libelf-dev")])
    assert made_again([replace(locked[0], sha256="0" * 64), locked[1]])
    assert made_again([locked[0], replace(locked[1], version="2")])


def make_stand_ins(data: Path, arch: str, record: Mapping[str, str]) -> Path:
    """Write stand-ins for all parts of *arch* into directory *data*, each listed with *record*."""
    entry = {}
    for kind in (*LINKED_FROM, "tini", "base"):
        path = part_path(data, kind, arch)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kind.encode())
        entry[kind] = {"sha256": hashlib.sha256(kind.encode()).hexdigest(), **record}
    list_path(data).write_text(json.dumps({"version": 1, "platforms": {arch: entry}}))
    return data


def test_the_lock_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """The file is sorted, and a line that is no package is an error with its number."""
    packages = [
        LockedPackage(suite="trixie", architecture=arch, name=name, version="1:2.3~rc1+b1", sha256="0" * 64)
        for arch, name in (("s390x", "zlib1g-dev"), ("amd64", "zlib1g-dev"), ("amd64", "libc6-dev"))
    ]
    lock = make_lock(packages)
    path = tmp_path / "packages.lock"
    write_lock(path, lock)
    assert read_lock(path) == lock
    lines = path.read_text().splitlines()
    assert lines[3:] == sorted(lines[3:])
    path.write_text("# head\n\ntrixie amd64 x 1 abc\n")
    with pytest.raises(ConfigError, match=r"packages\.lock: line 3: not a locked package"):
        read_lock(path)


def test_the_lock_of_the_project_names_every_package() -> None:
    """The lock names all packages of loaders, tini and base layer for each architecture."""
    from buildtool.core.platforms import DEBIAN_13, PLATFORMS
    from buildtool.runtime import debian

    lock = read_lock()
    for platform in PLATFORMS.values():
        suite, tini = ("trixie", "tini") if platform.arch in DEBIAN_13 else ("sid", "tini-static")
        names = {*debian.CROSS_PACKAGES, *debian.BASE_PACKAGES, "base-files", "linux-libc-dev", tini}
        held = {each.name for each in lock.packages.values() if each.architecture == platform.debian}
        assert names <= held
        assert any(name.startswith("libgcc-") for name in held)
        assert all(lock.find(suite, platform.debian, name) for name in held)
