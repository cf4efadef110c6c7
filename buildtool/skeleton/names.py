# SPDX-License-Identifier: Apache-2.0
"""Names of programs, maps, types and members in Go and Rust."""

from __future__ import annotations

import re

from buildtool.core.errors import ObjectFormatError
from buildtool.core.text import quote

_C_WORDS = (
    "asm auto bool break case char const constexpr continue default do double else enum extern false float"
    " for goto if inline int long nullptr register restrict return short signed sizeof static static_assert"
    " struct switch thread_local true typedef typeof unsigned void volatile while"
)
_GO_WORDS = (
    "break case chan const continue default defer else fallthrough for func go goto if import interface map"
    " package range return select struct switch type var"
)
_RUST_WORDS = (
    "abstract as async await become box break const continue crate do dyn else enum extern false final fn for"
    " gen if impl in let loop macro match mod move mut override priv pub ref return self static struct super"
    " trait true try type typeof union unsafe unsized use virtual where while yield"
)
# What C calls a name. Names of an object go into source code, and an object may come from anybody.
_C_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def check_c_name(name: str) -> str:
    """
    Return *name*, of a program, map, variable, type, member or value, if C allows it.

    Raises: ObjectFormatError.
    """
    if not _C_NAME.fullmatch(name):
        raise ObjectFormatError(
            f"{quote(name)} is not a name in C", hint="an object with such names needs code written by hand"
        )
    return name


def go_name(name: str) -> str:
    """
    Return the exported name in Go, as bpf2go makes it: packets_total is PacketsTotal, XDP_PASS stays.

    An underscore at the start, or after a small letter or a digit, is left out, and the next letter is large.
    """
    out = ""
    raise_next = True
    for letter in name:
        if letter == "_":
            if raise_next or out[-1:].islower() or out[-1:].isdigit():
                raise_next = True
                continue
            out += letter
        elif letter.isalnum():
            out += letter.upper() if raise_next else letter
        else:
            continue
        raise_next = False
    return out if out[:1].isalpha() else f"X{out}"


def is_name(name: str, language: str) -> bool:
    """Return whether *name* is a name in *language* (c, go, rust), and no word of it."""
    words = {"c": _C_WORDS, "go": _GO_WORDS, "rust": _RUST_WORDS}[language]
    return bool(_IDENTIFIER.fullmatch(name)) and name not in words.split()


def rust_field(name: str) -> str:
    """Return *name* as the name of a field in Rust."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    if plain in ("self", "super", "crate", "Self", "_"):
        return f"{plain}_"
    return f"r#{plain}" if plain in _RUST_WORDS.split() else plain


def rust_type(name: str) -> str:
    """Return *name* as the name of a type in Rust: packet_key is PacketKey."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return joined if joined[:1].isalpha() else f"T{joined}"


def rust_constant(name: str) -> str:
    """Return *name* as the name of a constant in Rust."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name).upper()
    return plain if not plain[:1].isdigit() else f"_{plain}"
