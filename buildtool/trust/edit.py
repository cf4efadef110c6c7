# SPDX-License-Identifier: Apache-2.0
"""
Change a policy file: add, remove and revoke keys (spec/trust-policy.md).

The whole policy is checked by the rules of the specification before and after each change, so no
unknown member is ever dropped. One rename replaces the file.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from buildtool.core.errors import ConfigError, UsageError
from buildtool.core.files import write_all_atomic
from buildtool.core.strictjson import format_time, parse_json_object
from buildtool.signing.keys import KeyId, PublicKey, parse_key_digits
from buildtool.signing.statement import has_passed
from buildtool.trust.store import POLICY_HINT, POLICY_NAME, load_policy, read_policy, read_policy_file


def policy_entry(
    key: PublicKey, *, name: str, not_before: int | None = None, not_after: int | None = None
) -> dict[str, Any]:
    """Return the entry of *key* in a policy. The times are seconds since the epoch."""
    entry: dict[str, Any] = {"name": name, "publicKey": b64encode(key.der).decode("ascii")}
    if not_before is not None:
        entry["notBefore"] = format_time(not_before)
    if not_after is not None:
        entry["notAfter"] = format_time(not_after)
    return entry


def format_policy(value: Mapping[str, Any]) -> bytes:
    """
    Return the file of policy *value*, in one form, so that a diff shows only changed lines.

    Raises: ConfigError, if *value* breaks a rule of spec/trust-policy.md.
    """
    data = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True).encode("ascii") + b"\n"
    try:
        read_policy(data)
    except ValueError as error:
        raise ConfigError(str(error), hint=POLICY_HINT) from error
    return data


def add_key(
    path: Path,
    key: PublicKey,
    *,
    name: str = "",
    not_before: int | None = None,
    not_after: int | None = None,
) -> KeyId:
    """
    Add *key* to the policy of *path*, and return its id. A missing policy is created.

    Raises: ConfigError, UsageError, FileAccessError.
    """
    if not_before is not None and not_after is not None and not_before > not_after:
        raise UsageError(
            "the key would never be valid: --not-before is later than --not-after",
            hint="exchange the two times",
        )
    if has_passed(not_after, int(time.time())):
        raise UsageError(
            f"the key would never be valid: --not-after {format_time(not_after)} has passed",
            hint="give a later time; buildtool trust revoke refuses a key by its id",
        )
    entry = policy_entry(key, name=name or key.name, not_before=not_before, not_after=not_after)
    file = policy_file(path)
    if not (file.exists() or file.is_symlink()):
        _write(file, {"policyVersion": 1, "threshold": 1, "keys": [entry]})
    else:
        _check_new(file, key)
        _change_keys(file, lambda keys: [*keys, entry])
    return key.key_id


def _check_new(file: Path, key: PublicKey) -> None:
    """Refuse *key* if the policy of *file* lists it. Raises: ConfigError, UsageError."""
    known = load_policy(file).keys.get(bytes.fromhex(key.key_id))
    if known is None:
        return
    state = "revoked" if known.revoked else "already trusted"
    raise UsageError(
        f"{file}: key {key.key_id} is {state}, as {known.public.name!r}",
        hint=f"buildtool trust list --policy {file} shows it",
    )


def remove_key(path: Path, key_id: str) -> KeyId:
    """
    Remove the key whose id begins with *key_id* from the policy of *path*, and return its id.

    Raises: ConfigError, UsageError, FileAccessError.
    """
    file = policy_file(path)
    index, found = _find(file, key_id)
    _change_keys(file, lambda keys: keys[:index] + keys[index + 1 :])
    return found


def revoke_key(path: Path, key_id: str) -> KeyId:
    """
    Mark the key whose id begins with *key_id* as revoked in the policy of *path*, and return its id.

    Raises: ConfigError, UsageError, FileAccessError.
    """
    file = policy_file(path)
    index, found = _find(file, key_id)
    _change_keys(file, lambda keys: [k | {"revoked": True} if i == index else k for i, k in enumerate(keys)])
    return found


def policy_file(path: Path) -> Path:
    """Return the policy file at *path*, a file or its directory."""
    return path / POLICY_NAME if path.is_dir() else path


def _find(file: Path, key_id: str) -> tuple[int, KeyId]:
    """Return index and id of the only key in the policy whose id begins with *key_id*. Raises: UsageError."""
    prefix = parse_key_digits(key_id, shown_by=f"buildtool trust list --policy {file}")
    keys = [key.public.key_id for key in load_policy(file).keys.values()]
    found = [(index, known) for index, known in enumerate(keys) if known.startswith(prefix)]
    if len(found) != 1:
        what = f"the ids of {len(found)} keys begin" if found else "no key id begins"
        more = "; add digits until one of them is left" if found else ""
        raise UsageError(
            f"{file}: {what} with {prefix}",
            hint=f"buildtool trust list --policy {file} shows the key ids{more}",
        )
    return found[0]


def _change_keys(file: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    load_policy(file)
    value = parse_json_object(read_policy_file(file))
    _write(file, value | {"keys": change(value["keys"])})


def _write(file: Path, value: Mapping[str, Any]) -> None:
    if not value["keys"]:
        raise ConfigError(
            f"{file}: cannot remove the last key of a policy",
            hint="add the new key first, or revoke this one",
        )
    try:
        data = format_policy(value)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.message}", hint=error.hint) from error
    # Replace the target of a symbolic link, so that the link stays.
    write_all_atomic({file.resolve(): data})
