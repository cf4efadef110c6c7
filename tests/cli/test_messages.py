# SPDX-License-Identifier: Apache-2.0
"""Mistakes of the first hour: what is wrong in one line, what to do in the next, the same code everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from labs.sig import sign, unsigned
from labs.sig import test_key as alice

from buildtool.cli.main import run
from buildtool.core.process import Runner
from buildtool.image.engine import choose_engine

Capture = pytest.CaptureFixture[str]
PAST = "2020-01-01T00:00:00Z"


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: Capture, arguments: list[str], code: int) -> tuple[str, str]:
    """Run with *arguments*, expect exit *code*, and return error and hint, each one line."""
    assert run(arguments) == code, capsys.readouterr().err
    lines = capsys.readouterr().err.splitlines()
    error = [line for line in lines if line.startswith("buildtool: error: ")]
    hint = [line for line in lines if line.startswith("buildtool: hint: ")]
    assert (len(error), len(hint)) == (1, 1), lines
    return error[0].removeprefix("buildtool: error: "), hint[0].removeprefix("buildtool: hint: ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["compile"], 2),
        (["build"], 2),
        (["build", "--engine", "local"], 2),
        (["render"], 2),
        (["render", "-o", "image"], 2),
        (["rebuild", "--check", "x.tar"], 2),
        (["check"], 1),
        (["load"], 1),
    ],
)
def test_a_directory_without_a_project(capsys: Capture, arguments: list[str], code: int) -> None:
    """The file that is missing is named, or the command that makes it; a key is not asked for first."""
    error, hint = said(capsys, arguments, code)
    assert "buildtool.toml: no such file" in error if code == 2 else "build/" in error
    assert "buildtool init" in hint
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["build"],
        ["build", "--engine", "local"],
        ["render"],
        ["render", "-o", "image"],
        ["sign", "x.bpf.o"],
    ],
)
def test_sources_without_a_configuration(capsys: Capture, arguments: list[str]) -> None:
    """The missing file is named before the missing key. The hint begins with the command that makes it."""
    Path("bpf").mkdir()
    Path("bpf/x.bpf.c").touch()
    Path("x.bpf.o").write_bytes(unsigned())
    error, hint = said(capsys, arguments, 2)
    assert error == "buildtool.toml: no such file, and no signing key"
    assert hint.startswith("buildtool init makes the file")


@pytest.mark.parametrize(
    "arguments",
    [
        ["compile"],
        ["build"],
        ["render"],
        ["rebuild", "--check", "x"],
        ["check"],
        ["load"],
        ["doctor"],
        ["sign", "x.bpf.o"],
    ],
)
def test_a_configuration_that_is_missing(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """It is a mistake of the command line in every command; of the environment, the variable is named."""
    error, hint = said(capsys, [*arguments, "--config", "none.toml"], 2)
    assert error == "none.toml: cannot read: no such file or directory"
    assert "buildtool init" in hint
    monkeypatch.setenv("BUILDTOOL_CONFIG", "none.toml")
    error, hint = said(capsys, arguments, 2)
    assert error == "BUILDTOOL_CONFIG: none.toml: cannot read: no such file or directory"


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["compile", "--arch", "vax"], "unknown architecture 'vax'", "choose from amd64, "),
        (["sign", "x", "--arch", "vax"], "--arch: unknown architecture 'vax'", "choose from amd64, "),
        (["sign", "x", "--key", "gpg:me"], "--key: no signer of kind gpg:", "ssh-agent:NAME or exec:PROGRAM"),
        (["sign", "x", "--not-after", "soon"], "--not-after: 'soon' is not a time", "or 2027-01-31 for"),
        (["compile", "--flag=-march=x"], "--flag: '-march=x' is not a flag", "compile.include"),
        (["load", "--attach", "p"], "--attach: 'p' is not PROGRAM=TARGET", "PROGRAM=none"),
        (["load", "--attach", "p="], "--attach: 'p=': the target is missing", "p=none attaches it nowhere"),
        (["check", "--oldest", "old"], "--oldest: 'old': not a Linux release", "for example 5.15"),
        (["keygen", "a b"], "NAME: 'a b' is not a name of a key", "for example release"),
        (["render", "-o", ""], "--output: the name is empty", "name a file"),
        (["build", "-o", ""], "--output: the name is empty", "--output image.tar"),
        (["compile", "-j", "0"], "--jobs: 0 is not an integer from 1 to 1024", "--help shows"),
        (["compile", "-j", "x"], "--jobs: 'x' is not an integer from 1 to 1024", "--help shows"),
        (["sign", "x", "--max-key-age", "x"], "--max-key-age: 'x' is not an integer of at least 0", "--help"),
        (["sign", "x", "--signer-timeout", "x"], "--signer-timeout: 'x' is not a number from 0.1", "--help"),
        (["build", "--engine", "podman"], "--engine: 'podman' is none of auto, docker, local", "--help"),
        (["compile", "--config", "."], "--config: .: a directory, not a file", "--help shows"),
        (["verify", "x"], "missing option --trust", "buildtool verify --help"),
        (["verify"], "missing argument OBJECT|IMAGE...", "buildtool verify --help"),
        (["verify", "x", "--trst", "y"], "unknown option '--trst' (did you mean --trust?)", "--help"),
        (["compile", "--json=1"], "option --json accepts no value", "--help"),
        (["init", "a", "b"], "unexpected argument 'b'", "buildtool init --help"),
        (["trust", "ad"], "unknown command 'ad' (did you mean add?)", "buildtool trust --help"),
    ],
)
def test_a_wrong_option(capsys: Capture, arguments: list[str], error: str, hint: str) -> None:
    """The option is named, in no words of a library, and the hint of a check is not lost."""
    found, advice = said(capsys, arguments, 2)
    assert found.startswith(error)
    assert hint in advice


@pytest.mark.parametrize(
    ("variable", "value", "arguments", "code", "error"),
    [
        ("CACHE", "rel", ["build", "--engine", "local"], 2, "'rel' is not an absolute path"),
        ("LOADERS", "none", ["build", "--engine", "local"], 2, "none: no such directory"),
        ("LOADER", "none", ["load", "x.bpf.o", "--trust", "a.pub"], 2, "none: not a program"),
        ("MAX_KEY_AGE", "x", ["sign", "x.bpf.o"], 2, "'x' is not an integer of at least 0"),
        ("SIGNER_TIMEOUT", "x", ["sign", "x.bpf.o"], 2, "'x' is not a number from 0.1 to 3600"),
        ("KEY", "none.pem", ["sign", "x.bpf.o", "--arch", "amd64"], 1, "signing key none.pem: no such file"),
        ("KEY", "none.pem", ["build", "--arch", "amd64"], 1, "signing key none.pem: no such file"),
        ("KEY", "gpg:x", ["compile"], 2, "no signer of kind gpg:"),
        ("TRUST", "none.pub", ["build", "--engine", "local"], 2, "none.pub: cannot read"),
        ("TRUST", "none.pub", ["load", "x.bpf.o"], 2, "none.pub: no such file"),
        ("POLICY", "none.json", ["render", "--arch", "amd64"], 2, "none.json: cannot read"),
        ("POLICY", "none.json", ["load", "x.bpf.o"], 2, "none.json: no such file"),
        ("CLANG", "none", ["compile"], 1, "none: not found"),
        ("NOT_AFTER", "soon", ["compile"], 2, "'soon' is not a time"),
        ("ARCH", "vax", ["compile"], 2, "unknown architecture 'vax'"),
        ("OBJECT_VERSION", "x", ["compile"], 2, "must be an integer"),
        ("SIGN_ON", "moon", ["compile"], 2, "'moon' is neither builder nor host"),
        ("USER", "me", ["compile"], 2, "'me' is not a user"),
        ("TAG", "UPPER", ["compile"], 2, "'UPPER' is not an image tag"),
    ],
)
def test_a_wrong_variable_is_named(
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    arguments: list[str],
    code: int,
    error: str,
) -> None:
    """Whoever set it years ago in a profile finds it; nothing else is blamed."""
    assert run(["init", "."]) == 0
    assert run(["keygen", "release"]) == 0
    Path("x.bpf.o").write_bytes(unsigned())
    Path("a.pub").write_bytes(alice().public.pem)
    capsys.readouterr()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    monkeypatch.setenv(f"BUILDTOOL_{variable}", value)
    assert run(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("buildtool: error: ")]
    assert line.startswith(f"buildtool: error: BUILDTOOL_{variable}: {error}")


@pytest.mark.parametrize("command", ["compile", "sign", "verify", "check"])
def test_a_directory_in_place_of_files(capsys: Capture, command: str) -> None:
    """The line says that it is one; the hint has the names to give."""
    Path("dir").mkdir()
    Path("good.bpf.o").write_bytes(sign())
    Path("a.pub").write_bytes(alice().public.pem)
    Path("a.pem").write_bytes(alice().to_pem(None))
    Path("a.pem").chmod(0o600)
    more = {"sign": ["--key", "a.pem", "--arch", "amd64"], "verify": ["--trust", "a.pub"]}
    assert run([command, "dir", *more.get(command, [])]) == (2 if command == "check" else 1)
    output = capsys.readouterr()
    text = output.out + output.err
    assert "dir: no objects" in text if command == "check" else "a directory, not a file" in text
    assert "name its files: dir/*" in text or "buildtool compile" in text


def test_a_directory_hides_no_refusal(capsys: Capture) -> None:
    """A directory among objects is unreadable (1), and a refused object is refused (3)."""
    Path("dir.bpf.o").mkdir()
    Path("x.bpf.o").write_bytes(unsigned())
    Path("a.pub").write_bytes(alice().public.pem)
    assert run(["verify", "dir.bpf.o", "x.bpf.o", "--trust", "a.pub"]) == 3
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "dir.bpf.o: error: a directory, not a file",
        "x.bpf.o: refused: unsigned: no section .sig",
    ]
    assert output.err.splitlines() == [
        "buildtool: hint: name its files: dir.bpf.o/*",
        "buildtool: hint: buildtool sign OBJECT signs it",
    ]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["check", "x.bpf.o", "--junit", "none/x.xml"], "none/x.xml: cannot write: no such file"),
        (["check", "x.bpf.o", "--sarif", "x.bpf.o/x"], "x.bpf.o/x: cannot write: not a directory"),
        (["render", "--key", "a.pub", "--inline", "-o", "none/D"], "none/D: cannot write: no such file"),
        (["render", "--key", "a.pub", "-o", "x.bpf.o/image"], "x.bpf.o/image: cannot"),
        (
            ["sign", "x.bpf.o", "--key", "none.pem", "--output", "x.bpf.o/y"],
            "x.bpf.o/y: cannot make directory",
        ),
        (["keygen", "a", "--dir", "x.bpf.o/y"], "x.bpf.o/y: cannot make directory"),
        (
            ["build", "--engine", "local", "-o", "type=oci,dest=none/x.tar"],
            "none/x.tar: cannot write: no such",
        ),
        (
            ["build", "--engine", "local", "-o", "type=oci,tar=false,dest=none/x"],
            "none/x: cannot write: no such",
        ),
        (["build", "--engine", "local", "-o", "type=docker"], "no Docker engine answers"),
    ],
)
def test_where_nothing_can_be_written(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: str
) -> None:
    """It is the first thing that is said: before loaders, keys and sources that are not there either."""
    Path("x.bpf.o").write_bytes(sign())
    Path("a.pub").write_bytes(alice().public.pem)
    Path("a.pem").write_bytes(alice().to_pem(None))
    Path("a.pem").chmod(0o600)
    Path("bpf").mkdir()
    Path("bpf/x.bpf.c").write_text("this does not compile")
    Path("empty").mkdir()
    monkeypatch.setenv("BUILDTOOL_LOADERS", "empty")
    monkeypatch.setenv("BUILDTOOL_KEY", "a.pem")
    before = sorted(Path().rglob("*"))
    assert run([*arguments, *(["--arch", "amd64"] if arguments[0] == "build" else [])]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"buildtool: error: {error}")
    if "no such" in error:
        assert lines[1].startswith("buildtool: hint: mkdir -p none")
    assert sorted(Path().rglob("*")) == before


def test_an_existing_key_is_told_before_the_passphrase(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody thinks of a passphrase for nothing."""
    assert run(["keygen", "a"]) == 0
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *_, **__: pytest.fail("asked"))
    assert run(["keygen", "a", "--passphrase"]) == 1
    assert "keys/a.pem: already exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["build", "--engine", "local"], ["build", "--engine", "docker"], ["render"]]
)
def test_a_release_that_is_born_expired(capsys: Capture, command: list[str]) -> None:
    """It would be refused on every machine; nothing is started for it."""
    assert run(["init", "."]) == 0
    assert run(["keygen", "release"]) == 0
    text = Path("buildtool.toml").read_text("utf-8")
    Path("buildtool.toml").write_text(text.replace("[sign]", f"[sign]\nnot-after = {PAST}"), encoding="utf-8")
    capsys.readouterr()
    error, hint = said(capsys, [*command, "--arch", "amd64"], 2)
    assert error == f"not-after {PAST} has passed: verifiers would refuse the objects as expired"
    assert "sign.not-after" in hint


def test_two_objects_of_one_name(capsys: Capture) -> None:
    """Both are named, and where they would land."""
    for arch in ("amd64", "arm64"):
        Path(arch).mkdir()
        Path(arch, "x.bpf.o").write_bytes(sign())
    Path("a.pem").write_bytes(alice().to_pem(None))
    Path("a.pem").chmod(0o600)
    names = ["amd64/x.bpf.o", "arm64/x.bpf.o"]
    error, hint = said(capsys, ["sign", *names, "--key", "a.pem", "--arch", "amd64", "--output", "out"], 2)
    assert error == "amd64/x.bpf.o and arm64/x.bpf.o: both would be written to out/x.bpf.o"
    assert hint.startswith("name each object once")


def pem(kind: str) -> str:
    """Return the text of a private key of *kind*, as far as anybody reads it."""
    return f"-----BEGIN {kind} PRIVATE KEY-----\neyJrZGYi\n-----END {kind} PRIVATE KEY-----\n"


MINISIGN = "untrusted comment: minisign encrypted secret key\nRWRT\n"


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        (pem("OPENSSH"), "a key of OpenSSH", "ssh-add {key}, then --key ssh-agent:NAME"),
        (pem("ENCRYPTED SIGSTORE"), "a key of cosign", "buildtool keygen NAME"),
        (pem("ENCRYPTED COSIGN"), "a key of cosign", "buildtool keygen NAME"),
        (
            MINISIGN,
            "a key of minisign",
            "buildtool keygen NAME",
        ),
        (pem("RSA"), "not a PKCS#8 PEM private key", "buildtool keygen NAME"),
    ],
)
def test_a_key_of_another_tool(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, text: str, error: str, hint: str
) -> None:
    """It is called by its name, in a file and in a variable, and nobody is asked for its passphrase."""
    Path("x.bpf.o").write_bytes(unsigned())
    Path("other.pem").write_text(text)
    Path("other.pem").chmod(0o600)
    monkeypatch.setattr("click.prompt", lambda *_, **__: pytest.fail("asked"))
    found, advice = said(capsys, ["sign", "x.bpf.o", "--arch", "amd64", "--key", "other.pem"], 1)
    assert found.startswith(f"signing key other.pem: {error}")
    assert hint.format(key="other.pem") in advice
    monkeypatch.setenv("BUILDTOOL_SIGNING_KEY", text)
    found, _ = said(capsys, ["sign", "x.bpf.o", "--arch", "amd64"], 1)
    assert found.startswith(f"signing key env:BUILDTOOL_SIGNING_KEY: {error}")


@pytest.mark.tools
def test_a_public_key_of_openssh(capsys: Capture) -> None:
    """The hint is the command that makes it PEM, and that works."""
    from base64 import b64encode
    from subprocess import run as start

    raw = alice().public.raw
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + raw
    Path("id.pub").write_text(f"ssh-ed25519 {b64encode(blob).decode()} me@here\n")
    error, hint = said(capsys, ["trust", "add", "id.pub"], 2)
    assert error == "id.pub: a public key of OpenSSH, not PEM"
    command = hint.removesuffix(" prints it as PEM")
    done = start(["sh", "-c", command], capture_output=True, check=True)
    assert done.stdout.split() == alice().public.pem.split()


def test_a_public_key_of_another_algorithm(capsys: Capture) -> None:
    """A public key of cosign is PEM, too."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = generate_private_key(SECP256R1()).public_key()
    Path("cosign.pub").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    error, hint = said(capsys, ["trust", "add", "cosign.pub"], 2)
    assert error == "cosign.pub: not an Ed25519 public key"
    assert "cosign" in hint


# As docker answers a command that it has no plugin for.
NO_BUILDX = """#!/bin/sh
[ "$1" = version ] && exec echo 28.5.2
echo "unknown flag: --file" >&2
echo "Usage:  docker [OPTIONS] COMMAND [ARG...]" >&2
exit 125
"""


@pytest.mark.parametrize("given", [["--builder", "x"], ["--engine", "docker"], ["--output", "type=docker"]])
def test_docker_without_buildx(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    """One line of ours, and none of docker's usage."""
    assert run(["init", "."]) == 0
    assert run(["keygen", "release"]) == 0
    Path("bin").mkdir()
    Path("bin/docker").write_text(NO_BUILDX)
    Path("bin/docker").chmod(0o755)
    monkeypatch.setenv("PATH", "bin", prepend=os.pathsep)
    monkeypatch.setenv("DOCKER_CONFIG", "bin")
    monkeypatch.setattr("buildtool.image.docker.buildx._PLUGINS", ())
    capfd.readouterr()
    assert run(["build", "--arch", "amd64", *given]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "buildtool: error: docker: buildx is missing, which BuildKit requires"
    assert lines[1].startswith("buildtool: hint: ")
    assert len(lines) == 2


def test_auto_names_the_missing_plugin(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine answers and buildx is missing: the line before the local build says what to install."""
    Path("bin").mkdir()
    Path("bin/docker").write_text(NO_BUILDX)
    Path("bin/docker").chmod(0o755)
    monkeypatch.setenv("PATH", "bin", prepend=os.pathsep)
    monkeypatch.setenv("DOCKER_CONFIG", "bin")
    monkeypatch.setattr("buildtool.image.docker.buildx._PLUGINS", ())
    Path("bin/cli-plugins").mkdir()
    Path("bin/cli-plugins/docker-buildx").write_text("not executable")
    engine = choose_engine("auto", os.environ, needs_docker=False, only_local="", runner=Runner())
    assert engine == "local"
    assert caplog.text.endswith(
        "docker: buildx is missing, which BuildKit requires: building with the local engine;"
        " install docker-buildx (Debian) or docker-buildx-plugin\n"
    )
    assert capfd.readouterr().out == ""
