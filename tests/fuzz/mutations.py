# SPDX-License-Identifier: Apache-2.0
"""
Mutations that reach the code behind the parsers: JSON stays nearly JSON, and objects are signed again.

Random bytes alone end at the first bad signature. The TEST KEYS of the vectors therefore sign each changed
object, so that the code behind the signature runs as well.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

from labs.vectors.builder import ALICE, BOB, CAROL, MALLORY, pae, sign

SIGNERS = (ALICE, BOB, CAROL, MALLORY)
_BY_KEY_ID = {signer.key_id: signer for signer in SIGNERS}
_RECORD_HEAD = struct.Struct("<8sIIII8s")
_ENTRY_BYTES = 96
_ROOM_SIGNATURES = 4
_BTF_HEAD = b"\x9f\xeb\x01"
_BTF_BYTES = 512  # of a vector's .BTF

Mutate = Callable[[bytes, int], bytes]


class Raw(str):
    """JSON text that is written unchanged."""

    __slots__ = ()


class Members(list[tuple[Any, Any]]):
    """The members of a JSON object, which may contain a name twice."""

    __slots__ = ()


def _words(text: str) -> list[str]:
    return text.split()


# One JSON text on each line.
TOKENS = [
    Raw(text)
    for text in (
        r"""
0
1
-0
-1
00
+1
1.0
1e0
1E400
0x1
9007199254740991
9007199254740992
9223372036854775807
9223372036854775808
-9223372036854775808
18446744073709551616
9999999999999999999999999999999999999999
NaN
Infinity
-Infinity
true
false
null
[]
{}
""
[[]]
[{}]
"\u0000"
"\ud800"
"\udc00\ud800"
"\ud83d\ude00"
"\uFFFE"
"\/"
"\x"
"\u00e9"
"\ue9"
"e\u0301"
'a'
/**/1
1,
{"a":1,"a":1}
{"a":1,"\u0061":1}
{"\u0000":1}
{"":1}
["a","a"]
["b","a"]
["\uff41","\ud800\udc00"]
["\ud800\udc00","\uff41"]
[2,1]
[1,1]
[1,2]
[[[[[[[]]]]]]]
[[[[[[[[]]]]]]]]
[[[[[[[[[]]]]]]]]]
{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}
"""
    ).splitlines()
]
WORDS = [
    *("", "/", "linux/amd64 ", "x" * 128, "x" * 129, "a" * 65_000, "0" * 64, "F" * 64, "0" * 63),
    *("\u00e9", "\uff41", "\U00010000", "\U0001f600", "\u2028", "\x7f", "a\tb", "\0", "\ud800"),
    *_words("""
    x.bpf.o .x -x a/b demo linux/amd64 linux/arm64 linux/s390x 1970-01-01T00:00:00Z 1969-12-31T23:59:59Z
    2026-02-29T00:00:00Z 2024-02-29T23:59:59Z 9999-12-31T23:59:59Z 2026-06-01T00:00:00Z 2026-05-31T23:59:60Z
    2026-05-31t00:00:00z 0000-01-01T00:00:00Z 10000-01-01T00:00:00Z 2100-02-29T00:00:00Z 2000-02-29T00:00:00Z
    2026-13-01T00:00:00Z 2026-00-01T00:00:00Z 2026-04-31T00:00:00Z 2026-06-01T24:00:00Z 2026-06-01T00:60:00Z
    xdp sched_cls tracepoint xdp* * kprobe/* eth0 required unset-ok bpf_rcu_read_lock bpf_rcu_read_unlock
    struct_ops = AA== AAA AAA= AA= MCowBQYDK2VwAyEA"""),
]
NAMES = _words("""
    _type subject name digest sha256 predicateType predicate platform project version release created
    notAfter programs section type attach maps keySize valueSize maxEntries helpers kfuncs license toolchain
    compiler flags source path policyVersion threshold keys objects programTypes maxObjectBytes publicKey
    notBefore revoked minimumVersion platforms attachPoints deniedHelpers deniedKfuncs clock earliest
    allowRollback struct pinned imageRules combine ignore""")
_BITS = ("", "0", "*", "/", ".", "\n", "\u00e9", "=")
# Bytes that some parsers accept as white space, and bytes that some readers drop.
_SPACES = (b" ", b"\n", b"\t", b"\r", b"\x0b", b"\x0c", b"\xc2\xa0", b"\xef\xbb\xbf", b"\0", b"//\n", b",")
_BAD_UTF8 = (
    b"\xff",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    b"\x80",
    b"\xf0\x82\x82\xac",
)


def mutate_json(text: bytes, rng: random.Random, mutate: Mutate) -> bytes:
    """Return a changed text: mostly another member, value or order, sometimes another byte."""
    try:
        value = json.loads(text, object_pairs_hook=Members, parse_int=Raw, parse_float=Raw)
    except (ValueError, RecursionError):
        return mutate(text, len(text) + 64)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _edit(value, rng)
    out = _write(value).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        at = rng.randrange(len(out) + 1)
        out = out[:at] + rng.choice(_SPACES + _BAD_UTF8) + out[at:]
    return out


def mutate_object(data: bytes, rng: random.Random, mutate: Mutate, room: int) -> bytes:
    """Return a changed file, mostly with valid signatures over its new contents."""
    found = _find_record(data)
    if found is None or rng.random() < 0.1:
        return mutate(data, room)
    offset, size, text, signers = found
    choice = rng.random()
    if choice < 0.5:
        text = mutate_json(text, rng, mutate)
    elif choice < 0.65:
        signers = rng.sample(SIGNERS, rng.randrange(1, 5))
    else:
        # Change bytes in place, so that the record keeps its offset.
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            types = data.find(_BTF_HEAD)
            if types >= 0 and rng.random() < 0.5:
                _change_word(changed, types, rng)
                continue
            at = rng.randrange(len(data))
            changed[at] = rng.choice((0, 1, 2, 4, 64, 127, 128, 255, changed[at] ^ 1 << rng.randrange(8)))
        data = bytes(changed)
        if (again := _find_record(data)) is not None:
            offset, size, text, _ = again
    return _put_record(data, offset, size, text, signers, rng)


def _change_word(data: bytearray, start: int, rng: random.Random) -> None:
    """Change a word near the start of .BTF: in its header, in a type or after it."""
    at = start + 4 * rng.randrange(min(len(data) - start, _BTF_BYTES) // 4)
    value = struct.unpack_from("<I", data, at)[0]
    near = (value + 1, value - 12, value ^ 1 << rng.randrange(32), rng.randrange(64))
    kind = rng.randrange(21) << 24 | rng.randrange(3)
    struct.pack_into("<I", data, at, rng.choice((0, 1, 26, kind, *near)) % 2**32)


def _edit(value: Any, rng: random.Random) -> Any:
    """Change one node of the tree."""
    if isinstance(value, (Members, list)) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return _edit_members(value, at, rng) if isinstance(value, Members) else _edit_items(value, at, rng)
    return _any_value(value, rng)


def _edit_members(value: Members, at: int, rng: random.Random) -> Members:
    out, (name, item) = Members(value), value[at]
    choice = rng.random()
    if choice < 0.7:
        out[at] = (name, _edit(item, rng))
    elif choice < 0.78:
        del out[at]
    elif choice < 0.86:
        out.insert(rng.randrange(len(out) + 1), (name, item))
    elif choice < 0.94:
        out.insert(at, (rng.choice(NAMES), _any_value(item, rng)))
    else:
        out[at] = (rng.choice((*NAMES, *WORDS)), item)
    return out


def _edit_items(value: list[Any], at: int, rng: random.Random) -> list[Any]:
    out = list(value)
    choice = rng.random()
    if choice < 0.6:
        out[at] = _edit(out[at], rng)
    elif choice < 0.7:
        del out[at]
    elif choice < 0.8:
        out.insert(at, out[at])
    elif choice < 0.9:
        rng.shuffle(out)
    else:
        out *= rng.choice((2, 3, 65, 300))
    return out


def _any_value(value: Any, rng: random.Random) -> Any:
    choice = rng.random()
    if choice < 0.4:
        return rng.choice(TOKENS)
    if choice < 0.75 or not isinstance(value, str):
        return rng.choice(WORDS)
    if isinstance(value, Raw):
        return Raw(str(rng.choice((0, 1, 3, 16, 17, 64, 131, 2**31, 2**32, 2**53 - 1))))
    at = rng.randrange(len(value) + 1)
    return (
        value[:at]
        + rng.choice(("", "0", "*", "/", ".", "\n", "\u00e9", "="))
        + value[at + rng.randrange(2) :]
    )


def _write(value: Any) -> str:
    if isinstance(value, Raw):
        return value
    if isinstance(value, Members):
        return "{" + ",".join(f"{_write(name)}:{_write(item)}" for name, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_write, value)) + "]"
    return json.dumps(value, ensure_ascii=len(str(value)) % 2 == 0)


def _find_record(data: bytes) -> tuple[int, int, bytes, list[Any]] | None:
    """Return the record's offset, the size of its section, the statement, and the known signers."""
    offset = data.find(b"\x7fBPFSIG\0")
    if offset < 0 or len(data) < offset + _RECORD_HEAD.size:
        return None
    _, _, size, length, count, _ = _RECORD_HEAD.unpack_from(data, offset)
    start = offset + _RECORD_HEAD.size
    end = start + length + _ENTRY_BYTES * count
    if not 1 <= count <= 16 or end > offset + size or offset + size > len(data):
        return None
    ids = (data[at : at + 32] for at in range(start + length, end, _ENTRY_BYTES))
    return offset, size, data[start : start + length], [_BY_KEY_ID[i] for i in ids if i in _BY_KEY_ID]


def _put_record(
    data: bytes, offset: int, size: int, text: bytes, signers: list[Any], rng: random.Random
) -> bytes:
    """Write a record into the file, mostly with the file's digest and valid signatures."""
    text = text[: size - _RECORD_HEAD.size - _ENTRY_BYTES * max(_ROOM_SIGNATURES, len(signers))]
    if rng.random() < 0.9:
        digest = hashlib.sha256(data[:offset] + bytes(size) + data[offset + size :]).hexdigest().encode()
        text = re.sub(rb'"sha256":"[0-9a-f]{64}"', b'"sha256":"' + digest + b'"', text, count=1)
    entries = sign(text, signers)
    if entries and rng.random() < 0.03:
        entries[0] = (entries[0][0], ALICE.private.sign(pae(text + b" ")))
    head = _RECORD_HEAD.pack(b"\x7fBPFSIG\0", 1, size, len(text), len(entries), bytes(8))
    record = (head + text + b"".join(a + b for a, b in entries)).ljust(size, b"\0")
    return data[:offset] + record + data[offset + size :]
