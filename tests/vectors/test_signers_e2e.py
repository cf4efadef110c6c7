# SPDX-License-Identifier: Apache-2.0
"""Several signers, threshold, rotation, revocation and expiry: both verifiers agree on the same files."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labs.sig import unsigned
from labs.verifiers import run_loader

from buildtool.cli.main import run
from buildtool.core.errors import RefusedError
from buildtool.core.strictjson import parse_time
from buildtool.objects.elf import find_signature_section, parse_object, subject_digest
from buildtool.signing.keys import SigningKey, generate_key, save_key
from buildtool.signing.record import SignatureEntry, from_bytes, to_bytes
from buildtool.trust.store import load_trust
from buildtool.trust.verify import verify_object

Capture = pytest.CaptureFixture[str]
NOW = "2026-06-01T00:00:00Z"
BEFORE, AFTER = "2026-05-31T00:00:00Z", "2026-06-02T00:00:00Z"
Verify = Callable[..., str]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, SigningKey]:
    """Make keys, and an object x.bpf.o that `old` signed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    made = {name: generate_key() for name in ("old", "new", "third", "fourth", "fifth")}
    for name, key in made.items():
        save_key(key, name, tmp_path, None)
    Path("x.bpf.o").write_bytes(unsigned())
    assert run(["sign", "x.bpf.o", "--arch", "amd64", "--key", "old.pem", "--project", "demo"]) == 0
    return made


@pytest.fixture
def verify(keys: dict[str, SigningKey], loader_binary: Path) -> Verify:
    """
    Return a function that verifies x.bpf.o with a policy of keys and returns "accepted" or the reason.

    The function checks that both verifiers agree, with the same key ids.
    """

    def verify(threshold: int = 1, **rules: dict[str, Any]) -> str:
        listed = [
            {"name": name, "publicKey": b64encode(keys[name].public.der).decode(), **rule}
            for name, rule in rules.items()
        ]
        policy = Path("policy.json")
        policy.write_text(json.dumps({"policyVersion": 1, "threshold": threshold, "keys": listed}))
        data = Path("x.bpf.o").read_bytes()
        try:
            verified = verify_object(data, load_trust([policy]), platform="linux/amd64", now=parse_time(NOW))
            expected, key_ids = "accepted", list(verified.key_ids)
        except RefusedError as error:
            expected, key_ids = str(error.reason), []
        arguments = ["--objects", "x.bpf.o", "--trust", "policy.json", "--time", NOW]
        code, lines = run_loader(loader_binary, *arguments, "--platform", "linux/amd64")
        (line,) = [line for line in lines if line["event"] == "verify"]
        assert code == (0 if expected == "accepted" else 3)
        assert (line.get("reason") or line["decision"]) == expected
        if expected == "accepted":
            assert line["keyIds"] == key_ids
        return expected

    return verify


def add(name: str) -> int:
    """Add the signature of key *name*."""
    return run(["sign", "--add", "x.bpf.o", "--key", f"{name}.pem"])


def digest_and_statement() -> tuple[str, bytes]:
    """Return the digest and the statement, which an added signature must not change."""
    obj = parse_object(Path("x.bpf.o").read_bytes())
    section = find_signature_section(obj)
    return subject_digest(obj, section), from_bytes(obj.contents(section)).statement


def test_rotation_with_an_overlap(keys: dict[str, SigningKey], verify: Verify) -> None:
    """During a rotation, hosts with the old key, both keys, or the old key revoked accept the object."""
    assert verify(old={}) == "accepted"
    assert verify(new={}) == "unknown-key"
    before = digest_and_statement()
    assert add("new") == 0
    assert digest_and_statement() == before
    assert verify(old={}) == "accepted"
    assert verify(old={}, new={}) == "accepted"
    assert verify(old={"revoked": True}, new={}) == "accepted"
    assert verify(new={}) == "accepted"
    assert run(["sign", "x.bpf.o", "--remove", keys["old"].key_id]) == 0
    assert digest_and_statement() == before
    assert verify(old={"revoked": True}, new={}) == "accepted"
    assert verify(old={}) == "unknown-key"


def test_revoked_key(verify: Verify) -> None:
    """A signature of a revoked key alone is refused, also if a new key is trusted."""
    assert verify(old={"revoked": True}) == "revoked"
    assert verify(old={"revoked": True}, new={}) == "revoked"


def test_expiry_and_start_of_a_key(verify: Verify) -> None:
    """The times of notBefore and notAfter are inclusive."""
    assert verify(old={"notAfter": NOW}) == "accepted"
    assert verify(old={"notAfter": BEFORE}) == "expired"
    assert verify(old={"notBefore": NOW}) == "accepted"
    assert verify(old={"notBefore": AFTER}) == "not-yet-valid"
    assert add("new") == 0
    assert verify(old={"notAfter": BEFORE}, new={"notBefore": NOW}) == "accepted"


def test_threshold(verify: Verify) -> None:
    """Two of three: one signature is too few, a revoked one does not count, three are enough."""
    three: dict[str, dict[str, Any]] = {"old": {}, "new": {}, "third": {}}
    assert verify(2, **three) == "below-threshold"
    assert add("third") == 0
    assert verify(2, **three) == "accepted"
    assert verify(2, old={"revoked": True}, new={}, third={}) == "below-threshold"
    assert add("new") == 0
    assert verify(2, old={"revoked": True}, new={}, third={}) == "accepted"
    assert verify(3, **three) == "accepted"


def test_order_of_signers_does_not_matter(keys: dict[str, SigningKey]) -> None:
    """The same signers give the same bytes."""
    assert (add("new"), add("third")) == (0, 0)
    first = Path("x.bpf.o").read_bytes()
    assert run(["sign", "x.bpf.o", "--remove", keys["new"].key_id[:16]]) == 0
    assert add("new") == 0
    assert Path("x.bpf.o").read_bytes() == first


def test_full_section(verify: Verify, capsys: Capture) -> None:
    """The section has room for at least four signatures; one too many is an error and changes nothing."""
    names = ["old"]
    for number in range(16):
        save_key(generate_key(), f"k{number}", Path(), None)
        before = Path("x.bpf.o").read_bytes()
        if add(f"k{number}") != 0:
            break
        names.append(f"k{number}")
    assert len(names) >= 4
    assert "no room in its section .sig for more than" in capsys.readouterr().err
    assert Path("x.bpf.o").read_bytes() == before
    assert verify(old={}) == "accepted"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--add", "--key", "old.pem"], 1, "x.bpf.o: already signed by key "),
        (["--add", "--key", "new.pem", "--release", "2"], 2, "--release cannot be combined with"),
        (["--add", "--key", "new.pem", "--arch", "amd64"], 2, "--arch cannot be combined with"),
        (["--add", "--key", "new.pem", "--force"], 2, "--force cannot be combined with"),
        (["--add", "--remove", "ab" * 32], 2, "--add cannot be combined with"),
        (["--add", "--key", "new.pem", "plain.o"], 1, "plain.o: not signed yet"),
        (["--add", "--key", "new.pem", "stale.o"], 1, "stale.o: the file has changed since it was signed"),
        (["--add", "--key", "new.pem", "none.o"], 1, "none.o: cannot read"),
        (["--add", "--key", "new.pem", "x.bpf.o"], 2, "x.bpf.o and x.bpf.o: both would be written to"),
        (["--remove", "xyz"], 2, "'xyz' is not a key id"),
        (["--remove", "ab" * 32], 1, "x.bpf.o: no signature by key abab"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    keys: dict[str, SigningKey], capsys: Capture, arguments: list[str], code: int, message: str
) -> None:
    """An error in one object changes none of them."""
    Path("plain.o").write_bytes(unsigned())
    stale = bytearray(Path("x.bpf.o").read_bytes())
    stale[70] ^= 1
    Path("stale.o").write_bytes(stale)
    before = {path: path.read_bytes() for path in Path().iterdir()}
    capsys.readouterr()
    assert run(["sign", "x.bpf.o", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err.splitlines()[0]
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_last_signature_stays(keys: dict[str, SigningKey], capsys: Capture) -> None:
    """The only signature cannot be removed."""
    assert run(["sign", "x.bpf.o", "--remove", keys["old"].key_id]) == 1
    assert "cannot remove the only signature" in capsys.readouterr().err


def test_add_refuses_a_false_statement(keys: dict[str, SigningKey], capsys: Capture) -> None:
    """--add refuses a statement that does not fit the object."""
    data = Path("x.bpf.o").read_bytes()
    obj = parse_object(data)
    section = find_signature_section(obj)
    record = from_bytes(obj.contents(section))
    lie = record.statement.replace(b'"helpers":[]', b'"helpers":[1]', 1)
    assert lie != record.statement
    entry = SignatureEntry(key_id=bytes.fromhex(keys["old"].key_id), signature=bytes(64))
    forged = to_bytes(replace(record, statement=lie, signatures=(entry,)))
    Path("x.bpf.o").write_bytes(data[: section.offset] + forged + data[section.end :])
    assert add("new") == 1
    assert "the statement does not match the object: helpers" in capsys.readouterr().err
    assert run(["sign", "--add", "x.bpf.o", "--key", "new.pem", "--json"]) == 1


def test_json_and_output_directory(keys: dict[str, SigningKey], capsys: Capture) -> None:
    """--output leaves the source unchanged, and --json has the new file and key."""
    before = Path("x.bpf.o").read_bytes()
    capsys.readouterr()
    assert run(["sign", "--add", "x.bpf.o", "--key", "new.pem", "--output", "out", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["file"] == "out/x.bpf.o"
    assert entry["keyId"] == keys["new"].key_id
    assert Path("x.bpf.o").read_bytes() == before
    assert Path("out/x.bpf.o").stat().st_size == len(before)
