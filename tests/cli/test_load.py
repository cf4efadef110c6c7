# SPDX-License-Identifier: Apache-2.0
"""`load`: what the loader is started with, and every way not to get there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from labs.image import make_parts

from buildtool.cli.main import run
from buildtool.core.platforms import host_platform
from buildtool.runtime.carried import list_path, part_path

LOADER = '#!/bin/sh\nprintf "%s\\n" "$@"\nexit 3\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project with an object and a key, and a loader that prints its arguments and exits with 3."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loader").write_text(LOADER, encoding="utf-8")
    (tmp_path / "loader").chmod(0o755)
    (tmp_path / "release.pub").touch()
    (tmp_path / "x.bpf.o").touch()
    (tmp_path / "buildtool.toml").write_text(
        '[sign]\nkey = "release.pem"\n[image]\nattach = ["p=eth0"]\n', encoding="utf-8"
    )
    monkeypatch.setenv("BUILDTOOL_LOADER", "loader")
    return tmp_path


def _load(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "buildtool", "load", *arguments]
    return subprocess.run(argv, check=False, capture_output=True, text=True)


def test_the_loader_takes_over(project: Path) -> None:
    """The loader's exit code is the command's. Defaults come from the configuration."""
    platform = host_platform(os.uname().machine)
    assert platform is not None
    (project / "build" / platform.arch).mkdir(parents=True)
    done = _load()
    objects = f"build/{platform.arch}"
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.split() == ["--objects", objects, "--trust", "release.pub", "--attach", "p=eth0"]


def test_the_command_line_goes_over_the_configuration(project: Path) -> None:
    """All words after -- are the workload's arguments, even those that look like options."""
    (project / "trust").mkdir()
    done = _load("x.bpf.o", "--trust=trust", "--attach=q=none", "--", "/bin/agent", "--trust", "-x")
    assert done.stdout.split() == [
        *("--objects", "x.bpf.o", "--trust", "trust", "--attach", "q=none"),
        *("--", "/bin/agent", "--trust", "-x"),
    ]


def test_a_workload_needs_no_object(project: Path) -> None:
    """Without OBJECT before --, the objects are those of build/ARCH."""
    platform = host_platform(os.uname().machine)
    assert platform is not None
    (project / "build" / platform.arch).mkdir(parents=True)
    expected = ["--objects", f"build/{platform.arch}", "--trust", "release.pub", "--attach", "p=eth0"]
    for workload in (
        ["/bin/true"],
        ["/bin/sh", "-c", "exit 7"],
        ["x.bpf.o", "--", "--help", "--trust=other", "--"],
    ):
        done = _load("--", *workload)
        assert (done.returncode, done.stderr) == (3, "")
        assert done.stdout.splitlines() == [*expected, "--", *workload]


def test_the_options_of_the_configuration_are_passed(project: Path) -> None:
    """Options of [loader] are passed. Options for a workload are passed only with a workload."""
    with (project / "buildtool.toml").open("a") as file:
        file.write('[loader]\nshare = "/run/share"\nwait-interface = 5\nreload = true\nmap-fds = false\n')
    done = _load("x.bpf.o", "--attach=q=none")
    options = ["--share", "/run/share", "--wait-interface", "5", "--reload"]
    assert done.stdout.split()[6:] == options
    done = _load("x.bpf.o", "--attach=q=none", "--", "agent")
    assert done.stdout.split()[6:] == [*options, "--no-map-fds", "--", "agent"]
    assert "--share" not in _load("x.bpf.o", "--verify-only").stdout


def test_hand_over_requires_a_workload(project: Path) -> None:
    """Without a workload, the loader must not load the objects itself. Verification needs none."""
    (project / "buildtool.toml").write_text('[sign]\nkey = "release.pem"\n[loader]\nhand-over = true\n')
    done = _load("x.bpf.o")
    assert (done.returncode, done.stdout) == (2, "")
    assert "loader.hand-over: the workload loads the objects, and none is named" in done.stderr
    assert "buildtool load -- PROGRAM" in done.stderr
    assert _load("x.bpf.o", "--", "agent").stdout.split()[-3:] == ["--hand-over", "--", "agent"]
    assert "--hand-over" not in _load("x.bpf.o", "--verify-only").stdout


@pytest.mark.parametrize(
    ("key", "options", "name"),
    [
        ('attach = ["count=lo"]', [], "--attach or image.attach"),
        ('load = ["count"]', [], "--load or image.load"),
        ("", ["--attach", "count=lo"], "--attach or image.attach"),
        ("", ["--no-load", "count"], "--no-load"),
        ("", ["--set", "rate=1"], "--set"),
        ("", ["--map-entries", "flows=1"], "--map-entries"),
        ("", ["--settings", "file"], "--settings"),
    ],
)
def test_hand_over_loads_nothing_itself(project: Path, key: str, options: list[str], name: str) -> None:
    """What has no effect is an error that names the key of the configuration, not an option of the loader."""
    text = f'[sign]\nkey = "release.pem"\n[loader]\nhand-over = true\n[image]\n{key}\n'
    (project / "buildtool.toml").write_text(text)
    done = _load("x.bpf.o", *options, "--", "agent")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"buildtool: error: {name} has no effect with loader.hand-over: " in done.stderr


def test_verifying_attaches_nothing(project: Path) -> None:
    """The configuration's attachments are not for it."""
    assert project.is_dir()
    arguments = _load("x.bpf.o", "--verify-only").stdout.split()
    assert arguments == ["--objects", "x.bpf.o", "--trust", "release.pub", "--verify-only"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "build/"),
        (["missing.bpf.o"], 1, "missing.bpf.o: no such file or directory"),
        (["x.bpf.o", "--trust=nowhere"], 2, "nowhere: no such file or directory"),
        (["x.bpf.o", "extra"], 2, "unexpected argument 'extra': a workload goes after --"),
        (["x.bpf.o", "extra", "--", "agent"], 2, "unexpected argument 'extra'"),
        (["x.bpf.o", "--trust", "--", "agent"], 2, "option --trust requires a value"),
        (["x.bpf.o", "--attach=p"], 2, "--attach: 'p' is not PROGRAM=TARGET"),
    ],
)
def test_bad_input_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    """The loader is not started."""
    assert project.is_dir()
    assert run(["load", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"buildtool: error: {message}")
    assert "Traceback" not in output.err


def test_keys_must_be_named_one_way_or_another(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No key and several keys are errors, because the loader reads one trust store."""
    for text in ("", '[trust]\nkeys = ["a.pub", "b.pub"]\n'):
        (project / "buildtool.toml").write_text(text, encoding="utf-8")
        assert run(["load", "x.bpf.o"]) == 2
        assert "name one by --trust: a .pub file" in capsys.readouterr().err


def test_a_loader_that_is_none(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variable is named."""
    monkeypatch.setenv("BUILDTOOL_LOADER", str(project / "x.bpf.o"))
    assert run(["load", "x.bpf.o"]) == 2
    message, hint = capsys.readouterr().err.splitlines()
    assert message == f"buildtool: error: BUILDTOOL_LOADER: {project / 'x.bpf.o'}: not a program"
    assert hint.endswith("or unset BUILDTOOL_LOADER")


@pytest.mark.parametrize("word", ["list", "status", "detach", "rollback"])
def test_pins_are_for_the_other_program(project: Path, word: str) -> None:
    """After a command of ebpf-pins, all words are its arguments. Neither object nor key is required."""
    pins = project / "ebpf-pins"
    pins.write_text(LOADER.replace("exit 3", "exit 1"), encoding="utf-8")
    pins.chmod(0o755)
    (project / "release.pub").unlink()
    done = _load(word, "--pin-root", "/sys/fs/bpf/x", "--json", "--help")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.split() == [word, "--pin-root", "/sys/fs/bpf/x", "--json", "--help"]


@pytest.mark.parametrize("config", [["--config", "other.toml"], ["--config=other.toml"]])
def test_the_places_of_pins_are_those_of_the_configuration(project: Path, config: list[str]) -> None:
    """Places of the command line replace configured ones. A rollback has no use for a shared directory."""
    pins = project / "ebpf-pins"
    pins.write_text(LOADER.replace("exit 3", "exit 0"), encoding="utf-8")
    pins.chmod(0o755)
    (project / "other.toml").write_text('[loader]\npin-root = "/run/pins"\nshare = "/run/share"\n')
    for words, expected in (
        (["list"], ["--pin-root", "/run/pins", "--share", "/run/share"]),
        (["rollback"], ["--pin-root", "/run/pins"]),
        (["status", "--pin-root=/x"], []),
        (["detach", "--share", "/x"], []),
        (["list", "--help"], []),
    ):
        done = _load(*config, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == [*words, *expected]
    assert _load("list").stdout.split() == ["list"]  # of a project without these keys


def test_ebpf_pins_that_is_not_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line names where ebpf-pins was looked for."""
    assert run(["load", "list"]) == 2
    message, hint = capsys.readouterr().err.splitlines()
    assert message == f"buildtool: error: BUILDTOOL_LOADER: {project / 'ebpf-pins'}: not a program"
    assert "with ebpf-pins beside it" in hint


def test_no_compiler_and_no_engine(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the missing loader, and the hint how to get one. The cache stays empty."""
    (project / "none").mkdir()
    monkeypatch.setenv("BUILDTOOL_LOADERS", str(project / "none"))
    monkeypatch.delenv("BUILDTOOL_LOADER")
    monkeypatch.setenv("PATH", str(project / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "cache"))
    assert run(["load", "x.bpf.o"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("buildtool: error: cannot make the loader: docker: not found\n")
    assert "\nbuildtool: hint: " in text
    assert "apt-get install clang-19" in text
    assert "let BUILDTOOL_LOADER name one" in text
    assert not list((project / "cache").rglob("loader-*"))


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_the_carried_loader_is_used(project: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    """The carried loader needs no compiler and engine. One without execute mode is copied to the cache."""
    platform = host_platform(os.uname().machine)
    assert platform is not None
    parts = make_parts(project / "parts", [platform.arch])
    carried = part_path(parts, "loader", platform.arch)
    carried.write_text(LOADER, encoding="utf-8")
    carried.chmod(mode)
    listed = json.loads(list_path(parts).read_text("utf-8"))
    listed["platforms"][platform.arch]["loader"]["sha256"] = hashlib.sha256(LOADER.encode()).hexdigest()
    list_path(parts).write_text(json.dumps(listed), encoding="utf-8")
    monkeypatch.delenv("BUILDTOOL_LOADER")
    monkeypatch.setenv("BUILDTOOL_LOADERS", str(parts))
    monkeypatch.setenv("BUILDTOOL_CLANG", "/bin/false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "cache"))
    done = _load("x.bpf.o", "--verify-only")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.split()[:2] == ["--objects", "x.bpf.o"]
    assert bool(list(project.glob("cache/*/loader-*"))) == (mode == 0o644)


def test_the_workload_gets_its_secrets_but_not_ours(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private key in a variable may be the workload's own; the signing key is not."""
    (project / "loader").write_text("#!/bin/sh\nenv\n", encoding="utf-8")
    monkeypatch.setenv("BUILDTOOL_SIGNING_KEY", "signing-secret")
    monkeypatch.setenv("BUILDTOOL_KEY_PASSPHRASE", "signing-secret")
    monkeypatch.setenv("TLS_KEY", "-----BEGIN PRIVATE KEY-----")
    done = _load("x.bpf.o", "--", "/bin/agent")
    assert done.returncode == 0
    assert "signing-secret" not in done.stdout
    assert "TLS_KEY=-----BEGIN PRIVATE KEY-----" in done.stdout


def test_settings_are_passed_in_their_order(project: Path) -> None:
    """A later option replaces an earlier one: the image's come first, those of the command line last."""
    platform = host_platform(os.uname().machine)
    assert platform is not None
    (project / "build" / platform.arch).mkdir(parents=True)
    config = (project / "buildtool.toml").read_text()
    config += 'set = ["a=1"]\nmap-entries = ["m=2"]\n[loader]\nsettings = "/etc/agent/settings"\n'
    (project / "buildtool.toml").write_text(config, encoding="utf-8")
    image = ["--set", "a=1", "--map-entries", "m=2"]
    given = ["--set", "x.bpf.o:a=b c", "--map-entries", "m=3"]
    argv = _load(*given).stdout.splitlines()
    assert argv[argv.index("--set") :] == [*image, "--settings", "/etc/agent/settings", *given]
    argv = _load("x.bpf.o", *given, "--settings=here").stdout.splitlines()
    assert argv[argv.index("--settings") :] == ["--settings", "here", *given]
    assert not {"--set", "--settings"} & {*_load("--verify-only").stdout.splitlines()}
