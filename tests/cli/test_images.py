# SPDX-License-Identifier: Apache-2.0
"""`images prepare` with bad input: one line, the right exit code."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from labs.cli import check_error
from labs.image import make_base
from labs.registry import SmallRegistry, faulty, run_registry

from buildtool.cli.main import run
from buildtool.core.errors import FileAccessError
from buildtool.core.platforms import PLATFORMS
from buildtool.image.docker.prepare import recipe_digest
from buildtool.image.docker.preparedregistry import RegistryStore
from buildtool.oci.registry import push_images
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.write import file_layer, gzip_file_layer, gzip_layer, make_image_set


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--arch", "pdp11"], 2, "unknown architecture 'pdp11'"),
        (["--arch", "loong64"], 2, "Debian 13 has no loong64"),
        (["--push", "tools"], 2, "tools/builder:trixie: the reference names no registry"),
        (
            ["--push", "registry.example/Tools"],
            2,
            "'registry.example/Tools/builder:trixie' is not an image tag",
        ),
        (["--push", "127.0.0.1:9/tools"], 1, "registry 127.0.0.1:9: cannot connect: connection refused"),
        (["--suite", "sarge", "--force"], 2, "unknown suite 'sarge'"),
        (["--mirror", "-x", "--force"], 2, "'-x' is not the URI of a Debian mirror"),
        ([], 1, "no Docker engine answers: unix:///nonexistent/engine.sock: no such file or directory"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bad input results in no traceback, no output on stdout, and no file."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert run(["images", "prepare", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert lines[0].startswith(f"buildtool: error: {message}")
    assert len(lines) <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick_registry")
def test_images_of_others_are_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    """A registry's image of the same name, which no recipe made, ends the command before the slow part."""
    with run_registry() as address:
        push_images(make_base(), f"{address}/tools/builder:trixie")
        before = dict(SmallRegistry.manifests)
        assert run(["images", "prepare", "--push", f"{address}/tools"]) == 1
        assert SmallRegistry.manifests == before
    check_error(capsys, f"{address}/tools/builder:trixie: exists, and is not of images prepare")


def write_prepared(address: str, recipe: str, platforms: str) -> None:
    """Push stand-ins for prepared images of *recipe*."""
    comment = f"buildtool images prepare, recipe {recipe} for {platforms}"
    settings = {"created": "2020-01-01T00:00:00Z", "history": [{"comment": comment}], "config": {}}
    layer = gzip_layer(pack_tar([]))
    images = make_image_set([(PLATFORMS["amd64"], settings, [layer])])
    for name in ("builder", "base"):
        push_images(images, f"{address}/tools/{name}:trixie")


@pytest.mark.usefixtures("quick_registry")
def test_prepared_images_are_found_by_their_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Images of this recipe with all platforms are enough; others are made again."""
    with run_registry() as address:
        write_prepared(address, recipe_digest("trixie"), "linux/amd64 linux/arm64")
        assert run(["images", "prepare", "--push", f"{address}/tools"]) == 0
        output = capsys.readouterr()
        assert "nothing to do, the registry has them" in output.err
        store = RegistryStore(f"{address}/tools", "trixie")
        assert store.find(["riscv64"], "trixie") is None
        write_prepared(address, "0" * 64, "linux/amd64 linux/arm64")
        assert store.find(["amd64"], "trixie") is None
    assert f'base = "{address}/tools/base:trixie@sha256:' in output.err


def test_large_layers_are_sent_from_their_file(tmp_path: Path) -> None:
    """A large layer is compressed into another file and sent from there, also after a broken connection."""
    tar = tmp_path / "root.tar"
    tar.write_bytes(pack_tar([TarEntry(path="x", data=bytes(300_000))]))
    layer = gzip_file_layer(file_layer(tar), tmp_path / "root.tar.gz", 3)
    again = gzip_file_layer(file_layer(tar), tmp_path / "again.tar.gz", 3)
    assert layer.digest == again.digest
    assert layer.diff_id == hashlib.sha256(tar.read_bytes()).hexdigest()
    images = make_image_set([(PLATFORMS["amd64"], {"config": {}}, [layer])])
    for number in (2, 5):  # the uploads of the configuration and of the layer
        with faulty("cut", after=number, times=1) as address:
            push_images(images, f"{address}/x:1")
            assert gzip.decompress(SmallRegistry.blobs[f"sha256:{layer.digest}"]) == tar.read_bytes()
    tar.write_bytes(b"changed")
    with pytest.raises(FileAccessError, match="changed while the image was made"):
        gzip_file_layer(replace(layer, path=tar), tmp_path / "third.tar.gz", 3)
