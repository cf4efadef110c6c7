# SPDX-License-Identifier: Apache-2.0
"""Every signer for real: variables, a software token, an ssh-agent, programs; and that no secret shows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from labs.cli import SIGN, Capture, enter_project, refused, signers_of
from labs.sig import test_key as alice
from labs.sig import unsigned

from buildtool.cli.main import run
from buildtool.signing.keys import generate_key, load_public_key, save_key

SECRET_LINES = 3


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_project(tmp_path, monkeypatch)


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
    for name, problem in (("NONE", "not set"), ("EMPTY", "empty")):
        assert f"env:{name}: the variable is {problem}" in refused([*SIGN, "--key", f"env:{name}"], capsys)
    line = refused([*SIGN, "--key", "env:WRONG"], capsys)
    assert "env:WRONG: not a PKCS#8 PEM private key" in line
    assert "hello" not in line


def test_pasted_key_is_not_echoed(capsys: Capture) -> None:
    """A key pasted as --key, as sign.key or as a variable's name is not echoed."""
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
        ("env:", 2, "env: requires the name of a variable"),
        ("env:A-B", 2, "env: requires the name of a variable"),
        ("exec:", 2, "exec: no program named"),
        ("exec:'x", 2, "exec:'x: a quote without its end"),
        ("exec:./none", 1, "./none: not found"),
        ("pkcs11:", 2, "pkcs11: the URI names no key"),
        ("pkcs11:token=x", 2, "pkcs11: the URI names no key"),
        ("pkcs11:object=x;colour=y", 2, "pkcs11: unknown attribute 'colour'"),
        ("pkcs11:object=x;object=y", 2, "pkcs11: duplicate attribute object"),
        ("pkcs11:object=x?pin-value=1234", 2, "pkcs11: no pin-value in a URI"),
        ("pkcs11:object=x;type=public", 2, "pkcs11: type must be private"),
        ("pkcs11:object=x", 2, "pkcs11: no module named"),
        ("ssh-agent:x", 1, "ssh-agent: SSH_AUTH_SOCK is not set"),
        ("pkcs11:object=x?module-path=/none.so", 1, "pkcs11:object=x: the module cannot be loaded"),
        ("", 2, "--key: the name of the signer is empty"),
    ],
)
def test_reference_that_cannot_be(reference: str, code: int, message: str, capsys: Capture) -> None:
    """A wrong reference to a signer results in one error line, and no file changes."""
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
    assert f"--passphrase-fd {reading}: cannot read" in refused([*command, str(reading)], capsys, 1)
    assert signers_of("x.bpf.o", load_public_key(tmp_path / "locked.pub"))


def test_old_key_file(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --max-key-age, an older key file is refused."""
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


@pytest.mark.tools
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


@pytest.mark.tools
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


@pytest.mark.tools
def test_no_secret_in_output_children_or_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Output with -v and errors contain no secret, and started programs receive none."""
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


def test_heavy_imports_happen_when_they_are_used() -> None:
    """A key file needs no token and no agent; their modules load when a signer of the kind is named."""
    code = (
        "import sys; from buildtool.cli.main import run; run(sys.argv[1:]); "
        "late = {'pkcs11', 'buildtool.signing.signers.pkcs11', 'buildtool.signing.signers.sshagent'}; "
        "print(sorted(late & set(sys.modules)))"
    )
    argv = [sys.executable, "-c", code, *SIGN, "--key", "alice.pem"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
