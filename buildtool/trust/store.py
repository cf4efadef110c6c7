# SPDX-License-Identifier: Apache-2.0
"""Read trust stores: key files, directories of key files, and policies (spec/trust-policy.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildtool.core.digests import Digest
from buildtool.core.errors import ConfigError, FileAccessError, Reason, system_reason
from buildtool.core.files import read_bounded
from buildtool.core.strictjson import (
    check_members,
    described,
    is_array,
    is_boolean,
    is_integer,
    is_integer_set,
    is_object,
    is_object_name,
    is_project,
    is_string,
    is_string_set,
    is_strings,
    is_time,
    parse_json_object,
    parse_time,
)
from buildtool.objects.elf import MAX_OBJECT_BYTES
from buildtool.signing.keys import PublicKey, decode_base64, is_private, load_public_key, public_key_from_der
from buildtool.signing.statement import has_passed

POLICY_NAME = "policy.json"
MAX_POLICY_BYTES = 1024 * 1024
POLICY_HINT = (
    "spec/trust-policy.md lists the members; buildtool trust add KEY.pub --policy NEW.json writes a policy"
)
_POLICY_HINT = (
    "name a policy, a .pub file, or a directory of .pub files;"
    " buildtool trust add KEY.pub --policy FILE writes a policy"
)
MAX_KEYS = 64
MAX_ENTRIES = 1024  # of a directory of keys
MAX_THRESHOLD = 16
MAX_ATTACH_POINTS = 256
CLOCK_REQUIRED, CLOCK_UNSET_OK = "required", "unset-ok"
RULES_COMBINE, RULES_IGNORE = "combine", "ignore"


def _is_attach_points(value: Any) -> bool:
    """Return whether *value* is an array of patterns, which contain * only at the end."""
    return (
        is_strings(value)
        and len(value) <= MAX_ATTACH_POINTS
        and all(pattern and "*" not in pattern[:-1] for pattern in value)
    )


_POLICY = {
    "policyVersion": described("1", lambda value: type(value) is int and value == 1),
    "threshold": described(
        f"an integer from 1 to {MAX_THRESHOLD}",
        lambda value: is_integer(value) and 1 <= value <= MAX_THRESHOLD,
    ),
    "keys": described(
        f"an array of 1 to {MAX_KEYS} keys", lambda value: is_array(value) and 1 <= len(value) <= MAX_KEYS
    ),
}
_POLICY_OPTIONAL = {
    "project": is_project,
    "platforms": is_strings,
    "objects": is_object,
    "programTypes": is_strings,
    "attachPoints": described(
        f"an array of at most {MAX_ATTACH_POINTS} section names, with a * at the end alone", _is_attach_points
    ),
    "deniedHelpers": is_integer_set,
    "deniedKfuncs": is_string_set,
    "maxObjectBytes": described(
        f"an integer from 1 to {MAX_OBJECT_BYTES}",
        lambda value: is_integer(value) and 1 <= value <= MAX_OBJECT_BYTES,
    ),
    "allowRollback": is_boolean,
    "clock": described(
        f"{CLOCK_REQUIRED} or {CLOCK_UNSET_OK}", lambda value: value in (CLOCK_REQUIRED, CLOCK_UNSET_OK)
    ),
    "earliest": is_time,
    "imageRules": lambda value: value in (RULES_COMBINE, RULES_IGNORE),
}
_KEY = {"name": is_string, "publicKey": is_string}
_KEY_OPTIONAL = {"notBefore": is_time, "notAfter": is_time, "revoked": is_boolean}
_OBJECT = {"minimumVersion": is_integer}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """
    A *public* key, valid from *not_before* to *not_after*, unless it is *revoked*.

    Both times are inclusive, in seconds since the epoch.
    """

    public: PublicKey
    not_before: int | None = None
    not_after: int | None = None
    revoked: bool = False

    def refusal(self, now: int) -> Reason | None:
        """Return the reason why signatures of the key do not count at time *now*, or None if they count."""
        if self.revoked:
            return Reason.REVOKED
        if has_passed(self.not_after, now):
            return Reason.EXPIRED
        if self.not_before is not None and now < self.not_before:
            return Reason.NOT_YET_VALID
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustStore:
    """
    A trust store: *keys* by key id (32 bytes), the policy's rules, and the policy *digest*.

    A rule that the policy lacks is None. An empty list is a rule that allows nothing.
    """

    keys: Mapping[bytes, TrustedKey]
    digest: Digest
    threshold: int = 1
    project: str | None = None
    minimum_versions: Mapping[str, int] = field(default_factory=dict)
    platforms: frozenset[str] | None = None
    program_types: frozenset[str] | None = None
    attach_points: tuple[str, ...] | None = None
    denied_helpers: frozenset[int] | None = None
    denied_kfuncs: frozenset[str] | None = None
    max_object_bytes: int = MAX_OBJECT_BYTES
    allow_rollback: bool = False
    needs_clock: bool = True
    earliest: int = 0
    ignores_image: bool = False  # on a host: the rules of an image do not hold beside it

    @property
    def reads_code(self) -> bool:
        """True if a rule requires reading the code."""
        rules = (self.program_types, self.attach_points, self.denied_helpers, self.denied_kfuncs)
        return any(rule is not None for rule in rules)


def load_trust(paths: Sequence[Path]) -> TrustStore:
    """
    Return the trust store of *paths*: one policy, or key files and directories of key files.

    Raises: ConfigError.
    """
    policies = [policy for policy in map(_policy_path, paths) if policy is not None]
    if policies and len(paths) > 1:
        raise ConfigError(
            f"{policies[0]}: a policy cannot be combined with other trust files",
            hint="list the keys in the policy itself",
        )
    if policies:
        return load_policy(policies[0])
    files = [file for path in paths for file in _key_files(path)]
    if paths and not files:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: trust store without a key",
            hint=f"put .pub files or a {POLICY_NAME} there; buildtool keygen NAME writes keys/NAME.pub",
        )
    return trust_keys(map(load_public_key, files))


def read_store(path: Path) -> dict[str, str]:
    """
    Return the files of the trust store at *path*, which load_trust accepts: names and texts of UTF-8.

    A policy is called policy.json, whatever its name is here.

    Raises: ConfigError, FileAccessError.
    """
    policy = _policy_path(path)
    if policy is not None:
        return {POLICY_NAME: read_policy_file(policy).decode()}
    return {file.name: load_public_key(file).pem.decode() for file in _key_files(path)}


def trust_keys(keys: Iterable[PublicKey]) -> TrustStore:
    """
    Return the store of *keys* without a policy. Each key alone may sign any object.

    Raises: ConfigError.
    """
    table = _key_table(TrustedKey(public=key) for key in keys)
    return TrustStore(keys=table, digest=Digest(hashlib.sha256(b"".join(sorted(table))).hexdigest()))


def load_policy(path: Path) -> TrustStore:
    """
    Return the store of policy file *path*.

    Raises: ConfigError.
    """
    data = read_policy_file(path)
    if is_private(data):
        raise ConfigError(f"{path}: a private key", hint=f"name its public half, {path.with_suffix('.pub')}")
    if data.startswith(b"-----BEGIN PUBLIC KEY-----"):
        raise ConfigError(
            f"{path}: not a policy but a public key",
            hint="rename it to NAME.pub; buildtool trust add puts the key into a policy",
        )
    try:
        return read_policy(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", hint=POLICY_HINT) from error


def read_policy_file(path: Path) -> bytes:
    """
    Return the bytes of policy file *path*, unchecked.

    Raises: ConfigError.
    """
    try:
        data = read_bounded(path, MAX_POLICY_BYTES)
    except FileAccessError as error:
        raise ConfigError(error.message, hint=error.hint or _POLICY_HINT) from error
    if len(data) > MAX_POLICY_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_POLICY_BYTES} bytes", hint=_POLICY_HINT)
    return data


def read_policy(data: bytes) -> TrustStore:
    """
    Return the store of the policy in *data*.

    Raises: ValueError or ConfigError, which name the first broken rule.
    """
    value = check_members(parse_json_object(data), "policy", _POLICY, **_POLICY_OPTIONAL)
    points = value.get("attachPoints")
    return TrustStore(
        keys=_key_table([_read_key(item, f"keys[{at}]") for at, item in enumerate(value["keys"])]),
        digest=Digest(hashlib.sha256(data).hexdigest()),
        threshold=value["threshold"],
        project=value.get("project"),
        minimum_versions=dict(_read_minimum(*item) for item in value.get("objects", {}).items()),
        platforms=_optional_set(value, "platforms"),
        program_types=_optional_set(value, "programTypes"),
        attach_points=None if points is None else tuple(points),
        denied_helpers=_optional_set(value, "deniedHelpers"),
        denied_kfuncs=_optional_set(value, "deniedKfuncs"),
        max_object_bytes=value.get("maxObjectBytes", MAX_OBJECT_BYTES),
        allow_rollback=value.get("allowRollback", False),
        needs_clock=value.get("clock") != CLOCK_UNSET_OK,
        earliest=parse_time(value["earliest"]) if "earliest" in value else 0,
        ignores_image=value.get("imageRules") == RULES_IGNORE,
    )


def _optional_set(value: dict[str, Any], name: str) -> frozenset[Any] | None:
    return frozenset(value[name]) if name in value else None


def _read_key(value: Any, place: str) -> TrustedKey:
    check_members(value, place, _KEY, **_KEY_OPTIONAL)
    name = value["name"]
    try:
        der = decode_base64(value["publicKey"].encode("ascii"))
    except ValueError as error:
        raise ValueError(f"key {name!r}: publicKey is not base64") from error
    return TrustedKey(
        public=public_key_from_der(der, f"key {name!r}", name=name),
        not_before=parse_time(value["notBefore"]) if "notBefore" in value else None,
        not_after=parse_time(value["notAfter"]) if "notAfter" in value else None,
        revoked=value.get("revoked", False),
    )


def _read_minimum(name: str, value: Any) -> tuple[str, int]:
    if not is_object_name(name):
        raise ValueError(f"objects: {name!r} is not an object name")
    return name, check_members(value, f"objects: {name}", _OBJECT)["minimumVersion"]


def _key_table(keys: Iterable[TrustedKey]) -> dict[bytes, TrustedKey]:
    table: dict[bytes, TrustedKey] = {}
    for key in keys:
        key_id = bytes.fromhex(key.public.key_id)
        if key_id in table:
            names = " and ".join(dict.fromkeys(f"{each.public.name!r}" for each in (table[key_id], key)))
            raise ConfigError(
                f"key {key.public.key_id} is listed twice, as {names}",
                hint="remove one of the two files, or one of the two entries of the policy",
            )
        table[key_id] = key
    if not table:
        raise ConfigError("trust store without a key", hint="name a .pub file, or a directory of them")
    if len(table) > MAX_KEYS:
        raise ConfigError(
            f"trust store of more than {MAX_KEYS} keys",
            hint="keep the keys that still sign: remove .pub files, or run buildtool trust remove KEYID",
        )
    return table


def _policy_path(path: Path) -> Path | None:
    """Return the policy file at *path* (a file or its directory), or None if *path* names keys."""
    if path.is_dir():
        policy = path / POLICY_NAME
        # A dangling symbolic link counts as a policy, because an unreadable policy must not be skipped.
        return policy if policy.exists() or policy.is_symlink() else None
    return None if path.name.endswith(".pub") else path


def _is_key_name(name: str) -> bool:
    # Names of editors' temporary files and of Kubernetes' links (..data) begin with a dot.
    return name.endswith(".pub") and not name.startswith(".")


def _key_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        entries = [file for file in path.iterdir() if not file.name.startswith(".")]
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {system_reason(error)}") from error
    if len(entries) > MAX_ENTRIES:
        raise ConfigError(
            f"{path}: more than {MAX_ENTRIES} files", hint="keep keys in a directory of their own"
        )
    return sorted(file for file in entries if _is_key_name(file.name))
