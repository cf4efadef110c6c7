# SPDX-License-Identifier: Apache-2.0
"""`inspect IMAGE` reads objects and labels of an image in the engine without starting it."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.sig import sign, unsigned
from labs.sig import test_key as alice

from buildtool.cli.main import run

ENTRYPOINT = '["/usr/bin/verify-and-load", "--image-attach", "count=eth0"]'
OBJECTS = "usr/lib/buildtool/objects"
ImportImage = Callable[[str, dict[str, bytes]], str]


@pytest.fixture
def import_image(engine: Any) -> Iterator[ImportImage]:
    """Return a function that makes an image of a platform from files."""
    made: list[str] = []

    def make(platform: str, files: dict[str, bytes]) -> str:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        name = f"buildtool-test/inspect-{len(made)}:1"
        label = ["--change", 'LABEL org.example.note="a b"']
        label += ["--change", f"ENTRYPOINT {ENTRYPOINT}"]
        command = ["docker", "import", "--platform", platform, *label, "-", name]
        subprocess.run(command, input=archive.getvalue(), check=True, capture_output=True)
        made.append(name)
        return name

    yield make
    subprocess.run(["docker", "image", "rm", "--force", *made], check=False, capture_output=True)


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_image_is_read_and_nothing_is_left(
    platform: str, import_image: ImportImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image, also of another architecture, is read, and no container stays."""
    files = {
        f"{OBJECTS}/x.bpf.o": sign(),
        f"{OBJECTS}/y.bpf.o": unsigned(),
        f"{OBJECTS}/README": b"no object",
    }
    name = import_image(platform, files)
    (tmp_path / "alice.pub").write_bytes(alice().public.pem)
    before = subprocess.run(["docker", "ps", "-aq"], check=True, capture_output=True).stdout
    assert run(["inspect", name, "--json", "--trust", str(tmp_path / "alice.pub")]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["platform"].startswith(platform)
    assert value["attach"] == ["count=eth0"]
    assert value["labels"] == {"org.example.note": "a b"}
    assert [item["name"] for item in value["objects"]] == ["x.bpf.o", "y.bpf.o"]
    assert [item["verification"]["decision"] for item in value["objects"]] == ["accepted", "refused"]
    assert run(["inspect", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("signatures  not checked") for line in lines)
    assert "attach      count to eth0" in lines
    assert subprocess.run(["docker", "ps", "-aq"], check=True, capture_output=True).stdout == before


def test_image_without_objects(import_image: ImportImage, capsys: pytest.CaptureFixture[str]) -> None:
    """An image without objects is one clear line."""
    name = import_image("linux/amd64", {"etc/x": b""})
    assert run(["inspect", name]) == 1
    assert f"the image has no /{OBJECTS}: not built by buildtool" in capsys.readouterr().err


def test_no_such_image(engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown image is an error with a hint, since a file may have been meant."""
    assert run(["inspect", "buildtool-test/none:1"]) == 1
    assert "buildtool-test/none:1: no such file, and no image of the Docker engine" in capsys.readouterr().err
