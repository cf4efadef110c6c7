# SPDX-License-Identifier: Apache-2.0
"""Kernels by name and by file: fetched once for all processes, and one error line for each fault."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from buildtool.check.vm import kernels
from buildtool.check.vm.kernels import SUITES, find_kernel, has_kernel, is_static
from buildtool.core.cache import tools_directory
from buildtool.core.errors import (
    BuildtoolError,
    ConfigError,
    FileAccessError,
    PackageUnavailableError,
    ToolFailedError,
    ToolMissingError,
    UsageError,
    VmError,
)
from buildtool.core.platforms import MACHINES, PLATFORMS
from buildtool.core.process import Completed, Runner
from buildtool.runtime.debian import Archive

RELEASE = "6.12.1+deb13-cloud-amd64"
OLDER = "6.12.0+deb13-cloud-amd64"
# A static program's first bytes are all that is looked at.
STATIC = b"\x7fELF" + bytes(60)
DEPENDS = {
    "linux-image-cloud-amd64": f"linux-image-{RELEASE} (= 6.12.1-1)",
    f"linux-image-{RELEASE}": "kmod, linux-base (>= 4.3~), linux-initramfs-tool | x, linux-modules-a (= 1)",
    "linux-modules-a": "",
    f"linux-image-{OLDER}": "",
    "busybox-static": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeApt(Runner):
    """A fake archive: the answers of apt-get, apt-cache and dpkg-deb that the code needs."""

    calls: list[list[str]] = field(default_factory=list)
    fails: str = ""
    said: bytes = b""
    delay: float = 0
    between_releases: bool = False  # the pool lacks this suite's kernel, its alias has the one before
    codename: str = "trixie"

    def run(self, argv: Sequence[str], *, cwd: Path | None = None, **_: Any) -> Completed:
        """Answer, or fail at the program that is told to."""
        words = [word for word, before in zip(argv, ["", *argv], strict=False) if "-o" not in (word, before)]
        self.calls.append(words)
        if self.fails and self.fails in words:
            return Completed(returncode=100, stdout=b"", stderr=self.said)
        stdout, depends = "", DEPENDS
        state = Path(next((word.partition("=")[2] for word in argv if word.startswith("Dir::State=")), ""))
        if state.name == "alias":
            depends = {**DEPENDS, "linux-image-cloud-amd64": f"linux-image-{OLDER}"}
            del depends[f"linux-image-{RELEASE}"]
        elif self.between_releases and f"linux-image-{RELEASE}=1" in words:
            said = f"E: Failed to fetch http://mirror.test/pool/linux-image-{RELEASE}_1.deb  404  Not Found"
            return Completed(returncode=100, stdout=b"", stderr=said.encode())
        if words[0] == "apt-cache":
            stdout = "Package: older\n\n"
            for name in reversed([word for word in words if word in depends]):
                digest = hashlib.sha256(name.encode()).hexdigest()
                fields = f"Package: {name}\nVersion: 1\nSHA256: {digest}\nDepends: {depends[name]}\n"
                stdout = f"{fields}\n{stdout}"
        elif "indextargets" in words:
            stdout = f"{self.codename}\n"
        elif "download" in words:
            time.sleep(self.delay)
            for wanted in words[words.index("download") + 1 :]:
                assert cwd is not None
                name = wanted.removesuffix("=1")
                (cwd / f"{name}_1_amd64.deb").write_text(name)
        elif words[0] == "dpkg-deb":
            self._unpack(Path(words[2]).read_text(), Path(words[3]))
        return Completed(returncode=0, stdout=stdout.encode(), stderr=b"")

    @staticmethod
    def _unpack(name: str, tree: Path) -> None:
        files = {
            "busybox-static": {"usr/bin/busybox": STATIC, "usr/share/doc/busybox": b"text"},
            f"linux-image-{RELEASE}": {f"boot/vmlinuz-{RELEASE}": b"kernel", "boot/config": b"y"},
            f"linux-image-{OLDER}": {
                f"boot/vmlinuz-{OLDER}": b"older",
                f"usr/lib/modules/{OLDER}/kernel/veth.ko": b"module",
            },
            "linux-modules-a": {f"usr/lib/modules/{RELEASE}/kernel/veth.ko": b"module"},
        }
        for path, data in files.get(name, {}).items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)

    def count(self, word: str) -> int:
        """Return how many calls had *word*."""
        return sum(word in call for call in self.calls)


@pytest.fixture(autouse=True)
def _mirror(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = tmp_path_factory.mktemp("keys") / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(kernels, "find_system_mirror", lambda: "http://mirror.test/debian")
    monkeypatch.setattr(kernels, "Archive", partial(Archive, keyring=keyring))


def left(cache: Path) -> list[str]:
    """Return what is in *cache* besides locks."""
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def test_kernel_is_what_its_packages_come_down_to(tmp_path: Path) -> None:
    """Names of names are followed; image, modules and busybox are kept, everything else is not."""
    apt, told = FakeApt(), list[str]()
    kernel = find_kernel("6.12", "linux/amd64", tmp_path, told.append, runner=apt)
    assert (kernel.name, kernel.arch, kernel.release) == ("6.12", "amd64", RELEASE)
    assert kernel.image.read_bytes() == b"kernel"
    assert kernel.modules is not None
    assert (kernel.modules / "kernel/veth.ko").read_bytes() == b"module"
    assert kernel.busybox.read_bytes() == STATIC
    assert told == [
        "read the package lists of Debian trixie for amd64",
        f"download linux-image-{RELEASE}",
        "download busybox-static",
    ]
    assert left(tmp_path) == ["kernel-trixie-amd64"]
    place = tmp_path / "kernel-trixie-amd64"
    assert sorted(path.name for path in place.iterdir()) == [RELEASE, "busybox", "kernel.json", "vmlinuz"]


def test_a_pool_without_the_kernel_gives_that_of_the_alias(tmp_path: Path) -> None:
    """A mirror between two point releases still has the kernel of the one before, under another name."""
    told: list[str] = []
    apt = FakeApt(between_releases=True)
    kernel = find_kernel("6.12", "amd64", tmp_path, told.append, runner=apt)
    assert (kernel.release, kernel.image.read_bytes()) == (OLDER, b"older")
    assert (
        f"Debian trixie amd64: cannot download linux-image-{RELEASE}: 404 not found;"
        " read the package lists of the alias stable"
    ) in told
    assert (
        f"Debian trixie amd64: use the alias stable: linux-image-cloud-amd64 1, linux-image-{OLDER} 1" in told
    )
    apt = FakeApt(between_releases=True, codename="forky")
    with pytest.raises(PackageUnavailableError, match=f"cannot download linux-image-{re.escape(RELEASE)}"):
        find_kernel("6.12", "amd64", tmp_path / "other", runner=apt)
    assert left(tmp_path / "other") == []


def test_second_time_asks_nobody(tmp_path: Path) -> None:
    """A cached kernel is found without network and apt."""
    first = find_kernel("6.12", "amd64", tmp_path, runner=FakeApt())
    apt = FakeApt()
    assert find_kernel("6.12", "amd64", tmp_path, runner=apt) == first
    assert apt.calls == []


def test_many_at_once_fetch_once(tmp_path: Path) -> None:
    """Parallel processes wait with a message, and use the kernel that the first one fetched."""
    apt, told, found = FakeApt(delay=0.2), list[str](), list[object]()
    threads = [
        threading.Thread(
            target=lambda: found.append(find_kernel("6.12", "amd64", tmp_path, told.append, runner=apt))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(str, found))) == 1
    assert len(found) == 4
    assert apt.count("update") == 1
    assert "wait for another process that fetches kernel-trixie-amd64" in told


@pytest.mark.parametrize(
    ("fails", "said", "message"),
    [
        (
            "update",
            b"E: Failed to fetch http://mirror.test/x",
            r"no packages from http://mirror\.test/debian",
        ),
        ("download", b"write: No space left on device", r"no space left below"),
        ("apt-cache", b"E: No packages found", r"Debian trixie amd64 has no package of that name"),
        ("update", b"E: Unable to locate package linux-x", r"has no package linux-x"),
        ("dpkg-deb", b"broken", r"dpkg-deb failed \(trixie amd64\)"),
    ],
)
def test_failure_is_one_line_and_leaves_nothing(
    tmp_path: Path, fails: str, said: bytes, message: str
) -> None:
    """No half of a kernel is ever found by the next run, which tries again."""
    with pytest.raises(ToolFailedError, match=message):
        find_kernel("6.12", "amd64", tmp_path, runner=FakeApt(fails=fails, said=said))
    assert left(tmp_path) == []
    assert find_kernel("6.12", "amd64", tmp_path, runner=FakeApt()).release == RELEASE


def test_without_apt_the_hint_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system a kernel can be named by its file."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissingError, match="apt-get: not found") as caught:
        find_kernel("6.12", "amd64", tmp_path)
    assert "name a kernel's file" in (caught.value.hint or "")


def test_without_a_mirror_the_hint_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Debian machine: the same way out."""

    def fail() -> str:
        raise ConfigError("this is not a Debian system, so its package mirror is unknown", hint="--mirror")

    monkeypatch.setattr(kernels, "find_system_mirror", fail)
    with pytest.raises(ConfigError, match="not a Debian system") as caught:
        find_kernel("6.12", "amd64", tmp_path, runner=FakeApt())
    assert "otherwise name a file" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["6.13", "", "latest"])
def test_unknown_name_lists_the_known(tmp_path: Path, name: str) -> None:
    """A name is one of three, or a file."""
    with pytest.raises(UsageError, match=f"unknown kernel '{name}'") as caught:
        find_kernel(name, "amd64", tmp_path)
    assert "host, 6.1, 6.12, newest" in (caught.value.hint or "")


def test_kernel_that_debian_does_not_have(tmp_path: Path) -> None:
    """Not every release has every architecture."""
    with pytest.raises(UsageError, match=r"Debian has no kernel 6\.1 for riscv64") as caught:
        find_kernel("6.1", "riscv64", tmp_path)
    assert caught.value.hint == "choose from 6.12, newest"
    with pytest.raises(UsageError, match="unknown architecture"):
        find_kernel("6.1", "sparc", tmp_path)
    assert {name for name in SUITES if has_kernel(name, "loong64")} == {"newest"}
    assert MACHINES.keys() == PLATFORMS.keys()


def test_file_is_taken_as_it_is(tmp_path: Path) -> None:
    """A kernel image of one's own, with a busybox for its architecture from Debian."""
    image = tmp_path / "bzImage"
    image.write_bytes(bytes(0x38) + b"ARMd" + bytes(4096))
    modules = tmp_path / "6.15.0-mine"
    modules.mkdir()
    apt = FakeApt()
    kernel = find_kernel(str(image), "arm64", tmp_path / "cache", modules=modules, runner=apt)
    assert (kernel.image, kernel.modules, kernel.release) == (image, modules, "6.15.0-mine")
    assert kernel.busybox == tmp_path / "cache/busybox-arm64/busybox"
    again = find_kernel(str(image), "arm64", tmp_path / "cache", runner=apt)
    assert (again.release, again.modules) == ("", None)
    assert apt.count("download") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read: no such file"),
        (b"", "not a kernel image"),
        (b"# README\n" * 1000, "not a kernel image"),
        (bytes(4096), "not a kernel image"),
        (b"\x9f\xeb\x01\0" + bytes(4096), "BTF, not a kernel image"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\1\0\xf7\0" + bytes(4096), "not a kernel image"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\1\0\x3e\0" + bytes(4096), "not a kernel image"),
        (b"\x7fELF", "not a kernel image"),
    ],
    ids=["missing", "empty", "text", "zeros", "btf", "object", "module", "cut"],
)
def test_file_that_is_no_kernel(tmp_path: Path, content: bytes | None, message: str) -> None:
    """A file that is missing or no kernel is an error before anything is fetched."""
    path = tmp_path / "bzImage"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileAccessError, match=message):
        find_kernel(str(path), "amd64", tmp_path / "cache", runner=FakeApt())
    assert not (tmp_path / "cache").exists()


ELF = b"\x7fELF\x02"


@pytest.mark.parametrize(
    ("arch", "at", "magic"),
    [
        ("amd64", 0x202, b"HdrS"),
        ("arm64", 0x38, b"ARMd"),
        ("arm", 0x24, bytes.fromhex("18286f01")),
        ("riscv64", 0x38, b"RSC\5"),
        ("s390x", 0, bytes.fromhex("0008000080000200")),
        ("ppc64le", 0, ELF + b"\1" + bytes(12) + b"\x15\0"),
        ("s390x", 0, ELF + b"\2" + bytes(12) + b"\0\x16"),
    ],
)
def test_image_of_another_architecture(tmp_path: Path, arch: str, at: int, magic: bytes) -> None:
    """An image of another architecture is an error before the emulator starts."""
    path = tmp_path / "image"
    path.write_bytes(bytes(at) + magic + bytes(4096))
    apt = FakeApt()
    assert find_kernel(str(path), arch, tmp_path / "cache", runner=apt).image == path
    with pytest.raises(UsageError, match=f"image: a kernel for {arch}, not for loong64$"):
        find_kernel(str(path), "loong64", tmp_path / "cache", runner=apt)


def test_file_that_would_block(tmp_path: Path) -> None:
    """A FIFO or a device is refused without blocking."""
    os.mkfifo(tmp_path / "bzImage")
    for path in (tmp_path / "bzImage", tmp_path, Path("/dev/zero")):
        with pytest.raises(FileAccessError, match=r"not a regular file|a directory, not a file"):
            find_kernel(str(path), "amd64", tmp_path / "cache", runner=FakeApt())


def test_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    """A damaged record in the cache is an error whose hint names the remedy."""
    find_kernel("6.12", "amd64", tmp_path, runner=FakeApt())
    (tmp_path / "kernel-trixie-amd64/kernel.json").write_text("{}")
    with pytest.raises(FileAccessError, match="kernel-trixie-amd64: damaged") as caught:
        find_kernel("6.12", "amd64", tmp_path, runner=FakeApt())
    assert "rm -r" in (caught.value.hint or "")


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the directory should be."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(BuildtoolError, match="cache: cannot"):
        find_kernel("6.12", "amd64", tmp_path / "cache", runner=FakeApt())


def test_package_that_is_laid_out_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel package with another layout is an error, and nothing stays in the cache."""
    monkeypatch.setattr(FakeApt, "_unpack", staticmethod(lambda *_: None))
    with pytest.raises(VmError, match="static busybox"):
        find_kernel("6.12", "amd64", tmp_path, runner=FakeApt())
    assert left(tmp_path) == []


def test_cache_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """BUILDTOOL_CACHE, then XDG_CACHE_HOME; each counts when it is absolute."""
    monkeypatch.setenv("HOME", "/home/user")
    assert tools_directory({"XDG_CACHE_HOME": "/c"}) == Path("/c/buildtool/vm")
    assert tools_directory({"XDG_CACHE_HOME": "c"}) == Path("/home/user/.cache/buildtool/vm")
    assert tools_directory({}) == Path("/home/user/.cache/buildtool/vm")
    environ = {"BUILDTOOL_CACHE": "/b", "XDG_CACHE_HOME": "/c"}
    assert tools_directory(environ) == Path("/b/vm")
    assert tools_directory({**environ, "BUILDTOOL_CACHE": "b"}) == Path("/c/buildtool/vm")


def test_static_is_without_an_interpreter(tmp_path: Path) -> None:
    """A busybox with a dynamic linker would not start in the machine."""
    path = tmp_path / "busybox"
    assert not is_static(path)
    for data, expected in ((STATIC, True), (STATIC + b"/lib64/ld-linux-x86-64.so.2", False), (b"#!", False)):
        path.write_bytes(data)
        assert is_static(path) == expected
