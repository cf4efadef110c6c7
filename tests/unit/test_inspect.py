# SPDX-License-Identifier: Apache-2.0
"""Inspection of good, unsigned and broken objects."""

from __future__ import annotations

import hashlib

import pytest
from labs.sig import sign, unsigned, vector
from labs.sig import test_key as alice

from buildtool.core.errors import ObjectFormatError
from buildtool.image.inspect import inspect_object, is_file_name, signature_record, subject_file
from buildtool.image.metadata import Entrypoint, parse_entrypoint


def test_signed_object() -> None:
    """Everything is there, and the digest is the statement's."""
    report = inspect_object("x.bpf.o", sign())
    assert report.problem is None
    assert report.digest_matches is True
    assert report.statement is not None
    assert report.record is not None
    assert [entry.key_id.hex() for entry in report.record.signatures] == [alice().key_id]


def test_unsigned_object() -> None:
    """Its contents are shown, its digest is the file's."""
    report = inspect_object("x.bpf.o", unsigned())
    assert not report.is_signed
    assert report.problem is None
    assert report.digest == hashlib.sha256(unsigned()).hexdigest()
    with pytest.raises(ObjectFormatError, match="not signed"):
        subject_file(unsigned())


@pytest.mark.parametrize(
    ("name", "problem", "signed"),
    [
        ("record-magic", "wrong magic", False),
        ("record-padding", "padding", False),
        ("section-twice", "2 sections", False),
        ("statement-bom", "statement: begins with a byte order mark", True),
    ],
)
def test_malformed_signature_still_shows_the_object(name: str, problem: str, *, signed: bool) -> None:
    """With a malformed signature, the contents are reported together with the problem."""
    report = inspect_object("x.bpf.o", vector(name))
    assert report.problem is not None
    assert problem in report.problem
    assert report.contents is not None
    assert report.is_signed is signed


def test_changed_object_shows_that_its_digest_differs() -> None:
    """Inspection does not need a key for that."""
    assert inspect_object("x.bpf.o", vector("digest-code-changed")).digest_matches is False


def test_envelope_of_a_malformed_record_is_an_error() -> None:
    """No envelope is made of what is not a record."""
    with pytest.raises(ObjectFormatError, match="count"):
        signature_record(vector("record-count-0"))


@pytest.mark.parametrize(
    ("target", "expected"),
    [("demo:latest", False), ("registry/demo", False), ("./demo", True), ("gone.bpf.o", True), ("/x", True)],
)
def test_what_names_a_file(target: str, *, expected: bool) -> None:
    """Images are named by references, files by paths."""
    assert is_file_name(target) is expected


LOADER = "/usr/bin/verify-and-load"
ATTACH = ("--image-attach",)
WORD = ("--image-workload",)


def test_what_an_image_loads() -> None:
    """Optional programs that an entrypoint loads, and whether the workload loads all of them itself."""
    words = [LOADER, "--image-load", "x.bpf.o:a", *WORD, "/app", "--image-load", "b", *WORD, "--image-load"]
    assert parse_entrypoint(words) == Entrypoint(workload=("/app", "--image-load"), load=("x.bpf.o:a", "b"))
    assert parse_entrypoint([LOADER, "--hand-over", *WORD, "/app"]).hands_over


@pytest.mark.parametrize(
    ("words", "attach", "workload"),
    [
        (["/sbin/tini", "-g", "--", LOADER], (), ()),
        ([LOADER, *ATTACH, "a=eth0", "--reload", *ATTACH, "b=none"], ("a=eth0", "b=none"), ()),
        ([LOADER, *ATTACH, "a=eth0", *WORD, "/app"], ("a=eth0",), ("/app",)),
        # Words of the workload that look like options of the loader.
        ([LOADER, *WORD, "/app", *WORD, *ATTACH, *WORD, "c=d"], (), ("/app", *ATTACH, "c=d")),
        # Entrypoints of older releases.
        ([LOADER, "--attach", "a=eth0"], ("a=eth0",), ()),
        (["/sbin/tini", "--", LOADER, "--", "/app", *ATTACH, "c=eth0"], (), ("/app", *ATTACH, "c=eth0")),
        (["/app", *ATTACH, "c=eth0"], (), ()),
        ([LOADER, *ATTACH], (), ()),
        ([], (), ()),
    ],
)
def test_what_an_image_attaches_and_starts(
    words: list[str], attach: tuple[str, ...], workload: tuple[str, ...]
) -> None:
    """The options of the loader count, the words of its workload do not."""
    assert parse_entrypoint(words) == Entrypoint(attach=attach, workload=workload)
