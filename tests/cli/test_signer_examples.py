# SPDX-License-Identifier: Apache-2.0
"""The signers that the documentation shows, run with stand-ins for the services' commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from labs import TOP
from labs.cli import enter_project
from labs.sig import test_key as alice

from buildtool.cli.main import run
from buildtool.signing.keys import load_public_key

SIGN = ["sign", "x.bpf.o", "--arch", "amd64", "--key"]

VAULT = """
import base64, json, sys
from pathlib import Path
from buildtool.signing.keys import load_signing_key
key = load_signing_key(Path("alice.pem"), None)
if sys.argv[1:] == ["read", "-format=json", "transit/keys/ebpf"]:
    keys = {"1": {"name": "ed25519", "public_key": base64.b64encode(bytes(32)).decode()},
            "12": {"name": "ed25519", "public_key": base64.b64encode(key.public.raw).decode()}}
    print(json.dumps({"data": {"keys": keys, "latest_version": 12}}, indent=2))
elif sys.argv[1:] == ["write", "-field=signature", "transit/sign/ebpf", "key_version=12", "input=-"]:
    signature = key.sign(base64.b64decode(sys.stdin.read(), validate=True))
    print("vault:v12:" + base64.b64encode(signature).decode(), end="")
else:
    sys.exit(f"unexpected: {sys.argv}")
"""
GCLOUD = """
import sys
from pathlib import Path
from buildtool.signing.keys import load_signing_key
key = load_signing_key(Path("alice.pem"), None)
match sys.argv[1:]:
    case ["kms", "keys", "versions", "get-public-key", "resource", "--output-file", out]:
        Path(out).write_bytes(key.public.pem)
    case ["kms", "asymmetric-sign", "--version", "resource", "--input-file", data, "--signature-file", out]:
        Path(out).write_bytes(key.sign(Path(data).read_bytes()))
        print("done")
    case _:
        sys.exit(f"unexpected: {sys.argv}")
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_project(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(TOP))


def write_example(page: str, number: int, name: str) -> None:
    """Write the script that is block *number* of those with a first line in *page*."""
    blocks = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", (TOP / page).read_text(), re.DOTALL)
    Path(name).write_text(blocks[number])
    Path(name).chmod(0o755)


def write_command(name: str, body: str) -> None:
    """Write a command for PATH."""
    Path(name).write_text(f"#!{sys.executable}\n{body}")
    Path(name).chmod(0o755)


@pytest.mark.tools
def test_examples_give_what_the_key_file_gives() -> None:
    """The signer of the specification, Vault's and the cloud's: the same file, byte for byte."""
    assert run([*SIGN, "alice.pem", "--output", "wanted"]) == 0
    write_example("spec/exec-signer.md", 0, "file-signer")
    write_example("docs/how-to/signers.md", 0, "vault-signer")
    write_example("docs/how-to/signers.md", 1, "kms-signer")
    write_command("vault", VAULT)
    write_command("gcloud", GCLOUD)
    wanted = Path("wanted/x.bpf.o").read_bytes()
    for command in ("file-signer alice.pem", "vault-signer ebpf 12", "kms-signer resource"):
        output = command.partition(" ")[0] + "-out"
        assert run([*SIGN, f"exec:./{command}", "--output", output]) == 0, command
        assert Path(output, "x.bpf.o").read_bytes() == wanted


@pytest.mark.tools
def test_public_key_of_an_agent_identity() -> None:
    """The how-to's command makes the .pub file that a trust store takes."""
    page = (TOP / "docs/how-to/signers.md").read_text()
    (block,) = re.findall(r"```sh\n(\(printf.*?)```", page, re.DOTALL)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "release"], check=True)
    subprocess.run(["sh", "-ec", block], check=True)
    key = load_public_key(Path("release.pem.pub"))
    assert key.raw != alice().public.raw
    assert len(key.raw) == 32
