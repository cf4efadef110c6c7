# SPDX-License-Identifier: Apache-2.0
"""Archives and layers made to harm who reads them: each is one kind of error, soon, and little memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from pathlib import Path

import pytest

from buildtool.core.errors import ObjectFormatError
from buildtool.oci import tarreader
from buildtool.oci.read import open_layout
from buildtool.oci.tarreader import MAX_HEADER_BYTES, digest_unpacked, read_layer
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.tree import read_tree

BLOCK = 512


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return the header of a member, with any size in base 256."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    number = size if size >= 0 else 256**12 + size
    block[124:136] = number.to_bytes(12, "big") if size < 0 else b"\x80" + number.to_bytes(11, "big")
    total = 8 * ord(" ") + sum(block[:148]) + sum(block[156:BLOCK])
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def pax(records: str) -> bytes:
    """Return an extended header with *records*."""
    data = records.encode()
    return header("pax", len(data), tarfile.XHDTYPE) + data.ljust(-len(data) % BLOCK + len(data), b"\0")


HARMFUL = {
    "a size that leads back to the same member": header("a", 0) + header("b", -BLOCK),
    "a negative size": header("a", -100),
    "a negative size of an extended header": header("a", 0) + pax("13 size=-512\n") + header("b", 0),
    "a header of headers": pax("") * 5000 + header("a", 0),
    "names of names": (header("././@LongLink", 2, tarfile.GNUTYPE_LONGNAME) + b"x\0".ljust(BLOCK, b"\0"))
    * 5000,
    "an extended header of two megabytes": pax("x" * 2 * MAX_HEADER_BYTES) + header("a", 0),
    "a member of minus one block after a name": header("a", 0)
    + header("././@LongLink", 2, tarfile.GNUTYPE_LONGNAME)
    + b"x\0".ljust(BLOCK, b"\0")
    + header("b", -BLOCK),
    "an extended header of a terabyte": header("a", 0) + header("pax", 2**40, tarfile.XHDTYPE),
    "a name of a terabyte": header("a", 0) + header("././@LongLink", 2**40, tarfile.GNUTYPE_LONGNAME),
    "a member of an exabyte": header("a", 2**60),
    "a damaged header": header("a", 0) + b"x" * BLOCK + header("b", 0),
    "half a header": header("a", 0) + header("b", 0)[:100],
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in HARMFUL.items()])
def test_harmful_layer_is_an_error(data: bytes) -> None:
    """Whether it is compressed or not."""
    layer = data + bytes(2 * BLOCK)
    for stored in (layer, gzip.compress(layer)):
        with pytest.raises(ObjectFormatError, match="cannot be read"):
            read_tree([io.BytesIO(stored)])


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in HARMFUL.items()])
def test_harmful_archive_is_an_error(data: bytes, tmp_path: Path) -> None:
    """A harmful archive results in an error within bounded time."""
    path = tmp_path / "image.tar"
    path.write_bytes(data + bytes(2 * BLOCK))
    with pytest.raises(ObjectFormatError), open_layout(path) as source:
        source.top()


def test_a_layer_has_an_end() -> None:
    """The uncompressed size of a layer is bounded, for trees and digests."""
    size = 4 * MAX_HEADER_BYTES
    layer = gzip.compress(pack_tar([TarEntry(path="a", data=bytes(size))]))
    assert len(layer) < size / 100
    for limit in (size, size - 1, 2 * BLOCK):
        with pytest.raises(tarfile.ReadError, match=r"too large|behind the archive"):
            list(read_layer(io.BytesIO(layer), limit))
    with pytest.raises(tarfile.ReadError, match="too large"):
        digest_unpacked(io.BytesIO(layer), size)
    plain = gzip.decompress(layer)
    for stored in (layer, plain):
        assert digest_unpacked(io.BytesIO(stored), len(plain)) == hashlib.sha256(plain).hexdigest()


def test_tarfile_goes_forward_only() -> None:
    """A size that leads back would be read for ever, and a compressed layer from its begin each time."""
    file = tarreader._Forward(io.BytesIO(bytes(4 * BLOCK)), 4 * BLOCK)
    file.read(2 * BLOCK)
    file.seek(3 * BLOCK)
    for offset in (BLOCK, 4 * BLOCK + 1):
        with pytest.raises(tarfile.ReadError):
            file.seek(offset)


def test_damaged_archives_give_one_kind_of_error(tmp_path: Path) -> None:
    """Bytes changed and cut at random: a value or an ObjectFormatError, in archives as in layers."""
    entries = [TarEntry(path="index.json", data=json.dumps({"manifests": []}).encode())]
    entries += [TarEntry(path="x" * 180, data=b"y" * 700, xattrs={"user.a": b"\xff"})]
    whole = pack_tar(entries)
    chance = random.Random(7)  # noqa: S311 - the same each time
    path = tmp_path / "image.tar"
    read = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.choice((0, 0x2D, 0x30, 0x37, 0x78, 0x80, 0xFF))
        cut = bytes(data[: chance.randrange(len(data))] if chance.random() < 0.2 else data)
        path.write_bytes(cut)
        try:
            read_tree([io.BytesIO(cut)], keep=lambda _: True)
            read += 1
        except ObjectFormatError:
            pass
        with pytest.raises(ObjectFormatError), open_layout(path) as source:
            source.top()
    assert 0 < read < 1500
