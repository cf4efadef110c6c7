# SPDX-License-Identifier: Apache-2.0
"""All verifiers allow the same values of constants and sizes of maps."""

from __future__ import annotations

import random
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.vectors.index import INDEX
from labs.verifiers import ask_all, question

from buildtool.core.errors import UsageError
from buildtool.core.strictjson import parse_time
from buildtool.objects.elf import parse_object
from buildtool.objects.settable import Settable
from buildtool.signing.settings import choose_settings
from buildtool.signing.statement import read_statement

NAMES = (
    "settable-all-kinds",
    "settable-whole-range",
    "settable-negative-range",
    "settable-range-over-zero",
    "settable-values-by-number",
    "settable-longest-string",
    "settable-all-entries",
    "settable-inner-maps",
    "plain",
)
FILES = {vector["name"]: b64decode(vector["file"]) for vector in INDEX["vectors"]}
TEXTS = (
    *("", " ", "-", "--1", "+1", "0", "-0", "00", "1", "01", "1 ", " 1", "1.0", "1e3", "0x", "0X1f", "0xfg"),
    *("-0x1", "0x-1", "00x1", "true", "false", "True", "TRUE", "none", "a=b", "a b", "1_0", "0b1", "0o7"),
    *("9" * 19, "9" * 20, "9" * 21, "0" * 24, "0" * 25, "0" * 23 + "5", "1" * 30, "-" + "9" * 19),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
    *("0xFF", "0xABCDEF", "0xG", "0x@", "0x`", "0x/", "0x:", "0XFFFFFFFFFFFFFFFF", "1A", "0x1F4"),
    *("18446744073709551615", "18446744073709551616", "0xffffffffffffffff", "0x10000000000000000"),
    *("4294967295", "4294967296", "65536", "65537", "1000", "1001", "-1", "-9", "-10", "-11", "2", "-2"),
    *(
        "x" * 15,
        "x" * 16,
        "x" * 4096,
        "x" * 4097,
        "tab\there",
        "\x7f",
        "\u00e4",
        "~",
        "-100",
        "-20",
        "3",
        "10",
    ),
)


def settings() -> Iterator[tuple[str, str, str]]:
    """Yield vector, name and text of settings: each text, and random ones close to the bounds."""
    rng = random.Random(1)  # noqa: S311 - the same settings in every run
    for vector in NAMES:
        found = read_statement(parse_object(FILES[vector])).settable or Settable()
        names = [item.name for item in (*found.variables, *found.maps)]
        bounds = [n for item in found.variables for n in (item.min, item.max, *item.values)]
        bounds += [n for item in found.maps for n in (item.min_entries, item.max_entries)]
        near = [n + step for n in bounds for step in (-1, 0, 1)]
        texts = [*TEXTS, *map(str, near), *(f"{'-' * (n < 0)}0x{abs(n):x}" for n in near)]
        texts += ["".join(rng.choices("-0x19af ", k=rng.randrange(1, 26))) for _ in range(200)]
        for name in (*names, "nothing"):
            for text in texts:
                yield vector, name, text


def answer_python(vector: str, name: str, text: str, *, is_size: bool) -> str:
    """Return Python's answer."""
    settable = {"x.bpf.o": read_statement(parse_object(FILES[vector])).settable}
    setting = [f"x.bpf.o:{name}={text}"]
    try:
        choose_settings([] if is_size else setting, setting if is_size else [], settable)
    except UsageError:
        return "denied"
    return "allowed"


@pytest.mark.tools
@pytest.mark.network
def test_all_verifiers_allow_the_same(verifier_program: Path, stores: Path) -> None:
    """The C library, Go, Rust and Python give one answer about each setting."""
    head = [
        question("T", bytes(stores / "alice")),
        question("N", str(parse_time(INDEX["now"])).encode()),
    ]
    asked = [*settings()]
    questions = [question("V", f"{name}={text}\n".encode() + FILES[vector]) for vector, name, text in asked]
    answers = ask_all(verifier_program, head, iter(questions))
    assert answers.pop(0) == "trust"
    wrong = [
        (setting, answer)
        for setting, answer in zip(asked, answers, strict=True)
        if answer != answer_python(*setting, is_size=False)
    ]
    assert wrong == []
    assert 500 < answers.count("allowed") < len(answers) - 5000


@pytest.mark.tools
@pytest.mark.network
def test_all_verifiers_allow_the_same_sizes(verifier_program: Path, stores: Path) -> None:
    """The numbers of entries at and beyond the bounds have one answer."""
    head = [
        question("T", bytes(stores / "alice")),
        question("N", str(parse_time(INDEX["now"])).encode()),
    ]
    numbers = ("0", "1", "2", "6", "7", "8", "65535", "65536", "65537", "4294967295", "4294967296")
    names = ("counts", "counts.inner", "hashes", "hashes.inner", "tables", "tables.inner", "rate", "nothing")
    asked = [(vector, name, number) for vector in NAMES for name in names for number in numbers]
    questions = [question("M", f"{name}={text}\n".encode() + FILES[vector]) for vector, name, text in asked]
    answers = ask_all(verifier_program, head, iter(questions))[1:]
    assert answers == [answer_python(*setting, is_size=True) for setting in asked]
    assert 20 < answers.count("allowed") < len(answers) - 100
