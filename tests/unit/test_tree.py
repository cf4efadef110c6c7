# SPDX-License-Identifier: Apache-2.0
"""Layers: other tools read written ones, and layers of others are merged as by an engine."""

from __future__ import annotations

import io
import tarfile

import pytest
from labs.image import directory

from buildtool.core.errors import ObjectFormatError, UsageError
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.tree import read_tree, resolve_path
from buildtool.oci.write import full_name


def link(path: str, target: str) -> TarEntry:
    """Make a symbolic link."""
    return TarEntry(path=path, kind=tarfile.SYMTYPE, mode=0o777, target=target)


ENTRIES = (
    directory("usr"),
    TarEntry(path="usr/plain", mode=0o4755, uid=65532, gid=7, mtime=1700000000, data=b"x" * 513),
    TarEntry(path="usr/" + "d" * 60 + "/" + "n" * 60, data=b"prefix"),
    TarEntry(path="usr/" + "n" * 200, data=b"too long for ustar"),
    TarEntry(path="usr/straße", data=b"not ASCII"),
    link("usr/link", "../etc/x"),
    link("usr/far", "t" * 150),
    TarEntry(path="usr/able", mode=0o755, data=b"#!", xattrs={"security.capability": b"\1\0\0\2\n=\xff"}),
)


def test_python_reads_what_we_write() -> None:
    """Names of every length, modes, owners, times, links and attributes survive; the end is two blocks."""
    data = pack_tar(ENTRIES)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [entry.path for entry in ENTRIES]
        for member, entry in zip(members, ENTRIES, strict=True):
            assert (member.type, member.mode, member.uid) == (entry.kind, entry.mode, entry.uid)
            assert (member.gid, member.mtime, member.linkname) == (entry.gid, entry.mtime, entry.target)
            file = tar.extractfile(member) if member.isfile() else None
            assert (file.read() if file else b"") == entry.data
    assert data.endswith(bytes(1024))
    assert len(data) % 512 == 0
    assert pack_tar(ENTRIES) == data


def test_our_reader_gives_back_every_member() -> None:
    """Attributes with any bytes among them."""
    tree = read_tree([io.BytesIO(pack_tar(ENTRIES))], keep=lambda _: True)
    for entry in ENTRIES:
        found = tree[entry.path]
        assert (found.mode, found.data, found.target) == (entry.mode, entry.data, entry.target)
        assert dict(found.xattrs) == dict(entry.xattrs)


@pytest.mark.parametrize("path", ["", "/etc", "../x", "a/../b", "a\0b"])
def test_paths_outside_are_not_written(path: str) -> None:
    """Our own layers cannot have them either."""
    with pytest.raises(UsageError, match="not a path inside an image"):
        pack_tar([TarEntry(path=path)])


def test_numbers_that_do_not_fit_are_refused() -> None:
    """An owner or a time that ustar has no digits for."""
    for entry in (
        TarEntry(path="x", uid=2**22),
        TarEntry(path="x", mtime=8**11),
        TarEntry(path="x", mtime=-1),
    ):
        with pytest.raises(UsageError, match="too large a number"):
            pack_tar([entry])


def test_layers_merge_with_whiteouts() -> None:
    """A file over a directory, a removed file, a directory made anew; a layer's own files stay."""
    lower = [directory("a"), TarEntry(path="a/x"), TarEntry(path="a/y"), directory("b"), TarEntry(path="b/z")]
    lower += [directory("c"), TarEntry(path="c/one")]
    upper = [TarEntry(path="a/.wh.x"), TarEntry(path="b/new"), TarEntry(path="b/.wh..wh..opq")]
    upper += [TarEntry(path="c", data=b"now a file")]
    tree = read_tree([io.BytesIO(pack_tar(lower)), io.BytesIO(pack_tar(upper))])
    assert sorted(tree) == ["a", "a/y", "b", "b/new", "c"]
    assert tree["c"].is_file


def test_hard_links_are_the_file() -> None:
    """A hard link has the bytes of what it names."""
    hard = TarEntry(path="b", kind=tarfile.LNKTYPE, target="a")
    tree = read_tree([io.BytesIO(pack_tar([TarEntry(path="a", data=b"same"), hard]))], keep=lambda _: True)
    assert tree["b"].data == b"same"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/sbin", "usr/sbin"),
        ("/sbin/tini", "usr/sbin/tini"),
        ("up/x", "x"),
        ("abs/../y", "usr/y"),
        ("none/there", "none/there"),
    ],
)
def test_links_are_followed_as_in_a_container(path: str, expected: str) -> None:
    """Nothing leads above the root."""
    entries = [directory("usr"), directory("usr/sbin"), link("sbin", "usr/sbin"), link("up", "../../..")]
    tree = read_tree([io.BytesIO(pack_tar([*entries, link("abs", "/usr/sbin")]))])
    assert resolve_path(tree, path) == expected


@pytest.mark.parametrize("cut", [1, 511, 700, 1100])
def test_cut_layer_is_an_error(cut: int) -> None:
    """Never a shorter tree in silence."""
    data = pack_tar([TarEntry(path="a", data=b"x" * 600), TarEntry(path="b", data=b"y" * 600)])
    with pytest.raises(ObjectFormatError, match="cannot be read"):
        read_tree([io.BytesIO(data[:cut])], keep=lambda _: True)


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("lab", "docker.io/library/lab:latest"),
        ("plant/agent:7", "docker.io/plant/agent:7"),
        ("localhost/x", "localhost/x:latest"),
        ("registry.example:5000/a/b:1", "registry.example:5000/a/b:1"),
    ],
)
def test_names_are_completed_as_engines_do(reference: str, full: str) -> None:
    """full_name returns the name that `docker load` gives the image."""
    assert full_name(reference) == full


def test_kept_data_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files that a caller wants, of all layers together, not each alone."""
    monkeypatch.setattr("buildtool.oci.tree.MAX_KEPT_BYTES", 10)
    layers = [pack_tar([TarEntry(path=f"file{number}", data=b"x" * 6)]) for number in range(2)]
    assert len(read_tree([io.BytesIO(layer) for layer in layers])) == 2
    with pytest.raises(ObjectFormatError, match="more than 10 bytes to look at"):
        read_tree([io.BytesIO(layer) for layer in layers], keep=lambda _: True)
