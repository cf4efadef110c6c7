# SPDX-License-Identifier: Apache-2.0
"""Statements with the member settable, valid and invalid ones, each signed correctly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labs.vectors.builder import Recipe, encode, statement
from labs.vectors.case import Case

_MAPS = [
    {"name": "counts", "type": "hash", "keySize": 4, "valueSize": 8, "maxEntries": 16},
    {"name": "hashes", "type": "hash_of_maps", "keySize": 4, "valueSize": 4, "maxEntries": 8},
    {"name": "tables", "type": "array_of_maps", "keySize": 4, "valueSize": 4, "maxEntries": 8},
]
_REST = 32 + 64 + 4 * 96  # the record's header, the digest, and room for four signatures
_FLAG = {"name": "verbose", "type": "boolean"}
_RATE = {"name": "rate", "type": "integer", "min": "1", "max": "1000"}
_MODE = {"name": "mode", "type": "integer", "values": ["-1", "0", "2"]}
_LABEL = {"name": "label", "type": "string", "maxBytes": 15}
_SIZE = {"name": "counts", "minEntries": 1, "maxEntries": 65536}


def settable_cases() -> Iterator[Case]:
    """Yield the cases."""
    for name, settable in _accepted():
        yield Case(name=f"settable-{name}", expect="accepted", recipe=_recipe(settable))
    for name, settable in (*_bad_forms(), *_bad_variables(), *_bad_maps()):
        yield Case(name=f"settable-{name}", expect="malformed", recipe=_recipe(settable))


def _recipe(settable: Any) -> Recipe:
    whole = statement(maps=_MAPS, settable=settable)
    needed = len(encode(whole)) + _REST
    return Recipe(statement=whole, sig_size=needed + -needed % 1024)


def _variables(*items: Any) -> dict[str, Any]:
    return {"variables": list(items)}


def _maps(*items: Any) -> dict[str, Any]:
    return {"maps": list(items)}


def _range(low: Any, high: Any) -> dict[str, Any]:
    return _variables(_RATE | {"min": low, "max": high})


def _values(*values: Any) -> dict[str, Any]:
    return _variables(_MODE | {"values": list(values)})


def _entries(low: Any, high: Any) -> dict[str, Any]:
    return _maps(_SIZE | {"minEntries": low, "maxEntries": high})


def _accepted() -> Iterator[tuple[str, Any]]:
    yield "all-kinds", _variables(_LABEL, _MODE, _RATE, _FLAG) | _maps(_SIZE)
    yield "variables-alone", _variables(_FLAG)
    yield "maps-alone", _maps(_SIZE)
    yield "whole-range", _range("-9223372036854775808", "18446744073709551615")
    yield "range-of-one", _range("-7", "-7")
    yield "negative-range", _range("-10", "-9")
    yield "range-over-zero", _range("-1", "0")
    yield "one-value", _values("0")
    yield "64-values", _values(*map(str, range(-10, 54)))
    yield "values-by-number", _values("-100", "-20", "3", "10", "18446744073709551615")
    yield "longest-string", _variables(_LABEL | {"maxBytes": 4096})
    yield "shortest-string", _variables(_LABEL | {"maxBytes": 1})
    yield "all-entries", _entries(1, 2**32 - 1)
    yield "entries-of-one-size", _entries(7, 7)
    yield "one-entry", _entries(1, 1)
    inner = [_SIZE | {"name": name} for name in ("counts", "hashes", "hashes.inner", "tables.inner")]
    yield "inner-maps", _maps(*inner)
    yield "128-variables", _variables(*(_FLAG | {"name": f"v{number:03}"} for number in range(128)))
    yield "name-with-a-dot", _variables(_FLAG | {"name": "watch.verbose"})


def _bad_forms() -> Iterator[tuple[str, Any]]:
    yield "empty", {}
    yield "array", []
    yield "unknown-member", _variables(_FLAG) | {"programs": []}
    yield "no-variables", _variables()
    yield "no-maps", _variables(_FLAG) | _maps()
    yield "variables-object", {"variables": {}}
    yield "maps-null", {"maps": None}
    yield "129-variables", _variables(*(_FLAG | {"name": f"v{number:03}"} for number in range(129)))
    yield "variables-descending", _variables(_FLAG, _RATE)
    yield "variable-twice", _variables(_FLAG, _FLAG)
    yield "maps-descending", _maps(_SIZE | {"name": "tables"}, _SIZE)
    yield "map-twice", _maps(_SIZE, _SIZE)


def _bad_variables() -> Iterator[tuple[str, Any]]:
    yield "variable-string", _variables("verbose")
    yield "variable-without-type", _variables({"name": "verbose"})
    yield "variable-without-name", _variables({"type": "boolean"})
    yield "name-empty", _variables(_FLAG | {"name": ""})
    yield "name-with-a-colon", _variables(_FLAG | {"name": "a:b"})
    yield "name-with-an-equals-sign", _variables(_FLAG | {"name": "a=b"})
    yield "name-of-129-bytes", _variables(_FLAG | {"name": "v" * 129})
    yield "type-other", _variables(_FLAG | {"type": "float"})
    yield "type-number", _variables(_FLAG | {"type": 1})
    yield "boolean-with-bounds", _variables(_FLAG | {"min": "0", "max": "1"})
    yield "integer-without-bounds", _variables({"name": "rate", "type": "integer"})
    yield "integer-without-max", _variables({"name": "rate", "type": "integer", "min": "1"})
    yield "range-and-values", _variables(_RATE | {"values": ["1"]})
    yield "range-backwards", _range("2", "1")
    yield "negative-range-backwards", _range("-9", "-10")
    yield "range-of-numbers", _range(1, 1000)
    yield "min-empty", _range("", "1")
    yield "min-sign-alone", _range("-", "1")
    yield "min-minus-zero", _range("-0", "1")
    yield "min-plus", _range("+1", "2")
    yield "min-leading-zero", _range("01", "2")
    yield "min-hexadecimal", _range("0x1", "2")
    yield "min-white-space", _range(" 1", "2")
    yield "max-newline", _range("1", "2\n")
    yield "max-other-digits", _range("1", "\uff12")
    yield "min-2-63-below", _range("-9223372036854775809", "1")
    yield "max-2-64", _range("1", "18446744073709551616")
    yield "max-huge", _range("1", "9" * 5000)
    yield "values-empty", _values()
    yield "65-values", _values(*map(str, range(65)))
    yield "values-descending", _values("2", "1")
    yield "values-by-text", _values("10", "9")
    yield "value-twice", _values("1", "1")
    yield "values-of-numbers", _values(1, 2)
    yield "string-without-size", _variables({"name": "label", "type": "string"})
    yield "string-of-no-bytes", _variables(_LABEL | {"maxBytes": 0})
    yield "string-of-4097-bytes", _variables(_LABEL | {"maxBytes": 4097})
    yield "string-size-text", _variables(_LABEL | {"maxBytes": "15"})


def _bad_maps() -> Iterator[tuple[str, Any]]:
    yield "map-array", _maps([])
    yield "map-unknown-member", _maps(_SIZE | {"type": "hash"})
    yield "map-without-min", _maps({"name": "counts", "maxEntries": 1})
    yield "no-entries", _entries(0, 1)
    yield "entries-backwards", _entries(2, 1)
    yield "entries-2-32", _entries(1, 2**32)
    yield "entries-text", _entries("1", "2")
    yield "entries-true", _maps(_SIZE | {"minEntries": True})
    yield "map-of-another-object", _maps(_SIZE | {"name": "others"})
    yield "inner-of-a-hash", _maps(_SIZE | {"name": "counts.inner"})
    yield "inner-of-no-map", _maps(_SIZE | {"name": ".inner"})
    yield "inner-of-inner", _maps(_SIZE | {"name": "tables.inner.inner"})
    yield "inner-with-more-text", _maps(_SIZE | {"name": "tables.innermost"})
