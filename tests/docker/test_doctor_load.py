# SPDX-License-Identifier: Apache-2.0
"""`doctor` and `load` with a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from buildtool.cli.main import run
from buildtool.config.file import load_config
from buildtool.core.platforms import host_platform
from buildtool.core.process import Runner
from buildtool.load import choose_program


def test_doctor_finds_the_engine_and_the_prepared_images(
    prepared_images: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """`doctor` ends with 0 where `build` can work."""
    assert prepared_images
    assert run(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    for name in ("docker engine", "buildx", "prepared images"):
        assert checks[name]["ok"], checks[name]


def test_the_loader_is_made_once_from_its_source(
    prepared_images: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The builder image links the loader once; a cached loader that others can write is not used."""
    assert prepared_images
    monkeypatch.setenv("BUILDTOOL_CLANG", "/bin/false")  # no compiler on PATH to link it
    config = load_config(tmp_path / "none.toml", environ={"BUILDTOOL_CLANG": "/bin/false"})
    # Ignore the loader of this checkout, if there is one.
    (tmp_path / "none").mkdir()
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "BUILDTOOL_LOADERS": str(tmp_path / "none")}
    loader = choose_program("loader", config, environ=environ, runner=Runner())
    done = subprocess.run([str(loader), "--help"], check=True, capture_output=True, text=True)
    assert "verify-and-load" in done.stdout + done.stderr
    made = loader.stat()
    assert choose_program("loader", config, environ=environ, runner=Runner()) == loader
    assert loader.stat().st_ino == made.st_ino
    loader.chmod(0o777)
    assert choose_program("loader", config, environ=environ, runner=Runner()).stat().st_ino != made.st_ino


def test_load_is_the_loader(prepared_images: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After init, keygen, compile and sign, `load` accepts the object, and refuses a changed one."""
    assert prepared_images
    assert run(["init", str(tmp_path / "p")]) == 0
    monkeypatch.chdir(tmp_path / "p")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = host_platform(os.uname().machine)
    assert here is not None
    arch = here.arch
    assert run(["keygen", "release"]) == 0
    assert run(["compile", f"--arch={arch}"]) == 0
    sign = ["--project=p", "--object-version=1", "--release=1"]
    path = Path("build", arch, "p.bpf.o")
    assert run(["sign", str(path), "--key=keys/release.pem", f"--arch={arch}", *sign]) == 0
    argv = [sys.executable, "-m", "buildtool", "load", "--verify-only"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    decisions = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert (done.returncode, decisions[0]["decision"]) == (0, "accepted")
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    decisions = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, decisions[0]["decision"]) == (3, "refused")
