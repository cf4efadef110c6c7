# SPDX-License-Identifier: Apache-2.0
"""Find mistakes in a valid trust store: keys that do not count, and rules that allow nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from buildtool.core.errors import Reason
from buildtool.core.platforms import PLATFORMS
from buildtool.core.strictjson import format_time
from buildtool.objects.helpers import HELPER_NUMBERS
from buildtool.objects.types import SECTION_TYPES, UNKNOWN_PROGRAM, nearest_type
from buildtool.signing.keys import shorten_key_id
from buildtool.signing.statement import CLOCK_TOLERANCE_SECONDS
from buildtool.trust.store import TrustedKey, TrustStore

SOON_SECONDS = 30 * 24 * 60 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A *message* about a trust store, with a *hint*. It is *fatal* if the store cannot accept any object."""

    message: str
    hint: str
    fatal: bool = False


def key_state(key: TrustedKey, now: int) -> str:
    """Return "valid" if *key* counts at time *now*, or else the reason of refusal."""
    refusal = key.refusal(now)
    return refusal.value if refusal else "valid"


def check_trust(trust: TrustStore, now: int) -> list[Remark]:
    """Return remarks about *trust* at time *now*, fatal ones first."""
    found = [*_check_keys(trust, now), *_check_rules(trust, now), *_check_words(trust)]
    return sorted(found, key=lambda finding: not finding.fatal)


def _check_keys(trust: TrustStore, now: int) -> Iterator[Remark]:
    usable = sum(key.refusal(now) is None for key in trust.keys.values())
    if usable < trust.threshold:
        valid = f"only {usable} of {len(trust.keys)} keys is valid" if usable else "no key is valid"
        yield Remark(
            message=f"no object can be accepted: the threshold is {trust.threshold}, and {valid} now",
            hint="buildtool trust list shows the states; buildtool trust add KEY.pub adds a key",
            fatal=True,
        )
    for key in trust.keys.values():
        yield from _check_times(key, now)
    names = [key.public.name for key in trust.keys.values()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Remark(
            message=f"{names.count(name)} keys have the name {name!r}",
            hint="give each key a name of its own in the policy, because lists show the names",
        )


def _check_times(key: TrustedKey, now: int) -> Iterator[Remark]:
    short = shorten_key_id(key.public.key_id)
    name, refusal = f"key {short} {key.public.name!r}", key.refusal(now)
    retire = f"buildtool trust add NEW.pub adds the next key, buildtool trust remove {short} removes this one"
    if key.not_before is not None and key.not_after is not None and key.not_before > key.not_after:
        yield Remark(
            message=f"{name} is never valid: notBefore is later than notAfter", hint="exchange the times"
        )
    elif refusal is Reason.EXPIRED:
        yield Remark(message=f"{name} expired at {format_time(key.not_after or 0)}", hint=retire)
    elif refusal is Reason.NOT_YET_VALID:
        text = f"{name} is not valid before {format_time(key.not_before or 0)}"
        yield Remark(message=text, hint="objects that this key alone signed are refused until then")
    elif refusal is None and key.not_after is not None and key.not_after - now < SOON_SECONDS:
        yield Remark(message=f"{name} expires within 30 days, at {format_time(key.not_after)}", hint=retire)


def _check_rules(trust: TrustStore, now: int) -> Iterator[Remark]:
    if trust.platforms is not None and not trust.platforms:
        text = "no object can be accepted: platforms is an empty list"
        yield Remark(
            message=text, hint="list platforms such as linux/arm64, or remove the member", fatal=True
        )
    if trust.program_types is not None and not trust.program_types:
        yield Remark(
            message="programTypes is an empty list:"
            " only objects without programs and struct_ops maps are accepted",
            hint="list types such as xdp, or remove the member to accept all types",
        )
    if trust.attach_points is not None and not trust.attach_points:
        yield Remark(
            message="attachPoints is an empty list: only objects that attach and pin nothing are accepted",
            hint="list sections such as xdp or tp/sched/*, or remove the member to accept all sections",
        )
    yield from _check_points(trust.attach_points or ())
    if trust.earliest > now + CLOCK_TOLERANCE_SECONDS:
        yield Remark(
            message=f"earliest is {format_time(trust.earliest)}, in the future: objects expire too soon",
            hint="write a time that has passed, or set this machine's clock",
        )
    if trust.allow_rollback:
        yield Remark(
            message="allowRollback is true: older releases are accepted, except those below minimumVersion",
            hint="set it to false when the older release runs no more",
        )
    if trust.ignores_image:
        yield Remark(
            message="imageRules is ignore: a host accepts objects that the image itself refuses",
            hint="set it to combine, unless this policy has all rules of the image",
        )
    if not trust.needs_clock and any(key.not_after is not None for key in trust.keys.values()):
        yield Remark(
            message="clock is unset-ok: a machine without a clock accepts keys after their notAfter",
            hint="earliest limits this: keys and objects that expired before that time are refused",
        )


def _check_points(points: Iterable[str]) -> Iterator[Remark]:
    for point in points:
        if point.removeprefix("?").startswith(".struct_ops"):
            text = f"attachPoints: {point!r} matches no section"
            yield Remark(message=text, hint="struct_ops/TYPE is the attach point of a struct_ops map")
        elif point.startswith("?") or point == ".text":
            hint = "write the section without the question mark" if point.startswith("?") else "remove it"
            yield Remark(message=f"attachPoints: {point!r} matches no section", hint=hint)


def _check_words(trust: TrustStore) -> Iterator[Remark]:
    types = {*SECTION_TYPES.values(), UNKNOWN_PROGRAM}
    for name in sorted((trust.program_types or frozenset()) - types):
        near = nearest_type(name)
        guess = f" (did you mean {near}?)" if near else ""
        yield Remark(
            message=f"programTypes: {name!r} is no program type of libbpf{guess}",
            hint="buildtool inspect OBJECT shows the types of its programs",
        )
    for name in sorted((trust.platforms or frozenset()) - {item.oci for item in PLATFORMS.values()}):
        hint = f"platforms of buildtool: {', '.join(item.oci for item in PLATFORMS.values())}"
        yield Remark(message=f"platforms: {name!r} is unknown", hint=hint)
    for number in sorted((trust.denied_helpers or frozenset()) - set(HELPER_NUMBERS.values())):
        hint = "buildtool inspect --json OBJECT shows the numbers of its helpers"
        yield Remark(message=f"deniedHelpers: no helper has the number {number}", hint=hint)
