# SPDX-License-Identifier: Apache-2.0
"""Archives of images: what another reader finds in them, and that they repeat."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from buildtool.core.errors import FileAccessError
from buildtool.core.platforms import find_platform
from buildtool.oci.write import (
    ImageSet,
    Layer,
    file_layer,
    gzip_layer,
    make_image_set,
    put_all,
    put_layout,
    write_archive,
    write_directory,
)


def make_images(**layers: list[Layer]) -> ImageSet:
    """Describe images, of *layers* of each architecture."""
    settings = {"config": {"User": "1"}, "created": "1970-01-02T00:00:00Z"}
    return make_image_set([(find_platform(arch), settings, own) for arch, own in layers.items()])


def read_blobs(path: Path) -> dict[str, bytes]:
    """Read every member of the archive."""
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isreg()}  # type: ignore[union-attr]


def test_every_blob_is_named_by_its_digest_and_referenced_with_its_size(tmp_path: Path) -> None:
    """Walking from index.json reaches every blob once, and each has the digest and size it is named with."""
    large = tmp_path / "layer.tar"
    large.write_bytes(b"t" * 70000)
    images = make_images(arm64=[file_layer(large), gzip_layer(b"small")], amd64=[])
    write_archive(tmp_path / "a.tar", images, "example.test/a:1")
    blobs = read_blobs(tmp_path / "a.tar")
    reached = set()

    def walk(descriptor: dict[str, object]) -> None:
        name = f"blobs/{str(descriptor['digest']).replace(':', '/')}"
        data = blobs[name]
        assert len(data) == descriptor["size"]
        assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]
        reached.add(name)
        if str(descriptor["mediaType"]).endswith(("index.v1+json", "manifest.v1+json")):
            node = json.loads(data)
            for child in [
                *node.get("manifests", []),
                *node.get("layers", []),
                *filter(None, [node.get("config")]),
            ]:
                walk(child)

    for manifest in json.loads(blobs["index.json"])["manifests"]:
        walk(manifest)
    assert reached == {name for name in blobs if name.startswith("blobs/")}


def test_an_index_names_every_platform_with_its_variant(tmp_path: Path) -> None:
    """BuildKit selects by architecture and variant."""
    images = make_images(arm=[], s390x=[])
    write_archive(tmp_path / "a.tar", images, "x")
    index = json.loads(read_blobs(tmp_path / "a.tar")[f"blobs/sha256/{images.top.digest}"])
    assert [m["platform"] for m in index["manifests"]] == [
        {"architecture": "arm", "os": "linux", "variant": "v7"},
        {"architecture": "s390x", "os": "linux"},
    ]


def test_same_input_gives_the_same_archive(tmp_path: Path) -> None:
    """The time is not in the bytes, and neither is how a layer is kept."""
    (tmp_path / "layer.tar").write_bytes(b"t" * 70000)
    kept = file_layer(tmp_path / "layer.tar")
    held = replace(kept, data=b"t" * 70000, path=None)
    for name, layer in (("1", kept), ("2", held)):
        write_archive(tmp_path / name, make_images(amd64=[layer, gzip_layer(b"x")]), "a:1")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_layer_that_changed_is_no_image(tmp_path: Path) -> None:
    """The file may be another one since its digest was taken; no archive is left."""
    layer = tmp_path / "layer.tar"
    layer.write_bytes(b"t" * 70000)
    images = make_images(amd64=[file_layer(layer)])
    for data in (b"u" * 70000, b"t" * 70001, b""):
        layer.write_bytes(data)
        with pytest.raises(FileAccessError, match="changed while the image was made"):
            write_archive(tmp_path / "a.tar", images, "a:1")
        assert list(tmp_path.iterdir()) == [layer]


def test_a_gzip_layer_tells_both_digests() -> None:
    """The manifest names the compressed bytes, the configuration the plain ones."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w"):
        pass
    layer = gzip_layer(buffer.getvalue())
    assert layer.data is not None
    assert gzip.decompress(layer.data) == buffer.getvalue()
    assert layer.digest == hashlib.sha256(layer.data).hexdigest()
    assert layer.diff_id == hashlib.sha256(buffer.getvalue()).hexdigest()


def test_a_missing_layer_and_an_unwritable_archive_are_errors(tmp_path: Path) -> None:
    """No OSError leaves the module."""
    with pytest.raises(FileAccessError, match="cannot read"):
        file_layer(tmp_path / "none")
    with pytest.raises(FileAccessError, match="cannot write"):
        write_archive(tmp_path / "none" / "a.tar", make_images(amd64=[]), "x")


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".hidden",
        "blobs/notes.txt",
        "blobs/sha256/notes.txt",
        "blobs/sha256/ab/cd",
        "ingest/key.pem",
        "manifest.json/x",
        "photos/",
    ],
)
def test_a_layout_with_a_file_of_somebody_else_is_not_replaced(tmp_path: Path, name: str) -> None:
    """A layout with a foreign file is not replaced, and nothing in it changes."""
    place = tmp_path / "layout"
    write_directory(place, make_images(amd64=[]), "a:1")
    other = place / name
    (other if name.endswith("/") else other.parent).mkdir(parents=True, exist_ok=True)
    if not name.endswith("/"):
        other.write_text("mine")
    before = sorted(place.rglob("*"))
    with pytest.raises(FileAccessError, match=r"not replaced: .* is not part of an OCI layout") as caught:
        write_directory(place, make_images(amd64=[]), "a:1", replace=True)
    assert caught.value.hint
    assert sorted(place.rglob("*")) == before
    assert list(tmp_path.iterdir()) == [place]


def test_a_file_that_comes_during_the_build_stays_too(tmp_path: Path) -> None:
    """A foreign file that is added between the check and the exchange is kept, and the exchange undone."""
    place, new, old = (tmp_path / name for name in ("layout", "new", "old"))
    write_directory(place, make_images(amd64=[]), "a:1")
    write_directory(new, make_images(arm64=[]), "a:1")
    (place / "notes.txt").write_text("mine")
    with pytest.raises(FileAccessError, match=r"not replaced: notes\.txt"):
        put_layout(new, place, old)
    assert (place / "notes.txt").read_text() == "mine"
    assert not old.exists()


def test_a_layout_of_other_tools_is_replaced(tmp_path: Path) -> None:
    """Files of `docker save`, BuildKit's directory ingest and other digests are parts of a layout."""
    place = tmp_path / "layout"
    write_directory(place, make_images(amd64=[]), "a:1")
    for name in ("manifest.json", "repositories", "blobs/sha512/" + "ab" * 64):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("{}")
    (place / "ingest").mkdir()
    write_directory(place, make_images(amd64=[]), "a:1", replace=True)
    assert sorted(path.name for path in place.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_all_are_renamed_or_none(tmp_path: Path) -> None:
    """A file and a layout that were there return when a later rename fails; new ones disappear."""
    work = tmp_path / "work"
    work.mkdir()
    images = make_images(amd64=[gzip_layer(bytes(1024))])
    (tmp_path / "file").write_text("old")
    write_directory(tmp_path / "layout", images, "old:1")
    before = (tmp_path / "layout/index.json").read_bytes()
    names = ("file", "layout", "new")
    for name in names:
        if name == "layout":
            write_directory(work / name, images, "new:1")
        else:
            (work / name).write_text("new")
    places = {work / name: tmp_path / name for name in names}
    with pytest.raises(FileAccessError, match="missing: cannot write"):
        put_all({**places, work / "none": tmp_path / "missing"}, work)
    assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "layout/index.json").read_bytes() == before
    assert not (tmp_path / "new").exists()


def test_all_are_renamed(tmp_path: Path) -> None:
    """What was there is replaced."""
    work = tmp_path / "work"
    work.mkdir()
    for name in ("a", "b"):
        (work / name).write_text(f"new {name}")
    (tmp_path / "b").write_text("old")
    put_all({work / "a": tmp_path / "a", work / "b": tmp_path / "b"}, work)
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["new a", "new b"]
