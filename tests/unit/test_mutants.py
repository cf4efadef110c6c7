# SPDX-License-Identifier: Apache-2.0
"""The rules that make mutants of C and of Python, the sample, and the list of known mutants."""

from __future__ import annotations

import ast

import pytest
from mutation import csource, loaderrun, pysource
from mutation.knownrun import read_known
from mutation.mutants import Mutant, choose_sample

C = """\
#define LIMIT 0x10u /* not 3 */
static int f(const char *text, int size)
{
	struct s local = { .a = 1 };
	int err = 0;

	if (!size)
		return -EINVAL;
	if (g(text) && *text)
		err = h("a < b");
	for (int i = size - 1; i > 2; i--)
		err |= g(&text[i]);
	return err;
}
"""


def changes(mutants: list[Mutant]) -> set[str]:
    """Return the changed lines, without file and number."""
    return {mutant.describe().split(": ", 1)[1] for mutant in mutants}


def test_rules_of_c() -> None:
    """Signs, numbers, conditions and statements change; comments, texts and declarations do not."""
    call = 'err = h("a < b");'
    loop = "for (int i = size - 1; i > 2; i--)"
    assert changes(csource.make_mutants("x.c", C)) == {
        "#define LIMIT 0x10u /* not 3 */ -> #define LIMIT 0x11u /* not 3 */",
        "#define LIMIT 0x10u /* not 3 */ -> #define LIMIT 0xfu /* not 3 */",
        "struct s local = { .a = 1 }; -> struct s local = { .a = 0 };",
        "struct s local = { .a = 1 }; -> struct s local = { .a = 2 };",
        "int err = 0; -> int err = 1;",
        "if (!size) -> if (size)",
        "return -EINVAL; -> ;",
        "if (g(text) && *text) -> if (g(text) || *text)",
        "if (g(text) && *text) -> if (!(g(text) && *text))",
        f"{call} -> ;",
        f"{loop} -> {loop.replace('size - 1', 'size + 1')}",
        f"{loop} -> {loop.replace('size - 1', 'size - 0')}",
        f"{loop} -> {loop.replace('size - 1', 'size - 2')}",
        f"{loop} -> {loop.replace('> 2', '>= 2')}",
        f"{loop} -> {loop.replace('> 2', '<= 2')}",
        f"{loop} -> {loop.replace('> 2', '> 1')}",
        f"{loop} -> {loop.replace('> 2', '> 3')}",
        f"{loop} -> {loop.replace('--', '++')}",
        "err |= g(&text[i]); -> err &= g(&text[i]);",
        "err |= g(&text[i]); -> ;",
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a):\n    return a < 1", {"a <= 1", "a >= 1", "a < 2", "a < 0", "None"}),
        ("def f(a):\n    return not a", {" a", "None"}),
        ("def f(a, b):\n    return a and b", {"a or b", "None"}),
        (
            "def f(a):\n    return a in '\u00e4' or a is None",
            {"a not in", "a in '\u00e4' and a", "is not", "None"},
        ),
        ("def f(a):\n    return a << 2", {"a >> 2", "a << 1", "a << 3", "None"}),
    ],
)
def test_rules_of_python(source: str, expected: set[str]) -> None:
    """Operators, numbers and results change, and each mutant is a program."""
    mutants = pysource.make_mutants("x.py", source)
    results = {mutant.text.partition("return ")[2] for mutant in mutants}
    assert len(results) == len(mutants) == len(expected)
    for part in expected:
        assert [text for text in results if part in text], (part, results)
    for mutant in mutants:
        ast.parse(mutant.text)


def test_statements_of_python() -> None:
    """Calls, errors and changes of members are dropped; docstrings, texts and annotations are not."""
    source = '''\
"""Text 1."""
LIMIT: int = 5


def f(x: list[1]) -> None:
    """Text."""
    if x.ready(f"{x + 1}"):
        raise ValueError("no")
    x.size += 1
    x.name = "a"
    x.go()
'''
    mutants = pysource.make_mutants("x.py", source)
    assert changes(mutants) == {
        "LIMIT: int = 5 -> LIMIT: int = 4",
        "LIMIT: int = 5 -> LIMIT: int = 6",
        'if x.ready(f"{x + 1}"): -> if (not (x.ready(f"{x + 1}"))):',
        'raise ValueError("no") -> pass',
        "x.size += 1 -> x.size -= 1",
        "x.size += 1 -> x.size += 0",
        "x.size += 1 -> x.size += 2",
        "x.size += 1 -> pass",
        'x.name = "a" -> pass',
        "x.go() -> pass",
    }
    assert [mutant.line for mutant in mutants if not mutant.in_function] == [2, 2]


def test_a_sample_has_mutants_of_every_file() -> None:
    """The same seed gives the same sample, another seed another one."""
    listed = [
        Mutant(file=f"{name}.c", source="x" * size, start=at, end=at + 1, new="y")
        for name, size in (("a", 90), ("b", 8), ("c", 2))
        for at in range(size)
    ]
    chosen = choose_sample(listed, 10)
    assert [mutant.file for mutant in chosen] == ["a.c"] * 9 + ["b.c", "c.c"]
    assert chosen == choose_sample(listed, 10)
    assert chosen != choose_sample(listed, 10, seed=1)
    assert choose_sample(listed, None) == choose_sample(listed, 1000) == listed
    assert len({mutant.key for mutant in listed}) == len(listed)


def test_known_mutants_are_of_this_source() -> None:
    """Each text stands once in its file, so the list follows the code."""
    listed = list(read_known())
    assert len(listed) >= 17
    assert all(mutant.text != mutant.source and tests for mutant, tests in listed)


def test_parts_of_c() -> None:
    """The tests of a function belong to the lines up to its end; a table is part of no function."""
    text = (
        "static int a;\n\nint f(void)\n{\n\tif (a) {\n\t}\n}\n\nint t[] = {\n\t1,\n};\n\nint g(void)\n{\n}\n"
    )
    found = [loaderrun.part_of(text, line) for line in (1, 4, 5, 6, 9, 10, 11, 14, 15)]
    assert found == [(0, False), (0, False), (0, True), (0, True), *[(1, False)] * 3, *[(2, False)] * 2]


def test_map_of_the_linker() -> None:
    """Addresses and functions are read from lines of lld; sections of data and libraries are not."""
    lines = (
        "   3f1a0   3f1a0       52    16         /x/objects/pin-record.c.o:(.text.record__pin)",
        "   3f1a0   3f1a0       52     1                 record__pin",
        "   3f1a0   3f1a0       52    16         /x/objects/pin-record.c.o:(.rodata.name)",
    )
    found = [loaderrun.MAP_LINE.match(line) for line in lines]
    assert found[0] is not None
    assert found[0].groupdict() == {"address": "3f1a0", "object": "pin-record.c.o", "name": "record__pin"}
    assert found[1:] == [None, None]
