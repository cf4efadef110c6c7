# SPDX-License-Identifier: Apache-2.0
"""Remarks about a valid trust store, each at its bound and one beyond."""

from __future__ import annotations

from typing import Any

import pytest
from labs.vectors.builder import ALICE, BOB
from labs.vectors.trust import policy, policy_key

from buildtool.core.strictjson import format_time
from buildtool.trust.lint import check_trust, key_state
from buildtool.trust.store import TrustStore, read_policy

NOW = 1_780_272_000  # 2026-06-01T00:00:00Z
DAY = 24 * 60 * 60


def store(*times: tuple[int | None, int | None], threshold: int = 1, **rules: Any) -> TrustStore:
    """Return a store whose keys have *times*: notBefore and notAfter, relative to NOW."""
    keys = []
    for signer, (before, after) in zip((ALICE, BOB), times or ((None, None),), strict=False):
        limits = {"notBefore": before, "notAfter": after}
        given = {name: format_time(NOW + time) for name, time in limits.items() if time is not None}
        keys.append(policy_key(signer, **given))
    return read_policy(policy(*keys, threshold=threshold, **rules)["policy.json"].encode())


def remarks(trust: TrustStore) -> list[str]:
    """Return the remarks without what identifies a key; fatal ones have a mark."""
    return [("! " if one.fatal else "") + one.message for one in check_trust(trust, NOW)]


@pytest.mark.parametrize(
    ("before", "after", "words", "state"),
    [
        (None, None, [], "valid"),
        (None, 30 * DAY, [], "valid"),
        (None, 30 * DAY - 1, ["expires within 30 days, at"], "valid"),
        (None, 0, ["expires within 30 days, at"], "valid"),
        (
            None,
            -1,
            ["! no object can be accepted: the threshold is 1", "expired at"],
            "expired",
        ),
        (0, None, [], "valid"),
        (1, None, ["! no object can be accepted", "is not valid before"], "not-yet-valid"),
        (40 * DAY, 40 * DAY, ["! no object can be accepted", "is not valid before"], "not-yet-valid"),
        (
            40 * DAY + 1,
            40 * DAY,
            ["! no object can be accepted", "is never valid: notBefore is later"],
            "not-yet-valid",
        ),
    ],
)
def test_times_of_a_key(before: int | None, after: int | None, words: list[str], state: str) -> None:
    """The bounds belong to the validity, and 30 days before its end is not soon."""
    trust = store((before, after))
    found = remarks(trust)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True)), found
    assert [key_state(key, NOW) for key in trust.keys.values()] == [state]


def test_threshold_that_the_usable_keys_reach() -> None:
    """A key that does not count now is missing."""
    assert remarks(store((None, None), (None, None), threshold=2)) == []
    first, second = remarks(store((None, None), (None, -1), threshold=2))
    assert first == ("! no object can be accepted: the threshold is 2, and only 1 of 2 keys is valid now")
    assert " 'bob' expired at 2026-05-31T23:59:59Z" in second


def test_names_of_keys() -> None:
    """Two keys with one name are one remark."""
    keys = [policy_key(signer) | {"name": "same"} for signer in (ALICE, BOB)]
    trust = read_policy(policy(*keys)["policy.json"].encode())
    assert remarks(trust) == ["2 keys have the name 'same'"]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"earliest": format_time(NOW + DAY)}, []),
        ({"earliest": format_time(NOW + DAY + 1)}, ["in the future: objects expire too soon"]),
        ({"platforms": []}, ["! no object can be accepted: platforms is an empty list"]),
        ({"platforms": ["linux/amd64"]}, []),
        ({"platforms": ["linux/vax"]}, ["platforms: 'linux/vax' is unknown"]),
        ({"programTypes": []}, ["programTypes is an empty list"]),
        ({"programTypes": ["xdp", "unspec"]}, []),
        ({"programTypes": ["tc"]}, ["'tc' is no program type of libbpf (did you mean sched_cls?)"]),
        ({"programTypes": ["vax"]}, ["programTypes: 'vax' is no program type of libbpf"]),
        ({"attachPoints": []}, ["attachPoints is an empty list"]),
        ({"attachPoints": ["xdp", "a?b", "x.text"]}, []),
        ({"attachPoints": ["?xdp"]}, ["attachPoints: '?xdp' matches no section"]),
        ({"attachPoints": [".text"]}, ["attachPoints: '.text' matches no section"]),
        ({"attachPoints": [".struct_ops.link"]}, ["'.struct_ops.link' matches no section"]),
        ({"attachPoints": ["?.struct_ops"]}, ["'?.struct_ops' matches no section"]),
        ({"deniedHelpers": [1]}, []),
        ({"deniedHelpers": [0]}, ["deniedHelpers: no helper has the number 0"]),
        ({"allowRollback": True}, ["allowRollback is true: older releases are accepted"]),
        ({"allowRollback": False}, []),
        ({"imageRules": "ignore"}, ["imageRules is ignore"]),
        ({"imageRules": "combine"}, []),
        ({"clock": "unset-ok"}, []),
    ],
)
def test_rules(rules: dict[str, Any], expected: list[str]) -> None:
    """A rule that allows nothing, or more than its author may know, has one remark."""
    found = remarks(store(**rules))
    assert len(found) == len(expected), found
    assert all(word in text for word, text in zip(expected, found, strict=True)), found


def test_a_clock_that_need_not_be_set() -> None:
    """The remark is for keys that end."""
    (found,) = remarks(store((None, 90 * DAY), clock="unset-ok"))
    assert found == "clock is unset-ok: a machine without a clock accepts keys after their notAfter"
    assert remarks(store((None, 90 * DAY), clock="required")) == []


@pytest.mark.parametrize(
    ("point", "hint"),
    [("?xdp", "write the section without the question mark"), (".text", "remove it")],
)
def test_hints_of_attach_points(point: str, hint: str) -> None:
    """The hint fits the reason why a point matches nothing."""
    (found,) = check_trust(store(attachPoints=[point]), NOW)
    assert found.hint == hint
