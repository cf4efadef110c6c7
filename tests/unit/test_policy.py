# SPDX-License-Identifier: Apache-2.0
"""`[trust]` of buildtool.toml becomes the image's trust store."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from buildtool.config.file import Config, load_config
from buildtool.core.errors import ConfigError
from buildtool.signing.keys import SigningKey, generate_key
from buildtool.trust.edit import add_key, revoke_key
from buildtool.trust.generate import trust_files
from buildtool.trust.store import read_policy

AMD64 = ["linux/amd64"]
OBJECTS = ["x.bpf.o"]
RULES = """
threshold = 1
project = "demo"
platforms = ["arm64", "linux/amd64"]
program-types = ["xdp", "sched_cls", "xdp"]
attach-points = ["xdp", "tc/*"]
denied-helpers = ["bpf_probe_write_user", 4]
denied-kfuncs = ["bpf_b", "bpf_a"]
max-object-bytes = 65536
allow-rollback = true
clock = "unset-ok"
earliest = 2026-01-01T00:00:00Z
minimum-versions = { "x.bpf.o" = 2 }
"""


@pytest.fixture
def signer(tmp_path: Path) -> SigningKey:
    """Give a key whose public half is a.pub; old.pub is another's."""
    key = generate_key()
    (tmp_path / "a.pub").write_bytes(key.public.pem)
    (tmp_path / "old.pub").write_bytes(generate_key().public.pem)
    return key


def config(tmp_path: Path, trust: str, version: int = 3) -> Config:
    """Return the configuration with *trust* as its table."""
    path = tmp_path / "buildtool.toml"
    path.write_text(f'[project]\nname = "demo"\nversion = {version}\n[trust]\n{trust}\n')
    return load_config(path)


def compiled(tmp_path: Path, trust: str, signer: SigningKey) -> dict[str, Any]:
    """Return the policy of table *trust*."""
    ((name, text),) = trust_files(config(tmp_path, trust), signer.public, AMD64, OBJECTS).items()
    assert name == "policy.json"
    value: dict[str, Any] = json.loads(text)
    return value


def test_the_image_takes_only_its_own_project_and_nothing_older(tmp_path: Path, signer: SigningKey) -> None:
    """Without any rule a policy binds the key to the project and to the versions in the image."""
    policy = compiled(tmp_path, "", signer)
    assert sorted(policy) == ["keys", "objects", "policyVersion", "project", "threshold"]
    assert (policy["project"], policy["objects"]) == ("demo", {"x.bpf.o": {"minimumVersion": 3}})
    assert [key["name"] for key in policy["keys"]] == [signer.public.key_id[:16]]
    assert len(compiled(tmp_path, 'keys = ["a.pub", "old.pub"]', signer)["keys"]) == 2


def test_a_stated_minimum_wins(tmp_path: Path, signer: SigningKey) -> None:
    """A stated minimum version overrides the image's own version for that object only."""
    policy = compiled(tmp_path, 'minimum-versions = { "x.bpf.o" = 1, "y.bpf.o" = 2 }', signer)
    assert policy["objects"] == {"x.bpf.o": {"minimumVersion": 1}, "y.bpf.o": {"minimumVersion": 2}}


def test_every_rule(tmp_path: Path, signer: SigningKey) -> None:
    """Each key of the table has its member, sorted, with names as numbers."""
    policy = compiled(tmp_path, 'keys = ["a.pub"]\nrevoked = ["old.pub"]' + RULES, signer)
    keys = policy.pop("keys")
    assert [(key["name"], key.get("revoked", False)) for key in keys] == [("a", False), ("old", True)]
    assert policy == {
        "policyVersion": 1,
        "threshold": 1,
        "project": "demo",
        "platforms": ["linux/amd64", "linux/arm64"],
        "objects": {"x.bpf.o": {"minimumVersion": 2}},
        "programTypes": ["sched_cls", "xdp"],
        "attachPoints": ["tc/*", "xdp"],
        "deniedHelpers": [4, 36],
        "deniedKfuncs": ["bpf_a", "bpf_b"],
        "maxObjectBytes": 65536,
        "allowRollback": True,
        "clock": "unset-ok",
        "earliest": "2026-01-01T00:00:00Z",
    }


@pytest.mark.parametrize("rule", [line for line in RULES.splitlines() if line and "threshold" not in line])
def test_one_rule_makes_a_policy(tmp_path: Path, signer: SigningKey, rule: str) -> None:
    """No rule is lost because it stands alone; the key is then the signer's."""
    policy = compiled(tmp_path, rule, signer)
    first, *rest = rule.partition(" = ")[0].split("-")
    name = first + "".join(map(str.title, rest))
    member = "objects" if name == "minimumVersions" else name
    assert set(policy) == {"keys", "objects", "policyVersion", "project", "threshold", member}
    assert policy["keys"][0]["name"] == signer.key_id[:16]


@pytest.mark.parametrize("name", ["program-types", "attach-points", "denied-helpers", "denied-kfuncs"])
def test_an_empty_list_is_a_rule(tmp_path: Path, signer: SigningKey, name: str) -> None:
    """It allows nothing, or it demands an honest statement."""
    assert [] in compiled(tmp_path, f"{name} = []", signer).values()


def test_the_same_configuration_gives_the_same_bytes(tmp_path: Path, signer: SigningKey) -> None:
    """The order in the file does not matter."""
    lines = RULES.splitlines()
    texts = [
        trust_files(config(tmp_path, "\n".join(order)), signer.public, AMD64, OBJECTS)["policy.json"]
        for order in (lines, lines[::-1])
    ]
    assert texts[0] == texts[1]
    assert read_policy(texts[0].encode()).project == "demo"


@pytest.mark.parametrize(
    ("trust", "message"),
    [
        ('project = "other"', "trust.project is other, project.name is demo"),
        ('platforms = ["arm64"]', "trust.platforms lacks linux/amd64"),
        ('minimum-versions = { "x.bpf.o" = 4 }', "a minimum version is 4, project.version is 3"),
        ('keys = ["old.pub"]\nclock = "unset-ok"', "the policy lacks the signing key"),
        ('keys = ["old.pub"]', "the policy lacks the signing key"),
        ('revoked = ["a.pub"]', "is revoked: the image would refuse its own objects"),
        ('keys = ["a.pub", "old.pub"]\nrevoked = ["old.pub"]', "is in trust.keys as well"),
        ('keys = ["a.pub", "a.pub"]\nproject = "demo"', "is listed twice, as 'a'"),
        ("earliest = 9000-01-01T00:00:00Z", "trust.earliest 9000-01-01T00:00:00Z is in the future"),
        (
            'keys = ["a.pub", "old.pub"]\nthreshold = 2',
            "trust.threshold is 2, but a build signs with one key",
        ),
        ('policy = "none.json"', "none.json: cannot read"),
        ('policy = "a.pub"', "a.pub: not a policy but a public key"),
    ],
)
def test_a_policy_that_refuses_its_own_image_is_an_error(
    tmp_path: Path, signer: SigningKey, trust: str, message: str
) -> None:
    """Better at the build than on the machine."""
    with pytest.raises(ConfigError) as caught:
        trust_files(config(tmp_path, trust), signer.public, AMD64, OBJECTS)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_a_given_policy_is_taken_as_it_is(tmp_path: Path, signer: SigningKey) -> None:
    """Byte for byte, so that its digest is the one that decision lines show."""
    add_key(tmp_path / "p.json", signer.public, name="Ren\u00e9 \u2713")
    files = trust_files(config(tmp_path, 'policy = "p.json"'), signer.public, AMD64, OBJECTS)
    assert files["policy.json"].encode() == (tmp_path / "p.json").read_bytes()
    other = replace(config(tmp_path, 'policy = "p.json"\nthreshold = 2'))
    with pytest.raises(ConfigError, match="cannot be combined"):
        trust_files(other, signer.public, AMD64, OBJECTS)
    revoke_key(tmp_path / "p.json", signer.key_id)
    with pytest.raises(ConfigError, match="is revoked: the image would refuse its own objects"):
        trust_files(config(tmp_path, 'policy = "p.json"'), signer.public, AMD64, OBJECTS)
    (tmp_path / "p.json").write_bytes((tmp_path / "p.json").read_bytes().rstrip())
    with pytest.raises(ConfigError, match="line feeds"):
        trust_files(config(tmp_path, 'policy = "p.json"'), signer.public, AMD64, OBJECTS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('program-types = ["xpd"]', "'xpd' is not a program type (did you mean xdp?)"),
        ('denied-helpers = ["bpf_probe_write_usr"]', "(did you mean bpf_probe_write_user?)"),
        ("denied-helpers = [-1]", "must be a list of helpers: names or numbers"),
        ("denied-helpers = [true]", "must be a list of helpers: names or numbers"),
        ("denied-helpers = 4", "must be a list of strings"),
        ('denied-kfuncs = ["a b"]', "'a b' is not a program name"),
        ('attach-points = ["x*p"]', "'x*p' is not a section name"),
        ('attach-points = [""]', "'' is not a section name"),
        ('platforms = ["vax"]', "vax"),
        ('clock = "no"', "'no' is neither required nor unset-ok"),
        ('minimum-versions = { "../x" = 1 }', "'../x' is not an object name"),
        ('minimum-versions = { "x" = "1" }', "the version of x must be an integer"),
        ("minimum-versions = 3", "must be a table"),
        ("max-object-bytes = 0", "must be an integer from 1 to 67108864"),
        ('earliest = "soon"', "'soon' is not a time"),
    ],
)
def test_a_wrong_word_is_found_at_its_line(tmp_path: Path, line: str, message: str) -> None:
    """One line, with file and line."""
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, line)
    assert caught.value.message.startswith(f"{tmp_path}/buildtool.toml:5: trust.")
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_signing_key_that_is_not_valid_yet(tmp_path: Path, signer: SigningKey) -> None:
    """The image would refuse its objects until then."""
    for not_before, words in ((4_000_000_000, "is not valid before 2096-10-02T07:06:40Z"), (0, "")):
        (tmp_path / "p.json").unlink(missing_ok=True)
        add_key(tmp_path / "p.json", signer.public, name="a", not_before=not_before)
        given = config(tmp_path, 'policy = "p.json"')
        if words:
            with pytest.raises(ConfigError, match=words):
                trust_files(given, signer.public, AMD64, OBJECTS)
        else:
            assert trust_files(given, signer.public, AMD64, OBJECTS)


@pytest.mark.parametrize(("now", "words"), [(1_767_139_200, ""), (1_767_139_199, "is in the future")])
def test_earliest_time_in_the_future(
    tmp_path: Path, signer: SigningKey, monkeypatch: pytest.MonkeyPatch, now: int, words: str
) -> None:
    """A clock may be a day behind the time of the policy."""
    monkeypatch.setattr(time, "time", lambda: now)
    given = config(tmp_path, "earliest = 2026-01-01T00:00:00Z")
    if words:
        with pytest.raises(ConfigError, match=words):
            trust_files(given, signer.public, AMD64, OBJECTS)
    else:
        assert trust_files(given, signer.public, AMD64, OBJECTS)
