# SPDX-License-Identifier: Apache-2.0
"""Vectors of trust policies: denied objects, calls in the code, and clocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from labs.vectors.builder import (
    ALICE,
    BOB,
    CODE,
    LICENSE,
    Recipe,
    statement,
)
from labs.vectors.case import Case
from labs.vectors.code import (
    KFUNC,
    call,
    code,
    helper_cases,
    kfunc_cases,
    makes,
    overlap_cases,
    relocated,
    section_cases,
)
from labs.vectors.maps import big_endian_cases, map_cases
from labs.vectors.statements import predicate


def policy_cases() -> Iterator[Case]:
    """Yield objects that a policy accepts or denies, some with several reasons in order."""
    tc = predicate(programs=[{"name": "a", "section": "tc", "type": "sched_cls"}])
    xdp = predicate(programs=[{"name": "a", "section": "xdp", "type": "xdp"}])
    yield Case(name="project-other", expect="denied-by-policy", recipe=Recipe(), trust="project-other")
    yield Case(name="type-denied", expect="denied-by-policy", recipe=tc, trust="xdp-only")
    yield Case(name="type-allowed", expect="accepted", recipe=xdp, trust="xdp-only")
    yield Case(name="type-denied-by-empty-list", expect="denied-by-policy", recipe=xdp, trust="no-types")
    yield Case(name="rolled-back", expect="rolled-back", recipe=Recipe(), trust="minimum-4")
    yield Case(name="rollback-allowed", expect="rolled-back", recipe=Recipe(), trust="rollback-minimum-4")
    yield Case(name="rollback-not-allowed", expect="accepted", recipe=Recipe(), trust="no-rollback")
    yield Case(name="too-large", expect="too-large", recipe=Recipe(), trust="small")
    yield Case(name="too-large-before-malformed", expect="too-large", data=bytes(1025), trust="small")
    listed = [{"name": kind, "section": kind, "type": kind} for kind in ("xdp", "kprobe")]
    second = predicate(programs=listed)
    yield Case(name="type-of-second-program", expect="denied-by-policy", recipe=second, trust="xdp-only")
    yield Case(name="smallest-limit", expect="too-large", data=b"\x7fE", trust="smallest")
    yield Case(name="one-byte-at-its-limit", expect="malformed", data=b"\x7f", trust="smallest")
    yield Case(name="one-of-16-signers", expect="below-threshold", recipe=Recipe(), trust="threshold-16")
    yield Case(name="256-points", expect="accepted", recipe=Recipe(), trust="256-points")
    yield Case(name="no-types-but-code", expect="denied-by-policy", recipe=Recipe(), trust="no-types")
    yield Case(name="platforms-allowed", expect="accepted", recipe=Recipe(), trust="amd64-only")
    yield Case(name="platforms-denied", expect="denied-by-policy", recipe=Recipe(), trust="arm64-only")
    yield Case(name="platforms-none", expect="denied-by-policy", recipe=Recipe(), trust="no-platforms")
    arm = predicate(platform="linux/arm64")
    yield Case(name="platforms-not-the-verifiers", expect="wrong-platform", recipe=arm, trust="arm64-only")
    every = replace(xdp, statement=xdp.statement)
    yield Case(name="every-rule-kept", expect="accepted", recipe=every, trust="every-rule")
    old = predicate(version=2)
    yield Case(name="every-rule-rolled-back", expect="rolled-back", recipe=old, trust="every-rule")
    other = predicate(version=2, project="other")
    yield Case(name="policy-before-rollback", expect="denied-by-policy", recipe=other, trust="every-rule")
    late = predicate(notAfter="2026-05-31T23:59:59Z", project="other")
    yield Case(name="expired-before-policy", expect="expired", recipe=late, trust="every-rule")


def number_cases() -> Iterator[Case]:
    """Yield cases of numbers and times above 32 bits, which a 32-bit machine must not truncate."""

    def case(name: str, expect: str, trust: str = "alice", **changes: Any) -> Case:
        return Case(name=f"number-{name}", expect=expect, trust=trust, recipe=predicate(**changes))

    yield case("version", "accepted", version=2**53 - 1)
    yield case("version-above-minimum", "accepted", "large-minimum", version=2**32 + 1)
    yield case("version-below-minimum", "rolled-back", "large-minimum", version=2**32)
    yield case("version-of-32-bits-below-minimum", "rolled-back", "large-minimum", version=3)
    yield case("map-sizes", "accepted", maps=[_huge_map()])
    yield case("not-after-2038", "accepted", notAfter="2038-01-19T03:14:08Z")
    yield case("not-after-2106", "accepted", notAfter="2106-02-07T06:28:16Z")
    yield case("not-after-9999", "accepted", notAfter="9999-12-31T23:59:59Z")
    yield case("key-until-2038", "accepted", "key-until-2038")
    yield case("key-until-2106", "accepted", "key-until-2106")
    yield case("key-from-2106", "not-yet-valid", "key-from-2106")
    yield case("earliest-2038", "expired", "earliest-2038", notAfter="2038-01-19T03:14:07Z")
    yield case("earliest-2106", "expired", "earliest-2106", notAfter="2106-02-07T06:28:16Z")
    yield case("earliest-2106-still", "accepted", "earliest-2106", notAfter="2106-02-07T06:28:17Z")
    yield case(
        "created-2106", "not-yet-valid", created="2106-02-07T06:28:16Z", notAfter="2107-01-01T00:00:00Z"
    )
    called = makes(code(call(36)), helpers=[36])
    yield Case(name="number-helper-not-denied", expect="accepted", recipe=called, trust="large-helper")
    other = makes(code(call(36)), helpers=[2**32 + 36])
    yield Case(name="number-helper-not-listed", expect="denied-by-policy", recipe=other, trust="large-helper")


def _huge_map() -> dict[str, Any]:
    return {"name": "m", "type": "hash", "keySize": 2**32, "valueSize": 2**53 - 1, "maxEntries": 2**33}


DECLARED = {"xdp": "xdp", "tc": "sched_cls", "cgroup/bind4": "cgroup_sock_addr"}


def _declared(*programs: tuple[str, str], sections: Sequence[str] = ("classifier/x",)) -> Recipe:
    """Recipe: code *sections*, and *programs* (section, and the section that is declared or nothing)."""
    stated = [
        {"name": f"p{number}", "section": section, "type": DECLARED.get(declared, "unspec")}
        | ({"declared": declared} if declared else {})
        for number, (section, declared) in enumerate(programs)
    ]
    parts = [replace(CODE, name=section.encode()) for section in sections]
    return Recipe(parts=(*parts, LICENSE), statement=statement(programs=stated))


def declared_cases() -> Iterator[Case]:
    """Yield programs of sections that libbpf does not know, with and without a declaration."""
    accepted, denied = "accepted", "denied-by-policy"
    one = _declared(("classifier/x", "xdp"))
    other = _declared(("classifier/x", "tc"))
    hidden = _declared(("?x/y", "xdp"), sections=("xdp",))
    for name, expect, trust, recipe in (
        ("type", accepted, "xdp-only", one),
        ("point", accepted, "points", one),
        ("another-type", denied, "xdp-only", other),
        ("another-point", denied, "points", other),
        ("without-rules", accepted, "alice", other),
        ("own-name-is-no-point", denied, "classifier-points", one),
        ("own-name-without-declaration", accepted, "classifier-points", _declared(("classifier/x", ""))),
        ("optional", accepted, "xdp-only", _declared(("?classifier/x", "xdp"), sections=("?classifier/x",))),
        (
            "optional-in-file-alone",
            accepted,
            "xdp-only",
            _declared(("classifier/x", "xdp"), sections=("?classifier/x",)),
        ),
        ("two-marks", accepted, "xdp-only", _declared(("??xdp", "xdp"), sections=("??xdp",))),
        ("second-of-section", denied, "points", _declared(("classifier/x", "xdp"), ("classifier/x", "tc"))),
        ("undeclared-of-section", denied, "points", _declared(("classifier/x", "xdp"), ("classifier/x", ""))),
        ("another-section", denied, "points", _declared(("classifier/y", "xdp"))),
        ("second-section", denied, "points", _declared(("a/x", "xdp"), sections=("a/x", "b/x"))),
        ("both-sections", accepted, "points", _declared(("a", "xdp"), ("b", "xdp"), sections=("a", "b"))),
        ("attach-type", accepted, "points", _declared(("bind", "cgroup/bind4"), sections=("bind",))),
        ("known-section-stays", denied, "points", _declared(("a", "xdp"), sections=("a", "tc"))),
        ("no-code-of-the-section", accepted, "xdp-only", hidden),
    ):
        yield Case(name=f"declared-{name}", expect=expect, recipe=recipe, trust=trust)


def code_cases() -> Iterator[Case]:
    """Yield objects whose code has calls that a policy denies, or that the statement does not list."""
    groups = (
        ("helper", helper_cases()),
        ("kfunc", kfunc_cases()),
        ("overlap", overlap_cases()),
        ("section", section_cases()),
        ("map", map_cases()),
    )
    for group, found in groups:
        for name, expect, trust, recipe in found:
            yield Case(name=f"code-{group}-{name}", expect=expect, trust=trust, recipe=recipe)

    def big(name: str, expect: str, trust: str, recipe: Recipe) -> Case:
        return Case(
            name=f"code-big-{name}", expect=expect, trust=trust, recipe=recipe, platform="linux/s390x"
        )

    number = code(call(36, order=">"))
    yield big("helper-denied", "denied-by-policy", "denied-helpers", makes(number, order=">", helpers=[36]))
    yield big("helper-listed", "accepted", "no-denied-helpers", makes(number, order=">", helpers=[36]))
    yield big("helper-unlisted", "denied-by-policy", "no-denied-helpers", makes(number, order=">"))
    local = code(call(36, source=1, order=">"))
    yield big("local-call", "accepted", "denied-helpers", makes(local, order=">"))
    parts = relocated(call(2**32 - 1, source=1, order=">"), order=">")
    yield big("kfunc-denied", "denied-by-policy", "denied-kfuncs", makes(*parts, order=">", kfuncs=["bpf_a"]))
    yield big("kfunc-listed", "accepted", "no-denied-kfuncs", makes(*parts, order=">", kfuncs=["bpf_a"]))
    yield big("kfunc-unlisted", "denied-by-policy", "no-denied-kfuncs", makes(*parts, order=">"))
    for name, expect, trust, recipe in big_endian_cases():
        yield big(name, expect, trust, recipe)
    assert KFUNC[1] == 0x10


def clock_cases() -> Iterator[Case]:
    """Yield objects from the future, for a clock at 2026-06-01T00:00:00Z."""
    edge, past = "2026-06-02T00:00:00Z", "2026-06-02T00:00:01Z"
    limit = "2030-01-01T00:00:00Z"

    def case(name: str, expect: str, trust: str = "alice", **changes: Any) -> Case:
        return Case(name=f"clock-{name}", expect=expect, trust=trust, recipe=predicate(**changes))

    yield case("not-needed", "accepted", created=past)
    yield case("a-day-behind", "accepted", created=edge, notAfter=limit)
    yield case("unset", "not-yet-valid", created=past, notAfter=limit)
    yield case("unset-limited-key", "not-yet-valid", "limited-key", created=past)
    yield case("unset-limited-key-of-nobody", "accepted", "limited-other-key", created=past)
    both = replace(predicate(created=past), signers=(ALICE, BOB))
    yield Case(
        name="clock-unset-limited-second-key", expect="not-yet-valid", trust="limited-second-key", recipe=both
    )
    yield case("unset-is-ok", "accepted", "clock-unset-ok", created=past, notAfter=limit)
    yield case("unset-but-expired", "expired", created=past, notAfter="2026-05-31T23:59:59Z")
    yield case(
        "unset-before-policy", "not-yet-valid", "every-rule", created=past, notAfter=limit, project="p"
    )
    yield case("digest-first", "wrong-platform", created=past, notAfter=limit, platform="linux/arm64")
    yield case("earliest-makes-key-valid", "accepted", "earliest")
    yield case("earliest-expires", "expired", "earliest", notAfter="2026-06-30T23:59:59Z")
    yield case(
        "earliest-stands-for-clock", "accepted", "earliest", created="2026-07-02T00:00:00Z", notAfter=limit
    )
    yield case(
        "earliest-is-behind", "not-yet-valid", "earliest", created="2026-07-02T00:00:01Z", notAfter=limit
    )
    yield case("later-than-earliest", "accepted", "earliest-before-now")
    # What a loader does with the rules of an image is no matter of one object's verification.
    yield case("image-rules-combined", "accepted", "image-rules-combined")
    yield case("image-rules-ignored", "accepted", "image-rules-ignored")
