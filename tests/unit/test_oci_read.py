# SPDX-License-Identifier: Apache-2.0
"""Images whose documents have other forms than they should: read, or one kind of error."""

from __future__ import annotations

import copy
import hashlib
import json
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from labs.image import base_of_layers

from buildtool.core.cache import Cache
from buildtool.core.errors import BuildtoolError, ObjectFormatError
from buildtool.core.platforms import find_platform
from buildtool.image.compare import read_image_contents
from buildtool.image.inspect import inspect_stored
from buildtool.image.local.baseimage import load_base
from buildtool.image.metadata import OBJECTS_DIRECTORY
from buildtool.oci.read import Descriptor, open_layer, open_layout, read_descriptor, read_images
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.tree import read_tree
from buildtool.oci.write import (
    MEDIA_INDEX,
    Document,
    encode_document,
    gzip_layer,
    layer_bytes,
    make_image_set,
    write_directory,
)
from buildtool.publish.inventory import list_image

AMD64 = find_platform("amd64")
OTHERS: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**70,
    1.5,
    "x",
    [],
    {},
    ["x"],
    {"x": 1},
    [None],
    "sha256:" + "0" * 64,
)


def documents() -> tuple[bytes, dict[str, Any]]:
    """Return a layer, and the documents of an image that has it, each with its references still open."""
    layer = gzip_layer(pack_tar([TarEntry(path="bin", data=b"x")]))
    assert isinstance(layer.data, bytes)
    run = {"Env": ["A=b"], "Labels": {"a": "b"}, "Entrypoint": ["/bin"], "User": "0"}
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}"]},
        "history": [{"comment": "x"}],
    }
    described = {"mediaType": layer.media_type, "digest": f"sha256:{layer.digest}", "size": layer.size}
    manifest = {"schemaVersion": 2, "layers": [described]}
    return layer.data, {"config": config, "manifest": manifest, "index": {"schemaVersion": 2}, "top": {}}


def write(directory: Path, layer: bytes, parts: dict[str, Any]) -> None:
    """Write the layout, with every reference to what the part has become."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    kinds = {"config": "config.v1+json", "manifest": "manifest.v1+json", "index": "index.v1+json"}

    def put(name: str) -> dict[str, Any]:
        data = json.dumps(parts[name]).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        kind = f"application/vnd.oci.image.{kinds[name]}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    (blobs / hashlib.sha256(layer).hexdigest()).write_bytes(layer)
    if isinstance(parts["manifest"], dict):
        parts["manifest"].setdefault("config", put("config"))
    if isinstance(parts["index"], dict):
        platform = {"os": "linux", "architecture": "amd64"}
        parts["index"].setdefault("manifests", [{**put("manifest"), "platform": platform}])
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"manifests": [put("index")], **parts["top"]}))


def changed(value: Any) -> Iterator[Any]:
    """Yield *value* with each of its parts, at any depth, as something else, or left out."""
    yield from OTHERS
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for other in changed(value[key]):
            copied = copy.copy(value)
            copied[key] = other
            yield copied
        without = copy.copy(value)
        del without[key]
        yield without


def read_all(directory: Path) -> None:
    """Read all parts of an image that a build and a check read."""
    with open_layout(directory) as source:
        for image in read_images(source):
            read_tree([open_layer(source, layer) for layer in image.layers])
        base = load_base(source, "base", AMD64, Cache(directory=None))
        assert base.config["rootfs"]["diff_ids"]


@pytest.mark.parametrize("name", ["config", "manifest", "index", "top"])
def test_documents_of_any_form(name: str, tmp_path: Path) -> None:
    """Documents of any form result in errors of the tool, and no other exception."""
    layer, parts = documents()
    whole = copy.deepcopy(parts)
    write(tmp_path, layer, whole)
    read_all(tmp_path)
    # With its references, so that they are changed, too.
    whole["top"] = {"manifests": json.loads((tmp_path / "index.json").read_text())["manifests"]}
    refused = 0
    for other in changed(whole[name]):
        if name == "top" and not isinstance(other, dict):
            continue
        write(tmp_path, layer, {**copy.deepcopy(parts), name: other})
        try:
            read_all(tmp_path)
        except BuildtoolError:
            refused += 1
    assert refused > 20


LAYERS, LAYER_BYTES = 24, 2 * 1024 * 1024


@pytest.fixture(scope="module")
def many_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the layout of an image of many layers, which compression makes no smaller, and of one object."""
    directory = tmp_path_factory.mktemp("layers") / "image"
    data = hashlib.shake_256(b"layers").digest(LAYER_BYTES)
    layers = [
        gzip_layer(pack_tar([TarEntry(path=f"data{number}", data=data)]), level=1) for number in range(LAYERS)
    ]
    name = f"{OBJECTS_DIRECTORY.strip('/')}/x.bpf.o"
    layers.append(gzip_layer(pack_tar([TarEntry(path=name, data=b"not an object")])))
    write_directory(directory, base_of_layers(layers, ["amd64"]), "x:1")
    return directory


@pytest.mark.parametrize("read", [read_image_contents, inspect_stored, partial(list_image, name="x")])
def test_layers_are_held_one_after_the_other(many_layers: Path, read: Callable[[Any], Any]) -> None:
    """An image of many large layers needs the memory of few of them, whatever looks at it."""
    with open_layout(many_layers) as source:
        tracemalloc.start()
        try:
            found = read(source)
            list(found if isinstance(found, Iterable) else [found])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < LAYERS * LAYER_BYTES / 2


@dataclass
class Memory:
    """A source of *documents*, blobs by digest, of which *top_document* is the first. It counts fetches."""

    top_document: Document
    documents: dict[str, bytes]
    fetched: int = 0
    name: str = "x"

    def top(self) -> Descriptor:
        """Return the descriptor of the first document."""
        return read_descriptor(self.top_document.descriptor)

    def fetch(self, wanted: Descriptor) -> bytes:
        """Return the blob."""
        self.fetched += 1
        return self.documents[wanted.digest]


@pytest.mark.parametrize("leaf", [[], "image"])
def test_indexes_that_name_each_other_many_times(leaf: Any) -> None:
    """A few small documents stand for a billion images, or for none: reading ends early."""
    images = make_image_set([(AMD64, {}, [gzip_layer(pack_tar([]))])])
    entries = [images.top.descriptor] if leaf else []
    found = {document.digest: document.data for document in (*images.manifests, images.top)}
    found |= {str(digest): data for digest, data in images.blobs().items() if isinstance(data, bytes)}
    for _ in range(4):
        content = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries}
        index = encode_document(MEDIA_INDEX, content)
        found[index.digest] = index.data
        entries = [index.descriptor] * 300
    source = Memory(index, found)
    with pytest.raises(ObjectFormatError, match="more than 1000 images and image indexes"):
        read_images(source)
    assert source.fetched <= 2 * 1000


def test_objects_of_all_platforms_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each platform's image may have as many objects as fit, but not all of them together."""
    layer = gzip_layer(pack_tar([TarEntry(path=f"{OBJECTS_DIRECTORY[1:]}/a.bpf.o", data=b"x" * 600)]))
    images = make_image_set([(AMD64, {}, [layer]), (find_platform("arm64"), {}, [layer])])
    found = {document.digest: document.data for document in (*images.manifests, images.top)}
    found |= {
        str(digest): data if isinstance(data, bytes) else layer_bytes(data)
        for digest, data in images.blobs().items()
    }
    assert len(list(inspect_stored(Memory(images.top, found)))) == 2
    monkeypatch.setattr("buildtool.image.inspect.MAX_OBJECTS_BYTES", 1000)
    with pytest.raises(ObjectFormatError, match="objects of more than 1000 bytes"):
        list(inspect_stored(Memory(images.top, found)))
