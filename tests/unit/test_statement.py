# SPDX-License-Identifier: Apache-2.0
"""Statements as values and bytes; what a verifier refuses are vectors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from labs.sig import test_key as alice

from buildtool.compile.record import SourceInfo, ToolchainInfo
from buildtool.core.digests import Digest
from buildtool.core.errors import ObjectFormatError, Reason
from buildtool.objects.describe import MapInfo, ProgramInfo
from buildtool.signing import statement
from buildtool.signing.statement import Statement, has_passed
from buildtool.trust.store import TrustedKey

FULL = Statement(
    name="x.bpf.o",
    digest=Digest("ab" * 32),
    platform="linux/arm64",
    project="demo/edge",
    version=7,
    release="1.2 \u00e4",
    created=0,
    not_after=253_402_300_799,
    programs=(
        ProgramInfo(name="a", section="xdp", type="xdp", attach=("eth0", "eth1")),
        ProgramInfo(name="b", section="tc", type="sched_cls"),
    ),
    maps=(
        MapInfo(name="m", type="hash", key_size=4, value_size=8, max_entries=1),
        MapInfo(
            name="ops",
            type="struct_ops",
            key_size=4,
            value_size=8,
            max_entries=1,
            section=".struct_ops.link",
            struct="sched_ext_ops",
        ),
        MapInfo(name="p", type="array", key_size=4, value_size=8, max_entries=1, pinned=True),
    ),
    helpers=(1, 2),
    kfuncs=("f",),
    license="GPL",
    toolchain=ToolchainInfo(compiler="clang", flags=("-O2",)),
    source=SourceInfo(path="bpf/x.bpf.c", sha256=Digest("cd" * 32)),
)


@pytest.mark.parametrize(
    "value", [FULL, replace(FULL, not_after=None, toolchain=None, source=None, programs=())]
)
def test_what_is_written_is_read_back(value: Statement) -> None:
    """Encoding and decoding are inverse, and the bytes are ASCII."""
    data = statement.to_bytes(value)
    assert statement.from_bytes(data) == value
    assert data.isascii()
    assert statement.to_bytes(statement.from_bytes(data)) == data


def test_members_are_in_order() -> None:
    """Equal statements are equal bytes: members ascend."""
    data = statement.to_bytes(FULL)
    # Members that a map does not need are absent, as before they existed.
    assert (
        data.count(b'"section":".struct_ops.link","struct":"sched_ext_ops"') == data.count(b'"struct":') == 1
    )
    assert data.count(b'"pinned":true') == data.count(b'"pinned":') == 1
    assert data.startswith(b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"created":"1970-01-01T')


def test_release_is_limited_in_bytes() -> None:
    """128 bytes of UTF-8, not characters."""
    data = statement.to_bytes(replace(FULL, release="\u00e4" * 65))
    with pytest.raises(ObjectFormatError, match="release must be a string of at most 128 bytes"):
        statement.from_bytes(data)


@pytest.mark.parametrize(
    ("not_after", "now", "passed"),
    [(None, 2**40, False), (1000, 999, False), (1000, 1000, False), (1000, 1001, True), (0, 1, True)],
)
def test_the_last_second_is_valid(not_after: int | None, now: int, passed: bool) -> None:  # noqa: FBT001
    """The time in notAfter is still valid. Statements and keys use the same function."""
    assert has_passed(not_after, now) is passed
    key = TrustedKey(public=alice().public, not_after=not_after)
    assert (key.refusal(now) is Reason.EXPIRED) is passed
