# SPDX-License-Identifier: Apache-2.0
"""`trust`: policies are replaced as whole files, and mistakes in them are reported."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from labs.sig import other_key, sign, vector
from labs.sig import test_key as alice

from buildtool.cli.main import run
from buildtool.signing.keys import SigningKey, generate_key, load_public_key

Capture = pytest.CaptureFixture[str]
PAST, FUTURE = "2020-01-01T00:00:00Z", "9000-01-01T00:00:00Z"


@pytest.fixture(autouse=True)
def bob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SigningKey:
    """Work in a directory with alice.pub, bob.pub and an object that alice signed."""
    monkeypatch.chdir(tmp_path)
    key = other_key()
    Path("alice.pub").write_bytes(alice().public.pem)
    Path("bob.pub").write_bytes(key.public.pem)
    Path("x.bpf.o").write_bytes(sign())
    return key


def policy() -> dict[str, Any]:
    """Return policy.json."""
    value: dict[str, Any] = json.loads(Path("policy.json").read_text())
    return value


def change(**members: Any) -> None:
    """Write other members into policy.json."""
    Path("policy.json").write_text(json.dumps(policy() | members))


def verify(capsys: Capture) -> str:
    """Return the result of `verify` for alice's object under policy.json."""
    run(["verify", "x.bpf.o", "--trust", "policy.json", "--json"])
    (verdict,) = json.loads(capsys.readouterr().out)
    return str(verdict.get("reason", verdict["decision"]))


def test_a_key_lives_and_dies(capsys: Capture, bob: SigningKey) -> None:
    """Add, revoke, remove: the object is accepted, revoked, unknown-key."""
    assert run(["trust", "add", "alice.pub"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{alice().key_id}  added\n"
    assert "policy.json is a new policy: it trusts this key alone" in said.err
    assert verify(capsys) == "accepted"
    assert run(["trust", "add", "bob.pub", "--name", "Bob (line 3)", "--not-after", FUTURE]) == 0
    assert "alone" not in capsys.readouterr().err
    assert run(["trust", "revoke", alice().key_id[:8]]) == 0
    capsys.readouterr()
    assert verify(capsys) == "revoked"
    assert run(["trust", "remove", alice().key_id.upper()]) == 0
    capsys.readouterr()
    assert verify(capsys) == "unknown-key"
    (entry,) = policy()["keys"]
    assert (entry["name"], entry["notAfter"]) == ("Bob (line 3)", FUTURE)
    assert bob.key_id


def test_other_members_are_kept_and_the_form_is_stable(tmp_path: Path) -> None:
    """Other members stay, and a change followed by its opposite gives the same bytes."""
    run(["trust", "add", "alice.pub"])
    change(threshold=2, project="demo", deniedHelpers=[4, 36], objects={"x.bpf.o": {"minimumVersion": 3}})
    run(["trust", "add", "bob.pub"])
    before = Path("policy.json").read_bytes()
    assert before.endswith(b"\n}\n")
    Path("carol.pub").write_bytes((carol := generate_key()).public.pem)
    assert run(["trust", "add", "carol.pub"]) == 0
    assert run(["trust", "remove", carol.key_id]) == 0
    assert Path("policy.json").read_bytes() == before
    assert policy()["deniedHelpers"] == [4, 36]
    assert not list(tmp_path.glob(".policy*"))


def test_first_digits_of_a_key_id(capsys: Capture, bob: SigningKey) -> None:
    """All commands accept 8 digits or more, so also those that they show; `sign --remove` as `trust` does."""
    run(["trust", "add", "alice.pub"])
    run(["trust", "add", "bob.pub"])
    assert run(["keygen", "carol"]) == 0
    assert run(["sign", "--add", "--key", "keys/carol.pem", "x.bpf.o"]) == 0
    carol = load_public_key(Path("keys/carol.pub"))
    for digits in (bob.key_id[:7], f"{bob.key_id[:8]}x", f"{bob.key_id}0"):
        for argv in (
            ["trust", "revoke", digits],
            ["trust", "remove", digits],
            ["sign", "--remove", digits, "x.bpf.o"],
        ):
            capsys.readouterr()
            assert run(argv) == 2
            error, hint = capsys.readouterr().err.splitlines()
            assert error == f"buildtool: error: '{digits}' is not a key id"
            assert hint.startswith(
                "buildtool: hint: write at least 8 of its 64 hexadecimal digits; buildtool "
            )
    assert run(["sign", "--remove", carol.key_id[:8].upper(), "x.bpf.o"]) == 0
    assert capsys.readouterr().out.endswith(f"key {carol.key_id[:16]}\n")
    assert run(["sign", "--remove", carol.key_id[:8], "x.bpf.o"]) == 1
    assert f"x.bpf.o: no signature by key {carol.key_id[:8]}" in capsys.readouterr().err
    assert run(["trust", "remove", bob.key_id[:16]]) == 0


def test_hints_of_a_missing_policy_suit_the_command(capsys: Capture) -> None:
    """A hint names no option that the command lacks."""
    for argv in (["trust", "list"], ["trust", "check"], ["verify", "x.bpf.o", "--trust", "policy.json"]):
        assert run(argv) == 2
        hint = capsys.readouterr().err.splitlines()[-1]
        assert hint.startswith("buildtool: hint: name a policy, a .pub file, or a directory of .pub files;")
        assert "--trust" not in hint


def test_a_directory_means_its_policy() -> None:
    """As everywhere."""
    Path("trust").mkdir()
    assert run(["trust", "add", "alice.pub", "--policy", "trust"]) == 0
    assert Path("trust/policy.json").exists()


def test_list(capsys: Capture, bob: SigningKey) -> None:
    """One line for each key, with the word that a refusal would have; a name drives no terminal."""
    run(["trust", "add", "alice.pub"])
    change(keys=[policy()["keys"][0] | {"notAfter": PAST}])
    run(["trust", "add", "bob.pub", "--name", "b\x1b[2J\tb", "--not-before", FUTURE])
    capsys.readouterr()
    assert run(["trust", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{alice().key_id}\talice\texpired\t-\t{PAST}",
        f"{bob.key_id}\tb\\x1b[2J\\tb\tnot-yet-valid\t{FUTURE}\t-",
    ]
    assert run(["trust", "list", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [key["state"] for key in value["keys"]] == ["expired", "not-yet-valid"]
    run(["trust", "revoke", bob.key_id])
    capsys.readouterr()
    run(["trust", "list"])
    assert "\trevoked\t" in capsys.readouterr().out
    assert (value["threshold"], len(value["policy"])) == (1, 64)


def test_list_of_plain_keys(capsys: Capture) -> None:
    """A directory of .pub files is a store, too."""
    assert run(["trust", "list", "--policy", "."]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_check_of_a_good_policy(capsys: Capture) -> None:
    """Nothing but the digest that decision lines will show, and what holds beside it over an image."""
    run(["trust", "add", "alice.pub"])
    capsys.readouterr()
    assert run(["trust", "check"]) == 0
    line, over_image = capsys.readouterr().out.splitlines()
    assert line.endswith(": an object requires a signature by its key")
    assert over_image.endswith("the policy is combined with the image's rules (imageRules: combine)")
    change(imageRules="ignore")
    assert run(["trust", "check"]) == 0
    warning, hint, _, over_image = capsys.readouterr().out.splitlines()
    assert warning.startswith("warning: imageRules is ignore: a host accepts objects that the image")
    assert hint == "  hint: set it to combine, unless this policy has all rules of the image"
    assert over_image.endswith("the policy replaces the image's rules (imageRules: ignore)")
    assert run(["trust", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["imageRules"] == "ignore"
    change(imageRules="perhaps")
    assert run(["trust", "check"]) == 2
    assert "imageRules" in capsys.readouterr().err


def test_check_of_a_policy_that_accepts_nothing(capsys: Capture, bob: SigningKey) -> None:
    """Exit code 1: the file is right, but no object will ever pass."""
    run(["trust", "add", "alice.pub"])
    change(keys=[policy()["keys"][0] | {"notAfter": PAST}])
    run(["trust", "add", "bob.pub"])
    change(threshold=2, platforms=[])
    capsys.readouterr()
    assert run(["trust", "check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    text = "the threshold is 2, and only 1 of 2 keys is valid now"
    assert f"error: no object can be accepted: {text}" in lines
    assert "error: no object can be accepted: platforms is an empty list" in lines
    assert lines[-2].endswith(": an object requires a signature by 2 of its 2 keys")
    assert all(hint.startswith("  hint: ") for hint in lines[1:-2:2])
    change(threshold=1)
    run(["trust", "remove", bob.key_id[:8]])
    change(platforms=["linux/amd64"])
    capsys.readouterr()
    assert run(["trust", "check"]) == 1
    text = "the threshold is 1, and no key is valid now"
    assert f"error: no object can be accepted: {text}" in capsys.readouterr().out
    run(["trust", "add", "bob.pub"])
    change(threshold=2, platforms=[])
    capsys.readouterr()
    assert run(["trust", "check", "--json"]) == 1
    assert sum(item["fatal"] for item in json.loads(capsys.readouterr().out)["findings"]) == 2


def test_check_warns_of_what_is_odd(capsys: Capture) -> None:
    """Each probable mistake results in a line, and the exit code is 0."""
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
    run(["trust", "add", "alice.pub", "--name", "k", "--not-after", soon])
    run(["trust", "add", "bob.pub", "--name", "k"])
    change(
        programTypes=["xpd", "tc"],
        earliest=FUTURE,
        attachPoints=["?xdp", "xdp"],
        platforms=["linux/vax"],
        deniedHelpers=[4000],
        clock="unset-ok",
    )
    capsys.readouterr()
    assert run(["trust", "check"]) == 0
    lines = capsys.readouterr().out
    for part in (
        f"'k' expires within 30 days, at {soon}",
        "2 keys have the name 'k'",
        "'xpd' is no program type",
        "'tc' is no program type of libbpf (did you mean sched_cls?)",
        f"earliest is {FUTURE}, in the future",
        "'?xdp' matches no section",
        "'linux/vax' is unknown",
        "no helper has the number 4000",
        "clock is unset-ok",
    ):
        assert part in lines
    (entry, other) = policy()["keys"]
    change(keys=[entry | {"notBefore": FUTURE, "notAfter": PAST}, other | {"notBefore": PAST}])
    assert run(["trust", "check"]) == 0
    assert "'k' is never valid: notBefore is later than notAfter" in capsys.readouterr().out
    change(keys=[entry | {"notBefore": FUTURE, "notAfter": FUTURE}, other])
    assert run(["trust", "check"]) == 0
    assert f"'k' is not valid before {FUTURE}" in capsys.readouterr().out
    change(attachPoints=[], programTypes=[])
    assert run(["trust", "check"]) == 0
    out = capsys.readouterr().out
    assert (
        "programTypes is an empty list: only objects without programs and struct_ops maps are accepted" in out
    )
    assert "attachPoints is an empty list: only objects that attach and pin nothing are accepted" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "none.pub"], "none.pub: cannot read: no such file or directory"),
        (["add", "policy.json"], "policy.json: not a PEM public key"),
        (["add", "alice.pub"], f"policy.json: key {alice().key_id} is already trusted, as 'alice'"),
        (["add", "bob.pub", "--not-after", PAST], f"would never be valid: --not-after {PAST} has passed"),
        (["add", "bob.pub", "--not-after", "soon"], "'soon' is not a time"),
        (
            ["add", "bob.pub", "--not-after", PAST[:10]],
            f"would never be valid: --not-after {PAST} has passed",
        ),
        (["add", "bob.pub", "--not-after", PAST, "--not-before", FUTURE], "would never be valid"),
        (
            ["remove", "12345678"],
            (
                "policy.json: no key id begins with 12345678\n"
                "buildtool: hint: buildtool trust list --policy policy.json shows the key ids\n"
            ),
        ),
        (["remove", "1234"], "'1234' is not a key id"),
        (["revoke", "../../etc"], "'../../etc' is not a key id"),
        (["revoke", "12345678", "--policy", "none.json"], "none.json: cannot read"),
        (["remove", alice().key_id], "cannot remove the last key"),
        (["list", "--policy", "x.bpf.o"], "x.bpf.o: not UTF-8"),
        (["check", "--policy", "none.json"], "none.json: cannot read"),
    ],
)
def test_bad_input_changes_nothing(capsys: Capture, arguments: list[str], message: str) -> None:
    """One line, exit code 2, the policy as it was."""
    run(["trust", "add", "alice.pub"])
    before = Path("policy.json").read_bytes()
    capsys.readouterr()
    assert run(["trust", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert sum(line.startswith("buildtool: error: ") for line in error.splitlines()) == 1
    assert Path("policy.json").read_bytes() == before
    assert sorted(path.name for path in Path().iterdir() if path.suffix == ".json") == ["policy.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON: line 1 column 1"),
        ('{"policyVersion":1}', "threshold is missing"),
        ('{"a":1,"a":2}', "duplicate member"),
        (
            '{"policyVersion":1,"threshold":1,"keys":[],"future":1}',
            "policy: keys must be an array of 1 to 64 keys",
        ),
    ],
)
def test_a_broken_policy_is_not_mended(capsys: Capture, text: str, message: str) -> None:
    """No command changes a policy that breaks a rule."""
    Path("policy.json").write_text(text)
    for arguments in (["add", "alice.pub"], ["revoke", "12345678"], ["list"], ["check"]):
        assert run(["trust", *arguments]) == 2
        assert message in capsys.readouterr().err
        assert Path("policy.json").read_text() == text


def test_unknown_members_are_errors(capsys: Capture) -> None:
    """A policy with an unknown member is not changed, because the rule would be lost."""
    run(["trust", "add", "alice.pub"])
    change(future=1)
    before = Path("policy.json").read_bytes()
    assert run(["trust", "add", "bob.pub"]) == 2
    assert "unknown member 'future'" in capsys.readouterr().err
    assert Path("policy.json").read_bytes() == before


def test_state(capsys: Capture) -> None:
    """`verify --state` refuses what is older than what it accepted; a damaged state is exit code 1."""
    Path("state").mkdir()
    arguments = ["verify", "x.bpf.o", "--trust", "alice.pub", "--state", "state"]
    assert run(arguments) == 0
    Path("state/versions.json").write_text('{"projects":{"demo":{"x.bpf.o":4}},"stateVersion":1}')
    assert run(arguments) == 3
    assert "rolled-back: version 3 of x.bpf.o is older than 4, accepted before" in capsys.readouterr().out
    Path("state/versions.json").write_text("{")
    assert run(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("buildtool: error: state/versions.json: not valid JSON: line 1 column 2")


@pytest.mark.parametrize(
    ("name", "rules", "text", "hint"),
    [
        ("type-denied", {"programTypes": ["sk_msg", "lsm"]}, "not allowed, only lsm, sk_msg", "programTypes"),
        ("no-types-but-code", {"programTypes": []}, "is not allowed, only none at all", "programTypes"),
        ("no-types-but-code", {"attachPoints": ["tp/*"]}, "is not allowed, only tp/*", "attachPoints"),
        ("code-helper-denied", {"deniedHelpers": list(range(200))}, ", which is denied", "deniedHelpers"),
        ("", {"platforms": ["linux/arm64"]}, "'linux/amd64' is not allowed, only linux/arm64", "platforms"),
        ("", {"project": "other"}, "signed for project demo, not other", "project of the policy"),
        ("", {"objects": {"x.bpf.o": {"minimumVersion": 9}}}, "of x.bpf.o is older than 9", "minimumVersion"),
        ("", {"maxObjectBytes": 100}, "larger than 100 bytes", "maxObjectBytes"),
        ("", {"threshold": 2}, f"1 of 2 trusted keys signed: {alice().key_id}", "buildtool sign --add"),
    ],
)
def test_a_refusal_has_the_facts(
    capsys: Capture, name: str, rules: dict[str, Any], text: str, hint: str
) -> None:
    """It names the value and the bound, of which program; the hint names the member of the policy."""
    if name:
        Path("x.bpf.o").write_bytes(vector(name))
    run(["trust", "add", "alice.pub"])
    run(["trust", "add", "bob.pub"])
    change(**rules)
    capsys.readouterr()
    assert run(["verify", "x.bpf.o", "--trust", "policy.json"]) == 3
    output = capsys.readouterr()
    assert text in output.out
    assert hint in output.err
    if name == "type-denied":
        assert re.search(r"denied-by-policy: program '\w+' of type '\w+' is", output.out)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"revoked": True}, "revoked: signed with key {}, which is revoked"),
        ({"notAfter": PAST}, f"expired: signed with key {{}}, which expired at {PAST}"),
        ({"notBefore": FUTURE}, f"not-yet-valid: signed with key {{}}, which is not valid before {FUTURE}"),
    ],
)
def test_a_refused_key_is_named(capsys: Capture, members: dict[str, Any], text: str) -> None:
    """With the time that it is about."""
    run(["trust", "add", "alice.pub"])
    change(keys=[policy()["keys"][0] | members])
    capsys.readouterr()
    assert run(["verify", "x.bpf.o", "--trust", "policy.json"]) == 3
    assert text.format(alice().key_id) in capsys.readouterr().out
