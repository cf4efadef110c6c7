# SPDX-License-Identifier: Apache-2.0
"""Every signer for real: variables, a software token, an ssh-agent, programs; and that no secret shows."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from signing_samples import NOW, copy_test_key, unsigned
from signing_samples import test_key as alice

from buildtool.cli.main import run
from buildtool.keys import PublicKey, generate_key, load_public_key, save_key
from buildtool.trust import trust_keys
from buildtool.verify import verify_object

Capture = pytest.CaptureFixture[str]
SIGN = ["sign", "x.bpf.o", "--arch", "amd64", "--force"]
SECRET_LINES = 3


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    Path("x.bpf.o").write_bytes(unsigned())
    copy_test_key(tmp_path)


def signers_of(path: str, *keys: PublicKey) -> tuple[str, ...]:
    """Verify file *path* with *keys* and return the key ids that counted."""
    return verify_object(Path(path).read_bytes(), trust_keys(keys), platform=None, now=NOW).key_ids


def refused(arguments: list[str], capsys: Capture, code: int = 1) -> str:
    """Run, expect exit code and an object as it was, and return the error line."""
    before = Path("x.bpf.o").read_bytes()
    assert run(arguments) == code
    assert Path("x.bpf.o").read_bytes() == before
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return next(line for line in output.err.splitlines() if line.startswith("buildtool: error:"))


# --- environment


def test_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """env:NAME, by option and by configuration."""
    monkeypatch.setenv("RELEASE_KEY", Path("alice.pem").read_text())
    assert run([*SIGN, "--key", "env:RELEASE_KEY"]) == 0
    assert signers_of("x.bpf.o", alice().public) == (alice().key_id,)
    Path("buildtool.toml").write_text('[sign]\nkey = "env:RELEASE_KEY"\n')
    assert run(SIGN) == 0


def test_variable_that_is_not_there(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not set, empty, or not a key."""
    monkeypatch.setenv("EMPTY", "\n")
    monkeypatch.setenv("WRONG", "hello-secret")
    for name in ("NONE", "EMPTY"):
        assert f"env:{name}: the variable is not set, or empty" in refused(
            [*SIGN, "--key", f"env:{name}"], capsys
        )
    line = refused([*SIGN, "--key", "env:WRONG"], capsys)
    assert "env:WRONG: not a PKCS#8 PEM private key" in line
    assert "hello" not in line


def test_pasted_key_is_not_echoed(capsys: Capture) -> None:
    """As --key, as sign.key and as a variable's name."""
    pem = Path("alice.pem").read_text()
    body = pem.splitlines()[1]
    for value in (pem, f"env:{pem}", f"env:{body}", body, pem.replace("\n", " ")):
        line = refused([*SIGN, "--key", value], capsys, 2)
        assert body not in line
    Path("buildtool.toml").write_text(f'[sign]\nkey = """{pem}"""\n')
    assert body not in refused(SIGN, capsys, 2)


@pytest.mark.parametrize(
    ("reference", "code", "message"),
    [
        ("awskms:x", 2, "no signer of kind awskms:"),
        ("env:", 2, "env: takes the name of a variable"),
        ("env:A-B", 2, "env: takes the name of a variable"),
        ("exec:", 2, "exec: which program?"),
        ("exec:'x", 2, "no closing quotation"),
        ("exec:./none", 1, "./none: not found"),
        ("pkcs11:", 2, "pkcs11: which key?"),
        ("pkcs11:token=x", 2, "pkcs11: which key?"),
        ("pkcs11:object=x;colour=y", 2, "pkcs11: unknown attribute 'colour'"),
        ("pkcs11:object=x;object=y", 2, "pkcs11: object is there twice"),
        ("pkcs11:object=x?pin-value=1234", 2, "pkcs11: no pin-value in a URI"),
        ("pkcs11:object=x;type=public", 2, "pkcs11: type must be private"),
        ("pkcs11:object=x", 2, "pkcs11: which module?"),
        ("pkcs11:object=x?module-path=/none.so", 1, "pkcs11:object=x: "),
        ("ssh-agent:x", 1, "ssh-agent: SSH_AUTH_SOCK is not set"),
        ("", 2, "a signer is named, not pasted"),
    ],
)
def test_reference_that_cannot_be(reference: str, code: int, message: str, capsys: Capture) -> None:
    """One line, and nothing changed."""
    assert message in refused([*SIGN, "--key", reference], capsys, code)


def test_passphrase_from_a_descriptor(tmp_path: Path, capsys: Capture) -> None:
    """--passphrase-fd; a closed or an empty one is an error."""
    save_key(generate_key(), "locked", tmp_path, b"secret words")
    command = [*SIGN, "--key", "locked.pem", "--passphrase-fd"]
    reading, writing = os.pipe()
    os.write(writing, b"secret words\n")
    assert run([*command, str(reading)]) == 0
    os.close(writing)
    capsys.readouterr()
    assert "the first line is not a passphrase" in refused([*command, str(reading)], capsys, 2)
    os.close(reading)
    assert f"--passphrase-fd {reading}: cannot read" in refused([*command, str(reading)], capsys, 2)
    assert signers_of("x.bpf.o", load_public_key(tmp_path / "locked.pub"))


def test_old_key_file(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that should have been replaced signs no more, when that is asked for."""
    then = time.time() - 91.5 * 24 * 60 * 60
    os.utime("alice.pem", (then, then))
    assert run([*SIGN, "--key", "alice.pem"]) == 0
    assert run([*SIGN, "--key", "alice.pem", "--max-key-age", "91"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("BUILDTOOL_MAX_KEY_AGE", "90")
    line = refused([*SIGN, "--key", "alice.pem"], capsys)
    assert "signing key alice.pem: 91 days old, more than 90" in line


# --- program


def write_program(name: str, body: str) -> str:
    """Write an executable Python program and return the reference to it."""
    Path(name).write_text(f"#!{sys.executable}\n{body}")
    Path(name).chmod(0o755)
    return f"exec:./{name}"


GOOD = """
import os, subprocess, sys
if os.environ.get("BUILDTOOL_SIGNER_PROTOCOL") != "1":
    sys.exit("no protocol")
if sys.argv[-1] == "public":
    sys.stdout.write(open("alice.pub").read())
else:
    data = sys.stdin.buffer.read()
    open("message", "wb").write(data)
    sign = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", sys.argv[1], "-in", "message"]
    subprocess.run(sign, check=True)
"""


def test_program_signs() -> None:
    """With an argument of its own; the public key by a call or by --public."""
    Path("alice.pub").write_bytes(alice().public.pem)
    reference = write_program("signer", GOOD) + " alice.pem"
    assert run([*SIGN, "--key", reference]) == 0
    first = Path("x.bpf.o").read_bytes()
    assert signers_of("x.bpf.o", alice().public) == (alice().key_id,)
    Path("x.bpf.o").write_bytes(unsigned())
    Path("other.pub").write_bytes(Path("alice.pub").read_bytes())
    Path("alice.pub").unlink()
    assert run([*SIGN, "--key", reference, "--public", "other.pub"]) == 0
    assert Path("x.bpf.o").read_bytes() == first


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('denied by the service')", "signer failed with exit code 1"),
        ("print('no key')", "exec:signer public: not a PEM public key"),
        ("PUBLIC() if ASKED else print('x')", "a signature of 2 bytes, not 64"),
        ("PUBLIC() if ASKED else sys.stdout.write('x' * 64)", "its signature is not by key"),
        ("PUBLIC() if ASKED else time.sleep(60)", "signer: no answer in 0.5 seconds"),
        ("time.sleep(60)", "signer: no answer in 0.5 seconds"),
        ("PUBLIC() if ASKED else os.kill(os.getpid(), 9)", "signer failed with exit code -9"),
    ],
)
def test_program_that_fails(body: str, message: str, capsys: Capture) -> None:
    """Its stderr is shown, nothing is written."""
    Path("alice.pub").write_bytes(alice().public.pem)
    head = (
        "import os, sys, time\nASKED = sys.argv[-1] == 'public'\n"
        "def PUBLIC(): sys.stdout.write(open('alice.pub').read())\n"
    )
    reference = write_program("signer", head + body + "\n")
    before = Path("x.bpf.o").read_bytes()
    assert run([*SIGN, "--key", reference, "--signer-timeout", "0.5"]) == 1
    error = capsys.readouterr().err
    assert message in error
    if "denied" in body:
        assert "denied by the service" in error
    assert Path("x.bpf.o").read_bytes() == before


def test_wrong_public_key_is_noticed(capsys: Capture, tmp_path: Path) -> None:
    """For a program by its signature; for a file at once."""
    save_key(generate_key(), "bob", tmp_path, None)
    Path("alice.pub").write_bytes(alice().public.pem)
    reference = write_program("signer", GOOD) + " alice.pem"
    assert "its signature is not by key" in refused(
        [*SIGN, "--key", reference, "--public", "bob.pub"], capsys
    )
    assert "bob.pub is not the key of the signer" in refused(
        [*SIGN, "--key", "alice.pem", "--public", "bob.pub"], capsys
    )


def test_no_secret_in_output_children_or_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With -v, with a key of a variable, and with errors; a program that is started sees no secret."""
    save_key(generate_key(), "locked", tmp_path, b"correct-horse")
    Path("alice.pub").write_bytes(alice().public.pem)
    locked, plain = Path("locked.pem").read_text(), Path("alice.pem").read_text()
    secrets = [plain.splitlines()[1], *locked.splitlines()[1:-1], "correct-horse"]
    spy = "open('environment', 'w').write(repr(os.environ) + repr(sys.argv))\n"
    reference = write_program("signer", "import os, sys\n" + spy + GOOD) + " alice.pem"
    environment = {
        **os.environ,
        "BUILDTOOL_SIGNING_KEY": locked,
        "BUILDTOOL_KEY_PASSPHRASE": "correct-horse",
        "OTHER": plain,
        "SOURCE_DATE_EPOCH": "",
    }
    base = [sys.executable, "-m", "buildtool", "-v", *SIGN]
    wrong = {**environment, "BUILDTOOL_KEY_PASSPHRASE": "battery"}
    cut = {**environment, "BUILDTOOL_SIGNING_KEY": locked[:90]}
    for more, env, code in (
        ([], environment, 0),
        (["--json"], environment, 0),
        (["--key", reference], environment, 0),
        (["--key", "env:OTHER"], environment, 0),
        ([], wrong, 1),
        ([], cut, 1),
        (["--key", "exec:/none"], environment, 1),
    ):
        Path("x.bpf.o").write_bytes(unsigned())
        done = subprocess.run([*base, *more], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        for secret in [*secrets, "battery"]:
            assert secret not in done.stdout + done.stderr
    seen = Path("environment").read_text()
    assert "BUILDTOOL_SIGNER_PROTOCOL" in seen
    assert not [secret for secret in secrets if secret in seen]


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
        (b"\0\0\0\x05\x0c\xff\xff\xff\xff", "a damaged answer"),
        (b"\0\0\0\x09\x0c\0\0\0\1\0\0\0\x09", "a damaged answer"),
        (b"\0\0\0\x06\x0c\0\0\0\0!", "a damaged answer"),
        (None, "no answer in 0.5 seconds"),
    ],
)
def test_agent_of_any_kind(
    answer: bytes | None, message: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it sends gives one line."""
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


def test_agent_that_lies_about_its_key(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature by another key than it named is not embedded."""

    def string(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    blob = string(b"ssh-ed25519") + string(alice().public.raw)
    bodies = [
        b"\x0c" + struct.pack(">I", 1) + string(blob) + string(b"alice"),
        b"\x0e" + string(string(b"ssh-ed25519") + string(bytes(64))),
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
    assert f"signer ssh-agent:alice: its signature is not by key {alice().key_id}" in line


# --- PKCS #11


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Make a software token with alice's key; the path of its module."""
    pytest.importorskip("pkcs11", reason="needs-tool: python-pkcs11")
    found = sorted(Path("/usr/lib").glob("**/softhsm/libsofthsm2.so"))
    if not found or not shutil.which("softhsm2-util"):
        pytest.skip("needs-tool: softhsm2")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm.conf"))
    for argv in (
        ["--init-token", "--free", "--label", "lab", "--so-pin", "1234", "--pin", "4321"],
        ["--import", "alice.pem", "--token", "lab", "--label", "release", "--id", "01", "--pin", "4321"],
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
        ("token=lab;object=release", "9999", "PinIncorrect"),
        ("token=lab;object=release", "", "token=lab;object=release: no PIN"),
        ("token=lab;object=other", "4321", "no private keys"),
        ("token=none;object=release", "4321", "no tokens"),
        ("token=lab;object=release&pin-source=none", "", "pin-source none: cannot read"),
    ],
)
def test_token_that_does_not_sign(token: str, uri: str, pin: str, message: str) -> None:
    """One line, no PIN in it, nothing changed."""
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


def test_heavy_imports_happen_when_they_are_used() -> None:
    """A key file needs no token, no socket, no shell words."""
    code = (
        "import sys; from buildtool.cli.main import run; run(sys.argv[1:]); "
        "print([m for m in ('pkcs11', 'socket', 'buildtool.signers.ssh_agent') if m in sys.modules])"
    )
    argv = [sys.executable, "-c", code, *SIGN, "--key", "alice.pem"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
