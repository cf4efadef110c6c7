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
from buildtool.signing.statement import CLOCK_TOLERANCE_SECONDS
from buildtool.trust.store import TrustedKey, TrustStore

SOON_SECONDS = 30 * 24 * 60 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A *message* about a trust store. It is *fatal* if the store cannot accept any object."""

    message: str
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
        text = f"the threshold is {trust.threshold}, but only {usable} of {len(trust.keys)} keys count now"
        yield Remark(message=f"nothing can be accepted: {text}", fatal=True)
    for key in trust.keys.values():
        name, refusal = f"key {key.public.key_id[:16]} {key.public.name!a}", key.refusal(now)
        if refusal is Reason.EXPIRED:
            yield Remark(message=f"{name} expired at {format_time(key.not_after or 0)}")
        elif refusal is Reason.NOT_YET_VALID:
            yield Remark(message=f"{name} is not valid before {format_time(key.not_before or 0)}")
        elif refusal is None and key.not_after is not None and key.not_after - now < SOON_SECONDS:
            yield Remark(message=f"{name} expires within 30 days, at {format_time(key.not_after)}")
        if key.not_before is not None and key.not_after is not None and key.not_before > key.not_after:
            yield Remark(message=f"{name} is never valid: notBefore is later than notAfter")
    names = [key.public.name for key in trust.keys.values()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Remark(message=f"several keys have the name {name!a}")


def _check_rules(trust: TrustStore, now: int) -> Iterator[Remark]:
    if trust.platforms is not None and not trust.platforms:
        yield Remark(message="nothing can be accepted: platforms is empty", fatal=True)
    if trust.program_types is not None and not trust.program_types:
        yield Remark(
            message="programTypes is empty: only objects without programs and struct_ops maps are accepted"
        )
    if trust.attach_points is not None and not trust.attach_points:
        yield Remark(message="attachPoints is empty: only objects that attach and pin nothing are accepted")
    yield from _check_points(trust.attach_points or ())
    if trust.earliest > now + CLOCK_TOLERANCE_SECONDS:
        yield Remark(
            message=f"earliest {format_time(trust.earliest)} is in the future, so objects expire too soon"
        )
    if trust.allow_rollback:
        yield Remark(message="allowRollback: older releases start again; only minimumVersion refuses them")
    if trust.ignores_image:
        yield Remark(message="imageRules is ignore: a host accepts objects that the image itself refuses")
    if not trust.needs_clock and any(key.not_after is not None for key in trust.keys.values()):
        yield Remark(message="clock is unset-ok: a machine without a clock accepts keys past their notAfter")


def _check_points(points: Iterable[str]) -> Iterator[Remark]:
    for point in points:
        if point.removeprefix("?").startswith(".struct_ops"):
            text = f"attachPoints: {point!a} matches no section; struct_ops/TYPE is the point of a map"
            yield Remark(message=text)
        elif point.startswith("?") or point == ".text":
            yield Remark(message=f"attachPoints: {point!a} matches no section")


def _check_words(trust: TrustStore) -> Iterator[Remark]:
    types = {*SECTION_TYPES.values(), UNKNOWN_PROGRAM}
    for name in sorted((trust.program_types or frozenset()) - types):
        near = nearest_type(name)
        guess = f" (did you mean {near}?)" if near else ""
        yield Remark(message=f"programTypes: {name!a} is no program type of libbpf{guess}")
    for name in sorted((trust.platforms or frozenset()) - {item.oci for item in PLATFORMS.values()}):
        yield Remark(message=f"platforms: {name!a} is unknown")
    for number in sorted((trust.denied_helpers or frozenset()) - set(HELPER_NUMBERS.values())):
        yield Remark(message=f"deniedHelpers: there is no helper {number}")
