# SPDX-License-Identifier: Apache-2.0
"""Trust stores as they are found on disk; the rules of policies are vectors."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from pathlib import Path

import pytest

from buildtool.core.errors import ConfigError
from buildtool.signing.keys import SigningKey, generate_key
from buildtool.trust.store import load_trust


def write_pub(path: Path, key: SigningKey) -> Path:
    """Write the public half of *key*."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(key.public.pem)
    return path


def write_policy(path: Path, *keys: SigningKey) -> Path:
    """Write a policy of *keys*."""
    entries = [{"name": "k", "publicKey": b64encode(key.public.der).decode()} for key in keys]
    path.write_text(json.dumps({"policyVersion": 1, "threshold": 1, "keys": entries}))
    return path


def test_files_and_directories_add_up(tmp_path: Path) -> None:
    """--trust may name several; the digest is over the sorted key ids."""
    keys = [generate_key() for _ in range(3)]
    paths = [write_pub(tmp_path / "one.pub", keys[0]), tmp_path / "more"]
    write_pub(tmp_path / "more" / "a.pub", keys[1])
    write_pub(tmp_path / "more" / "b.pub", keys[2])
    (tmp_path / "more" / "README").write_text("not a key")
    store = load_trust(paths)
    ids = sorted(bytes.fromhex(key.key_id) for key in keys)
    assert sorted(store.keys) == ids
    assert store.digest == hashlib.sha256(b"".join(ids)).hexdigest()
    assert store.threshold == 1
    # Keys alone must not free a host from the rules of its images.
    assert not store.ignores_image


def test_policy_file_of_any_name(tmp_path: Path) -> None:
    """A file whose name does not end in .pub is a policy. The policy digest is that of its bytes."""
    path = write_policy(tmp_path / "fleet.json", generate_key())
    assert load_trust([path]).digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_policy_stands_alone(tmp_path: Path) -> None:
    """A policy beside other keys would be weakened by them."""
    policy = write_policy(tmp_path / "p.json", generate_key())
    with pytest.raises(ConfigError, match="cannot be combined"):
        load_trust([policy, write_pub(tmp_path / "a.pub", generate_key())])


def test_dangling_policy_is_an_error(tmp_path: Path) -> None:
    """A policy that cannot be read is not skipped in favour of the keys beside it."""
    write_pub(tmp_path / "a.pub", generate_key())
    (tmp_path / "policy.json").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match="no such file"):
        load_trust([tmp_path])


def test_linked_keys_are_read(tmp_path: Path) -> None:
    """Orchestrators mount keys as links."""
    key = generate_key()
    write_pub(tmp_path / "data" / "k", key)
    (tmp_path / "k.pub").symlink_to(tmp_path / "data" / "k")
    assert list(load_trust([tmp_path]).keys) == [bytes.fromhex(key.key_id)]


@pytest.mark.parametrize("name", ["gone", "gone.pub"])
def test_missing_store_is_a_configuration_error(tmp_path: Path, name: str) -> None:
    """Nothing is verified without a store."""
    with pytest.raises(ConfigError, match="no such file"):
        load_trust([tmp_path / name])


def test_more_than_64_keys_are_refused(tmp_path: Path) -> None:
    """The loader has room for 64."""
    for number in range(65):
        write_pub(tmp_path / f"{number}.pub", generate_key())
    with pytest.raises(ConfigError, match="more than 64"):
        load_trust([tmp_path])


def test_oversized_policy_is_refused(tmp_path: Path) -> None:
    """1 MiB is the limit."""
    path = write_policy(tmp_path / "p.json", generate_key())
    path.write_text(path.read_text() + " " * 1024 * 1024)
    with pytest.raises(ConfigError, match="larger than"):
        load_trust([path])


def test_directory_of_too_many_files_is_no_store(tmp_path: Path) -> None:
    """As for the loader: 1024 entries, those that begin with a dot not counted."""
    write_pub(tmp_path / "dev.pub", generate_key())
    for number in range(1023):
        (tmp_path / f"{number}").touch()
    (tmp_path / ".hidden").touch()
    assert len(load_trust([tmp_path]).keys) == 1
    (tmp_path / "more").touch()
    with pytest.raises(ConfigError, match="more than 1024 files"):
        load_trust([tmp_path])
