# SPDX-License-Identifier: Apache-2.0
"""
The last look at an image's objects, before anything leaves the build: rules, attach settings, policy.

A start must not be the first to say that an object cannot load, or that the image refuses it.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildtool.check.model import RULES, Finding, Level
from buildtool.check.static import check_object
from buildtool.core.errors import (
    EXIT_DONE,
    CheckFailedError,
    ConfigError,
    RefusedError,
    ToolFailedError,
    UsageError,
)
from buildtool.core.files import write_all_atomic, write_atomic
from buildtool.core.platforms import Platform
from buildtool.core.process import Runner
from buildtool.core.strictjson import format_time
from buildtool.image.attachments import check_attach_settings, check_load_settings, read_attachable
from buildtool.objects.elf import parse_object
from buildtool.runtime.carried import LOADER_NAME
from buildtool.signing.keys import KeyId
from buildtool.signing.settings import choose_settings
from buildtool.signing.statement import read_statement
from buildtool.trust.store import POLICY_NAME, TrustStore, read_policy
from buildtool.trust.verify import verify_object

log = logging.getLogger(__name__)

_SECONDS = 60
_OF_SIGNATURES = frozenset(("BT040", "BT041", "BT042"))
# What this loader cannot load. The loader of a workload may.
_OF_LOADER = frozenset(("BT005", "BT009", "BT014"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRules:
    """
    What an image says of its objects: the text of its *policy*, its *attach* and *load* settings.

    *set* and *map_entries* are its settings of constants and of sizes. Key *key_id* signs at *epoch*.
    *allow_findings* are numbers of rules whose findings do not end the build.
    With *hands_over*, the workload loads the programs with a loader of its own.
    """

    policy: str
    key_id: KeyId
    epoch: int
    attach: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    map_entries: tuple[str, ...] = ()
    allow_findings: tuple[str, ...] = ()
    hands_over: bool = False


def check_finished(
    objects: Mapping[str, bytes],
    platform: Platform,
    rules: ImageRules,
    *,
    loader: bytes | None = None,
    opened: Iterable[Finding] = (),
) -> list[str]:
    """
    Check the signed *objects* of *platform* by name, and return warnings for people.

    *loader* is a verify-and-load that this machine may be able to run; *opened* is what libbpf found.

    Raises: CheckFailedError, when an object breaks a rule of `check`; ConfigError, when a setting
    means no program, or the image would refuse its own objects.
    """
    if unknown := sorted(set(rules.allow_findings) - set(RULES)):
        raise ConfigError(
            f"build.allow-findings: unknown rule {unknown[0]}",
            hint="docs/reference/check-rules.md lists them",
        )
    trust = read_policy(rules.policy.encode())
    start = _first_start(trust, rules)
    warnings = _check_rules(objects, platform, rules, start, opened)
    attachable = read_attachable(objects)
    check_attach_settings(rules.attach, attachable, trust)
    check_load_settings(rules.load, attachable)
    _check_settings(rules, objects)
    for name, data in objects.items():
        try:
            verify_object(data, trust, platform=platform.oci, now=start)
        except RefusedError as error:
            raise _refuses_own(platform, name, error.reason, error.message) from error
    if loader is not None:
        _ask_loader(objects, platform, rules.policy, start, loader)
    return warnings


def _check_settings(rules: ImageRules, objects: Mapping[str, bytes]) -> None:
    """Check that the signed *objects* allow the image's settings. Raises: ConfigError."""
    if rules.set or rules.map_entries:
        settable = {name: read_statement(parse_object(data)).settable for name, data in objects.items()}
        try:
            choose_settings(rules.set, rules.map_entries, settable)
        except UsageError as error:
            raise ConfigError(f"image.{error.message.removeprefix('--')}", hint=error.hint) from error


def _first_start(trust: TrustStore, rules: ImageRules) -> int:
    """
    Return the first time at which the image could start.

    The clock plays no part: the same build gives the same answer next year, when its key has expired.
    """
    key = trust.keys.get(bytes.fromhex(rules.key_id))
    return max(rules.epoch, (key.not_before if key else None) or 0)


def _check_rules(
    objects: Mapping[str, bytes], platform: Platform, rules: ImageRules, now: int, opened: Iterable[Finding]
) -> list[str]:
    """Raise the first error of the rules of `check`, with the others as detail; return warnings."""
    findings = [
        finding
        for name, data in objects.items()
        for finding in check_object(f"{platform.arch}/{name}", name, data, now=now).findings
        # The words for what is wrong with a signature are those of verification, which follows.
        if finding.rule not in _OF_SIGNATURES
    ]
    findings += opened
    allowed = set(rules.allow_findings)
    tolerated = allowed | (_OF_LOADER if rules.hands_over else frozenset())
    errors = [item for item in findings if item.level is Level.ERROR and item.rule not in tolerated]
    if errors:
        first, *others = errors
        raise CheckFailedError(
            _line(first),
            hint=f'{first.hint}; build.allow-findings = ["{first.rule}"] builds it nevertheless',
            detail="\n".join(map(_line, others)) or None,
        )
    shown = [item for item in findings if item.level is not Level.NOTE and item.rule not in allowed]
    return [f"{_line(item)}; {item.hint}" for item in shown]


def _line(finding: Finding) -> str:
    program = f"program {finding.program}: " if finding.program else ""
    return f"{finding.object}: {program}{finding.message} ({finding.rule} {RULES[finding.rule].title})"


def _refuses_own(platform: Platform, name: str, reason: str, message: str) -> ConfigError:
    return ConfigError(
        f"{platform.arch}/{name}: {reason}: {message}: the image would refuse its own object",
        hint="change [trust] in buildtool.toml, or the program",
    )


def _ask_loader(
    objects: Mapping[str, bytes],
    platform: Platform,
    policy: str,
    now: int,
    loader: bytes,
) -> None:
    """Let the second implementation verify *objects* as the image has them, for any platform."""
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        program, directory, trust = (Path(work, name) for name in (LOADER_NAME, "objects", POLICY_NAME))
        directory.mkdir()
        write_all_atomic(
            {directory / name: data for name, data in objects.items()} | {trust: policy.encode()}
        )
        write_atomic(program, loader, mode=0o755)
        argv = [str(program), "--verify-only", "--objects", str(directory), "--trust", str(trust)]
        argv += ["--platform", platform.oci, "--time", format_time(now)]
        try:
            done = Runner().run(argv, check=False, timeout_seconds=_SECONDS)
        except ToolFailedError as error:
            # Another architecture's, or a directory without programs: the verdict above is of the same rules.
            log.debug("%s", error.message)
            return
    if done.returncode == EXIT_DONE:
        return
    for line in done.stderr.decode("utf-8", "replace").splitlines():
        if (event := _read_event(line)).get("decision") == "refused":
            name, reason = str(event.get("object")), str(event.get("reason"))
            raise _refuses_own(platform, name, reason, str(event.get("message")))
    raise ToolFailedError(
        f"{LOADER_NAME} failed with exit code {done.returncode}",
        detail=done.stderr.decode("utf-8", "replace").strip() or None,
    )


def _read_event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
