# SPDX-License-Identifier: Apache-2.0
"""A project, a base and stand-ins for loader and tini: what the embedded engine builds from."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from buildtool.core.platforms import PLATFORMS
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.write import ImageSet, Layer, gzip_layer, make_image_set, write_archive
from buildtool.runtime.carried import list_path, loader_digest, part_path

SOURCE = """\
#include "answer.h"
__attribute__((section("socket"), used)) int answer(void *context) { return ANSWER + sizeof(long); }
char LICENSE[] __attribute__((section("license"), used)) = "GPL";
"""
CONFIG = """\
[project]
name = "plant/agent"
version = 3
release = "1.2.0"
[compile]
include = ["include"]
[sign]
key = "keys/dev.pem"
[images]
base = "oci-layout://base.tar"
"""
EPOCH = "1700000000"


def directory(path: str, **more: int) -> TarEntry:
    """Make a directory of a layer."""
    return TarEntry(path=path, kind=tarfile.DIRTYPE, **{"mode": 0o755, "mtime": 1600000000, **more})


BASE = (
    directory("etc"),
    TarEntry(path="etc/passwd", data=b"root:x:0:0::/:\n", mtime=1600000000),
    TarEntry(path="sbin", kind=tarfile.SYMTYPE, target="usr/sbin", mode=0o777, mtime=1600000000),
    directory("usr"),
    directory("usr/bin"),
    directory("usr/sbin", mode=0o750, uid=3, gid=4),
)


def make_base(
    entries: Sequence[TarEntry] = BASE, architectures: Sequence[str] = ("amd64", "arm64")
) -> ImageSet:
    """Return an image of one layer with *entries*."""
    return base_of_layers([gzip_layer(pack_tar(entries))], architectures)


def base_of_layers(layers: Sequence[Layer], architectures: Sequence[str] = ("amd64", "arm64")) -> ImageSet:
    """Return an image of *layers*."""
    settings = {
        "created": "2020-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/bin"], "Cmd": ["/bin/sh"], "Labels": {"org.example.base": "yes"}},
        "history": [{"comment": "base"} for _ in layers],
    }
    return make_image_set([(PLATFORMS[arch], settings, layers) for arch in architectures])


def make_parts(root: Path, architectures: Sequence[str], *, base: bool = False) -> Path:
    """Write stand-ins for loader, tini and, if asked for, *base*, as `make loaders` would."""
    entries: dict[str, dict[str, dict[str, str]]] = {}
    for arch in architectures:
        entries[arch] = {}
        for kind in ("loader", "tini", *(("base",) if base else ())):
            path = part_path(root, kind, arch)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{kind} of {arch}\n".encode() * 1000)
            entries[arch][kind] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        entries[arch]["loader"]["source"] = loader_digest()
    list_path(root).write_text(json.dumps({"version": 1, "platforms": entries}))
    return root


def make_local_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a project that builds without Docker, and make it the working directory."""
    for name, text in {
        "bpf/answer.bpf.c": SOURCE,
        "include/answer.h": "#define ANSWER 42\n",
        "buildtool.toml": CONFIG,
    }.items():
        path = root / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_archive(root / "project/base.tar", make_base(), "base:1")
    key = root / "project/keys/dev.pem"
    key.parent.mkdir()
    private = Ed25519PrivateKey.generate()
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    monkeypatch.chdir(root / "project")
    monkeypatch.setenv("BUILDTOOL_LOADERS", str(make_parts(root / "parts", list(PLATFORMS))))
    monkeypatch.setenv("BUILDTOOL_CACHE", str(root / "cache"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    if clang := shutil.which("clang-19"):
        monkeypatch.setenv("BUILDTOOL_CLANG", clang)
    return root / "project"
