# SPDX-License-Identifier: Apache-2.0
"""Signing as a library: what is written, and that it is all or nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from labs.sig import NOW, RELEASE, other_key, sign, store, unsigned, vector
from labs.sig import test_key as alice

from buildtool.compile.record import CompiledObject, SourceInfo, ToolchainInfo, write_compile_record
from buildtool.core.digests import Digest
from buildtool.core.errors import (
    AlreadySignedError,
    FileAccessError,
    ObjectFormatError,
    RefusedError,
    UsageError,
)
from buildtool.core.platforms import PLATFORMS
from buildtool.objects.elf import parse_object, unsigned_digest
from buildtool.objects.tables import SHF_EXECINSTR
from buildtool.signing import sign as signing
from buildtool.signing.sign import Origin, check_times, sign_files, sign_object
from buildtool.trust.verify import verify_object

AMD64 = PLATFORMS["amd64"]


def write_objects(directory: Path, *names: str) -> list[Path]:
    """Write unsigned objects."""
    for name in names:
        (directory / name).write_bytes(unsigned())
    return [directory / name for name in names]


def record_of(path: Path) -> CompiledObject:
    """Make the compile record's entry of *path*."""
    return CompiledObject(
        name=path.name,
        path=path,
        platform="linux/arm64",
        sha256=Digest(hashlib.sha256(path.read_bytes()).hexdigest()),
        toolchain=ToolchainInfo(compiler="clang 19", flags=("-O2",)),
        source=SourceInfo(path="bpf/x.bpf.c", sha256=Digest("0" * 64)),
        unsigned_sha256=unsigned_digest(parse_object(path.read_bytes())),
    )


def test_signing_is_deterministic_and_verifies() -> None:
    """Same input, same key, same bytes; for both byte orders."""
    big = parse_object(vector("unsigned-big-endian"))
    for data, platform in ((sign(), "linux/amd64"), (sign(big, arch="s390x"), "linux/s390x")):
        verified = verify_object(data, store(), platform=platform, now=NOW)
        assert verified.statement.version == 3
        assert verified.key_ids == (alice().key_id,)
    assert sign() == sign()


def test_every_changed_byte_is_refused() -> None:
    """No byte of the file is outside the signature."""
    data = sign()
    trust = store()
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        with pytest.raises(RefusedError):
            verify_object(changed, trust, platform=None, now=NOW)


def test_byte_order_must_fit_the_platform() -> None:
    """A big-endian object for a little-endian architecture is a mistake."""
    with pytest.raises(UsageError, match="a big-endian object, but linux/amd64"):
        sign(parse_object(vector("unsigned-big-endian")))
    with pytest.raises(UsageError, match="a little-endian object, but linux/s390x"):
        sign(arch="s390x")


def test_platform_toolchain_and_source_come_from_the_compile_record(tmp_path: Path) -> None:
    """And stay when the same key signs again."""
    (path,) = write_objects(tmp_path, "x.bpf.o")
    write_compile_record(tmp_path, [record_of(path)])
    for force in (False, True):
        (signed,) = sign_files([path], alice(), RELEASE, force=force)
        assert signed.statement.platform == "linux/arm64"
        assert signed.statement.toolchain == ToolchainInfo(compiler="clang 19", flags=("-O2",))
        assert signed.statement.source is not None
    first = path.read_bytes()
    sign_files([path], alice(), RELEASE, force=True)
    assert path.read_bytes() == first


def test_facts_survive_another_keys_signature(tmp_path: Path) -> None:
    """The compile record knows the object without its signature, so a new key keeps compiler and source."""
    (path,) = write_objects(tmp_path, "x.bpf.o")
    write_compile_record(tmp_path, [record_of(path)])
    (first,) = sign_files([path], alice(), RELEASE)
    mine = path.read_bytes()
    for key in (other_key(), alice()):
        (signed,) = sign_files([path], key, RELEASE, force=True)
        assert signed.statement.toolchain == first.statement.toolchain
        assert signed.statement.source == first.statement.source
        assert signed.statement.platform == "linux/arm64"
    assert path.read_bytes() == mine


def test_facts_of_a_changed_object_are_not_signed_again(tmp_path: Path) -> None:
    """One other byte of the code under another key's signature, and the record is not about the object."""
    (path,) = write_objects(tmp_path, "x.bpf.o")
    write_compile_record(tmp_path, [record_of(path)])
    sign_files([path], other_key(), RELEASE)
    obj = parse_object(path.read_bytes())
    code = next(section for section in obj.sections if section.flags & SHF_EXECINSTR and section.size)
    data = bytearray(obj.data)
    data[code.offset + 4] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match="not the object that buildtool compile made"):
        sign_files([path], alice(), RELEASE, force=True)


def test_claims_of_somebody_else_are_not_signed_again(tmp_path: Path) -> None:
    """With --force, the claims of a statement signed by another key are not used."""
    (path,) = write_objects(tmp_path, "x.bpf.o")
    sign_files([path], other_key(), RELEASE, platform=AMD64)
    with pytest.raises(UsageError, match="no architecture for the statement"):
        sign_files([path], alice(), RELEASE, force=True)


def test_stale_compile_record_is_not_believed(tmp_path: Path) -> None:
    """An object that was replaced since is not the recorded one."""
    (path,) = write_objects(tmp_path, "x.bpf.o")
    entry = replace(record_of(path), sha256=Digest("1" * 64), unsigned_sha256="1" * 64)
    write_compile_record(tmp_path, [entry])
    with pytest.raises(UsageError, match="not the object that buildtool compile made"):
        sign_files([path], alice(), RELEASE)
    (signed,) = sign_files([path], alice(), RELEASE, platform=AMD64)
    assert signed.statement.toolchain is None


def test_record_and_option_must_agree(tmp_path: Path) -> None:
    """--arch does not overrule what was compiled."""
    (path,) = write_objects(tmp_path, "x.bpf.o")
    write_compile_record(tmp_path, [record_of(path)])
    with pytest.raises(UsageError, match="compiled for linux/arm64, not linux/amd64"):
        sign_files([path], alice(), RELEASE, platform=AMD64)


def test_one_bad_object_leaves_all_as_they_were(tmp_path: Path) -> None:
    """Everything is computed before anything is written."""
    paths = write_objects(tmp_path, "a.bpf.o", "b.bpf.o")
    paths[1].write_bytes(unsigned()[:-1])
    with pytest.raises(ObjectFormatError, match=r"b\.bpf\.o: section header table outside"):
        sign_files(paths, alice(), RELEASE, platform=AMD64)
    assert paths[0].read_bytes() == unsigned()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bpf.o", "b.bpf.o"]


def test_already_signed_needs_force(tmp_path: Path) -> None:
    """And force gives the same file again."""
    (path,) = write_objects(tmp_path, "x.bpf.o")
    sign_files([path], alice(), RELEASE, platform=AMD64)
    first = path.read_bytes()
    with pytest.raises(AlreadySignedError, match=r"x\.bpf\.o: already signed"):
        sign_files([path], alice(), RELEASE, platform=AMD64)
    sign_files([path], alice(), RELEASE, platform=AMD64, force=True)
    assert path.read_bytes() == first


def test_output_directory(tmp_path: Path) -> None:
    """The originals stay; an existing output is kept, and then nothing is written at all."""
    paths = write_objects(tmp_path, "a.bpf.o", "b.bpf.o")
    out = tmp_path / "deep" / "out"
    signed = sign_files([paths[1]], alice(), RELEASE, platform=AMD64, output=out)
    assert signed[0].path == out / "b.bpf.o"
    assert paths[1].read_bytes() == unsigned()
    before = (out / "b.bpf.o").read_bytes()
    with pytest.raises(FileAccessError, match=r"b\.bpf\.o: already exists"):
        sign_files(paths, alice(), replace(RELEASE, version=4), platform=AMD64, output=out)
    assert [path.name for path in out.iterdir()] == ["b.bpf.o"]
    assert (out / "b.bpf.o").read_bytes() == before
    sign_files(paths, alice(), RELEASE, platform=AMD64, output=out, force=True)
    assert sorted(path.name for path in out.iterdir()) == ["a.bpf.o", "b.bpf.o"]


def test_two_objects_for_one_file_are_a_mistake(tmp_path: Path) -> None:
    """Two objects with one output are an error, because one would replace the other."""
    (tmp_path / "other").mkdir()
    paths = write_objects(tmp_path, "x.bpf.o") + write_objects(tmp_path / "other", "x.bpf.o")
    with pytest.raises(UsageError, match="both would be written to"):
        sign_files(paths, alice(), RELEASE, platform=AMD64, output=tmp_path / "out")
    with pytest.raises(UsageError, match="both would be written to"):
        sign_files([paths[0], paths[0]], alice(), RELEASE, platform=AMD64)


def test_links_and_modes_stay(tmp_path: Path) -> None:
    """In place means the file that a link leads to, with its mode."""
    (tmp_path / "real").mkdir()
    (real,) = write_objects(tmp_path / "real", "x.bpf.o")
    real.chmod(0o600)
    link = tmp_path / "x.bpf.o"
    link.symlink_to(real)
    sign_files([link], alice(), RELEASE, platform=AMD64)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert verify_object(real.read_bytes(), store(), platform=None, now=NOW)


def test_name_that_is_no_object_name(tmp_path: Path) -> None:
    """The statement names the object; odd names are refused before signing."""
    (path,) = write_objects(tmp_path, "x y.bpf.o")
    with pytest.raises(UsageError, match="is not an object name"):
        sign_files([path], alice(), RELEASE, platform=AMD64)


def test_a_statement_that_reads_differently_is_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the encoder must not get a signature: what is signed is read back first."""
    encode = signing.encode_statement
    monkeypatch.setattr(
        signing,
        "encode_statement",
        lambda statement: encode(replace(statement, version=statement.version + 1)),
    )
    with pytest.raises(ObjectFormatError, match="encode to the same bytes"):
        sign()


@pytest.mark.parametrize(("created", "allowed"), [(NOW + 86_400, True), (NOW + 86_401, False)])
def test_creation_time_in_the_future(created: int, allowed: bool) -> None:  # noqa: FBT001
    """A clock may be a day ahead of a verifier's."""
    if allowed:
        check_times(NOW + 10**6, created=created, now=NOW)
        return
    with pytest.raises(UsageError, match="is in the future"):
        check_times(NOW + 10**6, created=created, now=NOW)


def test_times_without_a_date() -> None:
    """A statement has dates of four digits; a number beyond them is a usage error, not a traceback."""
    release = replace(RELEASE, created=253_402_300_800)
    with pytest.raises(UsageError, match="is outside the years 1970 to 9999"):
        sign_object(parse_object(unsigned()), "x.bpf.o", alice(), release, Origin(platform=AMD64))
