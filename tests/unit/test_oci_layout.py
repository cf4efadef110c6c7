# SPDX-License-Identifier: Apache-2.0
"""Archives of images: what another reader finds in them, and that they repeat."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from buildtool.core.errors import FileAccessError
from buildtool.core.platforms import find_platform
from buildtool.oci import layout as ocilayout
from buildtool.oci.layout import PlatformImage


def make_image(arch: str, *layers: ocilayout.Layer) -> PlatformImage:
    """Describe an image of *arch* with *layers*."""
    return PlatformImage(platform=find_platform(arch), layers=layers, config={"User": "1"}, created=86400)


def read_blobs(path: Path) -> dict[str, bytes]:
    """Read every member of the archive."""
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def test_every_blob_is_named_by_its_digest_and_referenced_with_its_size(tmp_path: Path) -> None:
    """Walking from index.json reaches every blob once, and each has the digest and size it is named with."""
    large = tmp_path / "layer.tar"
    large.write_bytes(b"t" * 70000)
    image = make_image("arm64", ocilayout.file_layer(large), ocilayout.gzip_layer(b"small"))
    ocilayout.write_archive(tmp_path / "a.tar", {"example.test/a:1": [image, make_image("amd64")]})
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
    digests = ocilayout.write_archive(tmp_path / "a.tar", {"x": [make_image("arm"), make_image("s390x")]})
    index = json.loads(read_blobs(tmp_path / "a.tar")[f"blobs/sha256/{digests['x']}"])
    assert [m["platform"] for m in index["manifests"]] == [
        {"architecture": "arm", "os": "linux", "variant": "v7"},
        {"architecture": "s390x", "os": "linux"},
    ]


def test_same_input_gives_the_same_archive(tmp_path: Path) -> None:
    """Neither the time nor the order of references is in the bytes."""
    images = {name: [make_image("amd64", ocilayout.gzip_layer(name.encode()))] for name in ("b", "a")}
    ocilayout.write_archive(tmp_path / "1.tar", images)
    ocilayout.write_archive(tmp_path / "2.tar", dict(reversed(images.items())))
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_a_gzip_layer_tells_both_digests() -> None:
    """The manifest names the compressed bytes, the configuration the plain ones."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w"):
        pass
    layer = ocilayout.gzip_layer(buffer.getvalue())
    assert layer.data is not None
    assert gzip.decompress(layer.data) == buffer.getvalue()
    assert layer.digest == hashlib.sha256(layer.data).hexdigest()
    assert layer.diff_id == hashlib.sha256(buffer.getvalue()).hexdigest()


def test_a_missing_layer_and_an_unwritable_archive_are_errors(tmp_path: Path) -> None:
    """No OSError leaves the module."""
    with pytest.raises(FileAccessError, match="cannot read"):
        ocilayout.file_layer(tmp_path / "none")
    with pytest.raises(FileAccessError, match="cannot write"):
        ocilayout.write_archive(tmp_path / "none" / "a.tar", {"x": []})
