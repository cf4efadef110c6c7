# SPDX-License-Identifier: Apache-2.0
"""Keys that cannot be read: a real ssh-agent, and a token in software."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from labs.cli import SIGN, Capture, enter_project, refused, signers_of
from labs.sig import test_key as alice
from labs.sig import unsigned

from buildtool.cli.main import run
from buildtool.core.errors import ConfigError
from buildtool.signing.keys import PublicKey, generate_key, save_key
from buildtool.signing.signers import pkcs11
from buildtool.signing.signers.signer import SignerContext


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_project(tmp_path, monkeypatch)


# --- ssh-agent


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Run an ssh-agent; its socket."""
    if not shutil.which("ssh-agent"):
        pytest.skip("needs-tool: ssh-agent")
    place = tmp_path / "agent.sock"
    with subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL) as process:
        while not place.exists():
            assert process.poll() is None
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        yield place
        process.terminate()


def add_identity(name: str, kind: str = "ed25519") -> str:
    """Make a key, add it to the agent and return its fingerprint."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", name], check=True)
    subprocess.run(["ssh-add", "-q", name], check=True)
    Path(name).unlink()
    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", f"{name}.pub"], check=True, capture_output=True, text=True
    )
    return done.stdout.split()[1]


def test_agent_signs(agent: Path, capsys: Capture) -> None:
    """By comment, fingerprint and key id; an RSA key and another identity beside it do not disturb."""
    add_identity("rsa", "rsa")
    fingerprint = add_identity("release@example")
    assert run([*SIGN, "--key", "ssh-agent:", "--json"]) == 0
    key_id = json.loads(capsys.readouterr().out)[0]["keyId"]
    first = Path("x.bpf.o").read_bytes()
    add_identity("other")
    for name in ("release@example", fingerprint, key_id, key_id[:16].upper()):
        Path("x.bpf.o").write_bytes(unsigned())
        assert run([*SIGN, "--key", f"ssh-agent:{name}"]) == 0
        assert Path("x.bpf.o").read_bytes() == first
    blob = Path("release@example.pub").read_text().split()[1]
    import base64

    public = PublicKey(raw=base64.b64decode(blob)[-32:])
    assert signers_of("x.bpf.o", public) == (key_id,)


def test_agent_that_does_not_sign(agent: Path, capsys: Capture) -> None:
    """No key, two keys, locked."""
    assert "it holds no ssh-ed25519 identities" in refused([*SIGN, "--key", "ssh-agent:"], capsys)
    add_identity("a")
    add_identity("b")
    assert "it holds 2 ssh-ed25519 identities" in refused([*SIGN, "--key", "ssh-agent:"], capsys)
    assert "it holds no identities called 'c'" in refused([*SIGN, "--key", "ssh-agent:c"], capsys)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "it closed the connection"),
        (b"\0\0\0\1\5", "ssh-agent: refused"),
        (b"\0\0\0\0", "an answer of 0 bytes"),
        (b"\x7f\0\0\0\5", "an answer of 2130706432 bytes"),
        (b"\0\4\0\1\5", "an answer of 262145 bytes"),
        pytest.param(b"\0\4\0\0" + bytes(262_144), "ssh-agent: refused", id="largest"),
        (b"\0\0\0\x05\x0c\xff\xff\xff\xff", "a damaged answer"),
        (b"\0\0\0\x09\x0c\0\0\0\1\0\0\0\x09", "a damaged answer"),
        (b"\0\0\0\x06\x0c\0\0\0\0!", "a damaged answer"),
        (None, "no answer in 0.5 seconds"),
    ],
)
def test_agent_of_any_kind(
    answer: bytes | None, message: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each faulty answer of an agent results in one error line."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "fake.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("fake.sock")
        server.listen()
        done = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                if answer is None:
                    done.wait(10)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert message in refused([*SIGN, "--key", "ssh-agent:", "--signer-timeout", "0.5"], capsys)
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (b"ssh-ed25519", "ssh-agent:alice: its signature is not by key"),
        (b"ssh-rsa", "ssh-agent: a signature of kind b'ssh-rsa'"),
    ],
)
def test_agent_that_lies_about_its_key(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, kind: bytes, message: str
) -> None:
    """A signature by another key or of another kind than it named is not embedded."""

    def string(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    blob = string(b"ssh-ed25519") + string(alice().public.raw)
    bodies = [
        b"\x0c" + struct.pack(">I", 1) + string(blob) + string(b"alice"),
        b"\x0e" + string(string(kind) + string(bytes(64))),
    ]
    monkeypatch.setenv("SSH_AUTH_SOCK", "fake.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("fake.sock")
        server.listen()

        def serve() -> None:
            for body in bodies:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(string(body))

        thread = threading.Thread(target=serve)
        thread.start()
        line = refused([*SIGN, "--key", "ssh-agent:alice"], capsys)
        thread.join()
    assert message in line


# --- PKCS #11


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Make a software token with alice's key and another one; the path of its module."""
    pytest.importorskip("pkcs11", reason="needs-tool: python-pkcs11")
    found = sorted(Path("/usr/lib").glob("**/softhsm/libsofthsm2.so"))
    if not found or not shutil.which("softhsm2-util"):
        pytest.skip("needs-tool: softhsm2")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm.conf"))
    other, _ = save_key(generate_key(), "other", tmp_path, None)
    for argv in (
        ["--init-token", "--free", "--label", "lab", "--so-pin", "1234", "--pin", "4321"],
        ["--import", "alice.pem", "--token", "lab", "--label", "release", "--id", "01", "--pin", "4321"],
        ["--import", other, "--token", "lab", "--label", "second", "--id", "02", "--pin", "4321"],
    ):
        subprocess.run(["softhsm2-util", *argv], check=True, capture_output=True)
    return str(found[0])


def sign_with_token(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own: a module reads its configuration once."""
    argv = [sys.executable, "-m", "buildtool", *SIGN, *arguments]
    return subprocess.run(
        argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_token_signs(token: str) -> None:
    """The key by label and id, the PIN by variable and file, the module by URI and variable."""
    Path("pin").write_text("4321\n")
    cases: list[tuple[str, dict[str, Any]]] = [
        (
            f"pkcs11:token=lab;object=release?module-path={token}",
            {"BUILDTOOL_KEY_PASSPHRASE": "4321"},
        ),
        (f"pkcs11:token=lab;id=%01;type=private?module-path={token}&pin-source=file:pin", {}),
        ("pkcs11:object=release?pin-source=pin", {"PKCS11_MODULE": token}),
    ]
    for uri, environment in cases:
        Path("x.bpf.o").write_bytes(unsigned())
        done = sign_with_token(["--key", uri], **environment)
        assert done.returncode == 0, done.stderr
        assert signers_of("x.bpf.o", alice().public) == (alice().key_id,)


@pytest.mark.parametrize(
    ("uri", "pin", "message"),
    [
        ("token=lab;object=release", "9999", "token=lab;object=release: wrong PIN"),
        ("token=lab;object=release", "", "token=lab;object=release: no PIN"),
        ("token=lab;object=other", "4321", "no private keys"),
        ("token=none;object=release", "4321", "no tokens"),
        ("token=lab;id=%07", "4321", "pkcs11:token=lab;id=07: no private keys"),
        ("token=lab;id=%41%ff", "4321", "pkcs11:token=lab;id=41ff: no private keys"),
        ("object=release;id=%02", "4321", "pkcs11:object=release;id=02: no private keys"),
        ("token=lab;object=release&pin-source=none", "", "pin-source none: cannot read"),
    ],
)
def test_token_that_does_not_sign(token: str, uri: str, pin: str, message: str) -> None:
    """A token that does not sign results in one error line without the PIN, and no file changes."""
    attributes, _, source = uri.partition("&")
    reference = f"pkcs11:{attributes}?module-path={token}" + (f"&{source}" if source else "")
    done = sign_with_token(["--key", reference], BUILDTOOL_KEY_PASSPHRASE=pin)
    assert done.returncode == 1
    line = next(line for line in done.stderr.splitlines() if line.startswith("buildtool: error:"))
    assert message in line
    assert not pin or pin not in done.stderr
    assert "Traceback" not in done.stderr
    assert Path("x.bpf.o").read_bytes() == unsigned()


def test_token_without_its_library(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    assert "python-pkcs11 is missing" in refused(
        [*SIGN, "--key", "pkcs11:object=x?module-path=/x.so"], capsys
    )


@pytest.mark.parametrize("head", [b"", b"\4\x20"], ids=["bare", "octet-string"])
def test_forms_of_a_tokens_public_key(head: bytes) -> None:
    """PKCS #11 requires an octet string in DER; some tokens return the bare point."""
    attributes = pytest.importorskip("pkcs11", reason="needs-tool: python-pkcs11").Attribute
    found = [{attributes.EC_POINT: head + alice().public.raw}]
    session: Any = SimpleNamespace(get_objects=lambda _: found)
    context = SignerContext(environ={}, passphrase=lambda _: None)
    uri = pkcs11.parse_uri("object=release")
    assert pkcs11._find_public(session, uri, "x", context).raw == alice().public.raw
    for damaged in (
        head + alice().public.raw + b"\0",
        head + alice().public.raw[:-1],
        b"\4\x21" + alice().public.raw,
    ):
        found[0] = {attributes.EC_POINT: damaged}
        with pytest.raises(ConfigError, match="not an Ed25519 public key"):
            pkcs11._find_public(session, uri, "x", context)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PinTooWeak", "PIN too weak"),
        ("PKCS11Error", "the module refuses"),
        ("DeviceRemoved", "device removed"),
    ],
)
def test_errors_of_a_token_in_words(name: str, words: str) -> None:
    """The library names its errors by classes."""
    assert pkcs11._name(type(name, (Exception,), {})()) == words
