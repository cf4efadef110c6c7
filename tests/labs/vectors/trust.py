# SPDX-License-Identifier: Apache-2.0
"""Trust stores of the vectors: valid ones, and those that are configuration errors."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from labs.vectors.builder import ALICE, BOB, CAROL, DER_PREFIX, MALLORY, Signer, encode, pub
from labs.vectors.points import bad_keys

NOW = "2026-06-01T00:00:00Z"


def policy_key(signer: Signer, **more: Any) -> dict[str, Any]:
    """Return the policy's entry of *signer*."""
    return {"name": signer.name, "publicKey": b64encode(DER_PREFIX + signer.raw).decode(), **more}


def policy(*keys: dict[str, Any], threshold: int = 1, **more: Any) -> dict[str, str]:
    """Return a trust directory with a policy."""
    value = {"policyVersion": 1, "threshold": threshold, "keys": list(keys), **more}
    return {"policy.json": encode(value).decode()}


A, B, C = policy_key(ALICE), policy_key(BOB), policy_key(CAROL)
CROWD = [Signer(name=f"crowd-{number}") for number in range(64)]
# The base64 of this key contains two slashes, as many bytes as one letter with an accent.
SLASHES = policy_key(Signer(name="slash-96"))
A_PEM = pub(ALICE.raw)

TRUST: dict[str, dict[str, str]] = {
    "alice": {"alice.pub": A_PEM},
    "alice-and-bob": {"alice.pub": A_PEM, "bob.pub": pub(BOB.raw)},
    "crlf": {"alice.pub": A_PEM.replace("\n", "\r\n")},
    "hidden-pub": {"alice.pub": A_PEM, ".mallory.pub": pub(MALLORY.raw)},
    "wrapped": {"alice.pub": "\t \r\n" + A_PEM.replace("QYDK2Vw", "QYDK\n2Vw") + " \r\n\t"},
    "policy-64-keys": policy(A, *map(policy_key, CROWD[1:])),
    "policy-before-pub": {**policy(A), "mallory.pub": pub(MALLORY.raw)},
    "two-of-three": policy(A, B, C, threshold=2),
    "revoked": policy(policy_key(ALICE, revoked=True), B),
    "key-expired": policy(policy_key(ALICE, notAfter="2026-05-31T23:59:59Z"), B),
    "key-expires-now": policy(policy_key(ALICE, notAfter=NOW, notBefore=NOW)),
    "key-not-yet": policy(policy_key(ALICE, notBefore="2026-06-01T00:00:01Z"), B),
    "all-excuses": policy(
        policy_key(ALICE, revoked=True),
        policy_key(BOB, notAfter="2026-05-31T23:59:59Z"),
        policy_key(CAROL, notBefore="2026-06-01T00:00:01Z"),
    ),
    "late-excuses": policy(
        policy_key(BOB, notAfter="2026-05-31T23:59:59Z"),
        policy_key(CAROL, notBefore="2026-06-01T00:00:01Z"),
    ),
    # Brackets in a string are no levels, behind an escaped quotation mark neither.
    "brackets-in-a-name": policy({**A, "name": '[[[[[[[[[{{{\\"[{'}),
    "project-demo": policy(A, project="demo"),
    "project-other": policy(A, project="other"),
    "minimum-3": policy(A, objects={"x.bpf.o": {"minimumVersion": 3}, "y.bpf.o": {"minimumVersion": 9}}),
    "rollback-minimum-4": policy(A, objects={"x.bpf.o": {"minimumVersion": 4}}, allowRollback=True),
    "no-rollback": policy(A, allowRollback=False),
    "minimum-4": policy(A, objects={"x.bpf.o": {"minimumVersion": 4}}),
    "xdp-only": policy(A, programTypes=["xdp"]),
    "no-types": policy(A, programTypes=[]),
    "struct-ops": policy(A, programTypes=["struct_ops", "xdp"]),
    "scheduler": policy(A, attachPoints=["xdp", "struct_ops/sched_ext_ops"]),
    "pins": policy(A, attachPoints=["xdp", "pin/count*"]),
    "scheduler-and-pins": policy(
        A, programTypes=["struct_ops", "xdp"], attachPoints=["xdp", "pin/counts", "struct_ops/sched_*"]
    ),
    "smallest": policy(A, maxObjectBytes=1),
    "threshold-16": policy(A, *map(policy_key, CROWD[:15]), threshold=16),
    "256-points": policy(A, attachPoints=["xdp"] * 256),
    "small": policy(A, maxObjectBytes=1024),
    "amd64-only": policy(A, platforms=["linux/amd64"]),
    "arm64-only": policy(A, platforms=["linux/arm64"]),
    "no-platforms": policy(A, platforms=[]),
    "unspec-only": policy(A, programTypes=["unspec"]),
    "points": policy(A, attachPoints=["xdp", "cgroup/*", "kprobe/do_*"]),
    "classifier-points": policy(A, attachPoints=["classifier/*"]),
    "all-points": policy(A, attachPoints=["*"]),
    "app-points": policy(A, attachPoints=["uprobe//opt/app/*", "uprobe//a/../b:c"]),
    "no-points": policy(A, attachPoints=[]),
    "denied-helpers": policy(A, deniedHelpers=[4, 36]),
    "no-denied-helpers": policy(A, deniedHelpers=[]),
    "denied-kfuncs": policy(A, deniedKfuncs=["bpf_a", "bpf_c"]),
    "no-denied-kfuncs": policy(A, deniedKfuncs=[]),
    "every-rule": policy(
        A,
        project="demo",
        platforms=["linux/amd64"],
        objects={"x.bpf.o": {"minimumVersion": 3}},
        programTypes=["xdp"],
        attachPoints=["xdp"],
        deniedHelpers=[36],
        deniedKfuncs=["bpf_a"],
        maxObjectBytes=16384,
        allowRollback=True,
        clock="required",
        earliest="2026-01-01T00:00:00Z",
    ),
    "limited-key": policy(policy_key(ALICE, notAfter="2030-01-01T00:00:00Z")),
    # The key ids of both count, and that of bob is the first.
    "limited-second-key": policy(policy_key(ALICE, notAfter="2030-01-01T00:00:00Z"), B),
    "limited-other-key": policy(A, policy_key(BOB, notAfter="2030-01-01T00:00:00Z")),
    "clock-unset-ok": policy(policy_key(ALICE, notAfter="2030-01-01T00:00:00Z"), clock="unset-ok"),
    "earliest": policy(
        policy_key(ALICE, notBefore="2026-07-01T00:00:00Z", notAfter="2030-01-01T00:00:00Z"),
        earliest="2026-07-01T00:00:00Z",
    ),
    # Numbers and times above 32 bits. Truncated to 32 bits, they lead to another decision.
    "large-minimum": policy(A, objects={"x.bpf.o": {"minimumVersion": 2**32 + 1}}),
    "large-helper": policy(A, deniedHelpers=[2**32 + 36]),
    "key-until-2038": policy(policy_key(ALICE, notAfter="2038-01-19T03:14:08Z")),
    "key-until-2106": policy(policy_key(ALICE, notAfter="2106-02-07T06:28:16Z")),
    "key-from-2106": policy(policy_key(ALICE, notBefore="2106-02-07T06:28:17Z")),
    "earliest-2038": policy(A, earliest="2038-01-19T03:14:08Z"),
    "earliest-2106": policy(A, earliest="2106-02-07T06:28:17Z"),
    "image-rules-combined": policy(A, imageRules="combine"),
    "image-rules-ignored": policy(A, imageRules="ignore"),
    "earliest-before-now": policy(policy_key(ALICE, notBefore=NOW), earliest="2026-05-01T00:00:00Z"),
}

# Stores that are configuration errors, so that no object is verified with them.
BAD_TRUST: dict[str, dict[str, str]] = {
    "empty": {},
    "hidden-pub-alone": {".alice.pub": A_PEM},
    "no-pub": {"alice.pem": A_PEM},
    "twice": {"a.pub": A_PEM, "b.pub": A_PEM},
    "private-key": {"alice.pub": ALICE.pem},
    "text-before": {"alice.pub": "mine:\n" + A_PEM},
    "text-after": {"alice.pub": A_PEM + "mine\n"},
    "two-blocks": {"alice.pub": A_PEM + pub(BOB.raw)},
    "x25519": {"alice.pub": A_PEM.replace("MCowBQYDK2Vw", "MCowBQYDK2Vu")},
    "pem-one-line": {"alice.pub": A_PEM.replace("\n", "")},
    "pem-no-end-of-first-line": {"alice.pub": A_PEM.replace("KEY-----\n", "KEY-----", 1)},
    "pem-markers-share-dashes": {"alice.pub": "-----BEGIN PUBLIC KEY-----END PUBLIC KEY-----\n"},
    "pem-form-feed-before": {"alice.pub": "\f" + A_PEM},
    "pem-vertical-tab-after": {"alice.pub": A_PEM + "\v"},
    "pem-space-in-base64": {"alice.pub": A_PEM.replace("MCowBQYD", "MCow BQYD")},
    "pem-unused-bits": {"alice.pub": A_PEM.replace("ZE=\n", "ZF=\n")},
    "pem-letter-for-slashes": {"alice.pub": pub(Signer(name="slash-96").raw).replace("//", "\u00e9")},
    "pem-no-padding": {"alice.pub": A_PEM.replace("ZE=\n", "ZE\n")},
    "policy-key-unused-bits": policy(A | {"publicKey": A["publicKey"][:-2] + "F="}),
    "policy-key-letter-for-slashes": policy(
        SLASHES | {"publicKey": SLASHES["publicKey"].replace("//", "\u00e9")}
    ),
    "policy-key-no-padding": policy(A | {"publicKey": A["publicKey"][:-1]}),
    "policy-key-line-feed": policy(A | {"publicKey": A["publicKey"] + "\n"}),
    "policy-key-url-alphabet": policy(B | {"publicKey": B["publicKey"].replace("+", "-").replace("/", "_")}),
    "short": {"alice.pub": "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n"},
    "policy-not-json": {"policy.json": "policy"},
    "policy-array": {"policy.json": "[]"},
    "policy-bom": {"policy.json": "\ufeff" + policy(A)["policy.json"]},
    "policy-zero-after-number": {"policy.json": policy(A)["policy.json"].replace(":1}", ":1\0}")},
    "policy-zero-after-literal": {
        "policy.json": policy(policy_key(ALICE, revoked=False))["policy.json"].replace("false", "false\0")
    },
    "policy-version-2": {
        "policy.json": policy(A)["policy.json"].replace('"policyVersion":1', '"policyVersion":2')
    },
    "policy-unknown-member": policy(A, quorum=1),
    "policy-twice-member": {"policy.json": policy(A)["policy.json"].replace("{", '{"threshold":1,', 1)},
    "policy-no-keys": policy(),
    "policy-threshold-0": policy(A, threshold=0),
    "policy-threshold-17": policy(A, threshold=17),
    # Truncated to 8, 16 or 32 bits, these numbers would be valid.
    "policy-threshold-2-8": policy(A, threshold=2**8 + 1),
    "policy-threshold-2-16": policy(A, threshold=2**16 + 1),
    "policy-threshold-2-32": policy(A, threshold=2**32 + 1),
    "policy-threshold-2-52": policy(A, threshold=2**52 + 1),
    "policy-version-2-32": {
        "policy.json": policy(A)["policy.json"].replace('"policyVersion":1', f'"policyVersion":{2**32 + 1}')
    },
    "policy-max-2-32": policy(A, maxObjectBytes=2**32 + 1024),
    "policy-helpers-2-32": policy(A, deniedHelpers=[2**32 + 4, 5]),
    "policy-threshold-float": {
        "policy.json": policy(A)["policy.json"].replace('"threshold":1', '"threshold":1.0')
    },
    "policy-65-keys": policy(*map(policy_key, CROWD), A),
    "policy-same-key-twice": policy(A, policy_key(ALICE, notAfter=NOW)),
    "policy-key-unknown-member": policy(policy_key(ALICE, comment="hi")),
    "policy-key-bad-time": policy(policy_key(ALICE, notAfter="2026-02-29T00:00:00Z")),
    "policy-key-bad-base64": policy(A | {"publicKey": A["publicKey"] + "!"}),
    "policy-object-name": policy(A, objects={"../x": {"minimumVersion": 1}}),
    "policy-object-empty": policy(A, objects={"x.bpf.o": {}}),
    "policy-max-0": policy(A, maxObjectBytes=0),
    "policy-max-too-large": policy(A, maxObjectBytes=64 * 1024 * 1024 + 1),
    "policy-project-space": policy(A, project="a b"),
    "policy-platforms-string": policy(A, platforms="linux/amd64"),
    "policy-points-empty": policy(A, attachPoints=[""]),
    "policy-points-second-empty": policy(A, attachPoints=["xdp", ""]),
    "policy-points-inner-star": policy(A, attachPoints=["x*p"]),
    "policy-points-two-stars": policy(A, attachPoints=["xdp**"]),
    "policy-points-too-many": policy(A, attachPoints=["xdp"] * 257),
    "policy-helpers-descending": policy(A, deniedHelpers=[36, 4]),
    "policy-helpers-twice": policy(A, deniedHelpers=[4, 4]),
    "policy-helpers-names": policy(A, deniedHelpers=["bpf_probe_write_user"]),
    "policy-helpers-negative": policy(A, deniedHelpers=[-1]),
    "policy-kfuncs-descending": policy(A, deniedKfuncs=["b", "a"]),
    "policy-kfuncs-twice": policy(A, deniedKfuncs=["a", "a"]),
    "policy-kfuncs-numbers": policy(A, deniedKfuncs=[1]),
    "policy-clock-unknown": policy(A, clock="ignored"),
    "policy-clock-boolean": policy(A, clock=True),
    "policy-rollback-integer": policy(A, allowRollback=1),
    "policy-rollback-null": policy(A, allowRollback=None),
    "policy-image-rules-unknown": policy(A, imageRules="replace"),
    "policy-image-rules-boolean": policy(A, imageRules=True),
    "policy-earliest-date": policy(A, earliest="2026-01-01"),
    "policy-revoked-string": policy(policy_key(ALICE, revoked="no")),
    **{f"key-{name}": {"bad.pub": pub(raw)} for name, raw in bad_keys()},
}
