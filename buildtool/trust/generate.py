# SPDX-License-Identifier: Apache-2.0
"""
Make the image's trust store: a policy from `[trust]` in buildtool.toml and from the image's objects.

The same configuration gives the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from buildtool.config.file import Config, TrustConfig, named_variable
from buildtool.core.errors import ConfigError
from buildtool.core.strictjson import format_time
from buildtool.signing.keys import PublicKey, load_public_key, shorten_key_id
from buildtool.signing.statement import CLOCK_TOLERANCE_SECONDS, has_passed
from buildtool.trust.edit import format_policy, policy_entry
from buildtool.trust.store import (
    POLICY_NAME,
    TrustedKey,
    TrustStore,
    load_policy,
    read_policy,
    read_policy_file,
)


def trust_files(
    config: Config, signer: PublicKey, platforms: Iterable[str], objects: Iterable[str]
) -> dict[str, str]:
    """
    Return the files of the image's trust store: text by name.

    The store must accept objects that *signer* signs for *platforms*. It refuses older versions of
    the image's *objects* (names), and objects of other projects.

    Raises: ConfigError, also if the image would refuse its own objects.
    """
    if config.trust.policy is not None:
        return _given_policy(config, signer, platforms)
    with named_variable(config, "trust.keys"):
        for path in config.trust.keys:
            load_public_key(path)
    data = compile_policy(_bind(config, objects), signer)
    _check_accepts(config, read_policy(data), signer, platforms)
    return {POLICY_NAME: data.decode("ascii")}


def _bind(config: Config, objects: Iterable[str]) -> TrustConfig:
    """
    Return the trust configuration with project and minimum versions, which prevent replay.

    Without them, the store would accept each object that the key ever signed, for any project.
    """
    own = dict.fromkeys(objects, config.project.version)
    return replace(
        config.trust,
        project=config.trust.project or config.project.name,
        minimum_versions=own | dict(config.trust.minimum_versions),
    )


def compile_policy(trust: TrustConfig, signer: PublicKey) -> bytes:
    """
    Return the policy of configuration *trust*. Without configured keys, it has the key of *signer*.

    Raises: ConfigError.
    """
    revoked = [load_public_key(path) for path in trust.revoked]
    keys = _load_keys(trust, signer)
    for key in revoked:
        if any(key.raw == other.raw for other in keys):
            raise _revoked_key(key, signer)
    rules: dict[str, Any] = {
        "policyVersion": 1,
        "threshold": trust.threshold,
        "keys": [policy_entry(key, name=key.name) for key in keys]
        + [policy_entry(key, name=key.name) | {"revoked": True} for key in revoked],
        "project": trust.project or None,
        "platforms": _in_order(trust.platforms),
        "objects": {name: {"minimumVersion": number} for name, number in trust.minimum_versions.items()}
        or None,
        "programTypes": _in_order(trust.program_types),
        "attachPoints": _in_order(trust.attach_points),
        "deniedHelpers": _in_order(trust.denied_helpers),
        "deniedKfuncs": _in_order(trust.denied_kfuncs),
        "maxObjectBytes": trust.max_object_bytes,
        "allowRollback": trust.allow_rollback or None,
        "clock": None if trust.clock == "required" else trust.clock,
        "earliest": None if trust.earliest is None else format_time(trust.earliest),
    }
    return format_policy({name: value for name, value in rules.items() if value is not None})


def _revoked_key(key: PublicKey, signer: PublicKey) -> ConfigError:
    """Return the error for *key* of trust.revoked that is trusted as well."""
    if key.raw == signer.raw:
        return _refuses_own(f"the signing key {key.key_id} is revoked", "sign with another key")
    return ConfigError(
        f"trust.revoked: key {key.key_id} is in trust.keys as well",
        hint="take its file out of trust.keys: a key is trusted or revoked",
    )


def _in_order(values: Iterable[Any] | None) -> list[Any] | None:
    return None if values is None else sorted(set(values))


def _load_keys(trust: TrustConfig, signer: PublicKey) -> list[PublicKey]:
    """Return the configured keys, or *signer*, named by its id: its file's name may differ by machine."""
    keys = [load_public_key(path) for path in trust.keys] or [
        replace(signer, name=shorten_key_id(signer.key_id))
    ]
    return sorted(keys, key=lambda key: key.key_id)


def _given_policy(config: Config, signer: PublicKey, platforms: Iterable[str]) -> dict[str, str]:
    path = config.trust.policy
    assert path is not None
    if replace(config.trust, policy=None) != TrustConfig():
        raise ConfigError(
            "trust.policy cannot be combined with other keys of [trust]",
            hint="move these rules into the policy file",
        )
    with named_variable(config, "trust.policy"):
        trust, data = load_policy(path), read_policy_file(path)
    if not data.endswith(b"\n") or b"\r" in data:
        raise ConfigError(
            f"{path}: its lines must end in line feeds",
            hint="remove carriage returns, and end the last line; buildtool trust writes such files",
        )
    _check_accepts(config, trust, signer, platforms)
    return {POLICY_NAME: data.decode("utf-8")}


def _check_accepts(config: Config, trust: TrustStore, signer: PublicKey, platforms: Iterable[str]) -> None:
    """Check that the image can start under policy *trust*. Raises: ConfigError."""
    project = config.project
    key = trust.keys.get(bytes.fromhex(signer.key_id))
    if key is None:
        raise _refuses_own(
            f"the policy lacks the signing key {signer.key_id}", "add its .pub file to trust.keys"
        )
    if key.revoked:
        raise _refuses_own(f"the signing key {signer.key_id} is revoked", "sign with another key")
    _check_times(trust, key, int(time.time()))
    if trust.threshold > 1:
        raise ConfigError(
            f"trust.threshold is {trust.threshold}, but a build signs with one key",
            hint="set trust.threshold = 1; a policy on the host can require more: sign --add adds signatures",
        )
    if trust.project not in (None, project.name):
        raise _refuses_own(
            f"trust.project is {trust.project}, project.name is {project.name}", "make the two names one"
        )
    if trust.platforms is not None and (others := sorted(set(platforms) - trust.platforms)):
        raise _refuses_own(f"trust.platforms lacks {others[0]}", "add it there, or leave it out of --arch")
    minimum = max(trust.minimum_versions.values(), default=0)
    if project.version < minimum:
        raise _refuses_own(
            f"a minimum version is {minimum}, project.version is {project.version}", "raise project.version"
        )


def _check_times(trust: TrustStore, key: TrustedKey, now: int) -> None:
    """Refuse times under which the image refuses its objects from the start, or sooner than was meant."""
    key_id = key.public.key_id
    if has_passed(key.not_after, max(now, trust.earliest)):
        raise _refuses_own(
            f"the signing key {key_id} expired at {format_time(key.not_after)}",
            "give it a later notAfter in the policy, or sign with another key",
        )
    if key.not_before is not None and key.not_before > now:
        raise _refuses_own(
            f"the signing key {key_id} is not valid before {format_time(key.not_before)}",
            "give it an earlier notBefore in the policy, or sign with another key",
        )
    if trust.earliest > now + CLOCK_TOLERANCE_SECONDS:
        raise ConfigError(
            f"trust.earliest {format_time(trust.earliest)} is in the future, so objects expire too soon",
            hint="give a time that has passed, or set this machine's clock",
        )


def _refuses_own(why: str, hint: str) -> ConfigError:
    return ConfigError(f"{why}: the image would refuse its own objects", hint=hint)
