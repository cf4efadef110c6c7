# SPDX-License-Identifier: Apache-2.0
"""Mutants of C source text, by rules over its tokens. The text is formatted by clang-format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mutation.mutants import Mutant

_TOKEN = re.compile(
    r"""(?P<skip> //[^\n]* | /\*.*?\*/ | \s+ | \\\n
        | \#[ ]*(?:include|if|ifdef|ifndef|else|endif|undef|pragma|error)[^\n]*
        | \#[ ]*define[ ]+\w+(?:\([^)]*\))? | _Static_assert\([^;]*;)
      | (?P<text> "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*')
      | (?P<word> [A-Za-z_]\w*)
      | (?P<number> \d\w*)
      | (?P<sign> >>= | <<= | -> | \+\+ | -- | && | \|\| | [-+*/%&|^=<>!]= | << | >> | .)""",
    re.VERBOSE | re.DOTALL,
)
# Signs between two operands, which have white space on both sides, and what replaces each.
_BETWEEN = {
    "==": ("!=",),
    "!=": ("==",),
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "&&": ("||",),
    "||": ("&&",),
    "&": ("|",),
    "|": ("&",),
    "^": ("&",),
    "<<": (">>",),
    ">>": ("<<",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "%": ("/",),
    "+=": ("-=",),
    "-=": ("+=",),
    "|=": ("&=",),
    "&=": ("|=",),
}
_OTHER = {"++": ("--",), "--": ("++",), "!": ("",), "true": ("false",), "false": ("true",)}
_NEGATED = {"==", "!=", "<", "<=", ">", ">=", "!"}
_CONTROL = ("if", "while", "for", "switch")
_DECLARATIONS = (
    "static",
    "const",
    "struct",
    "enum",
    "union",
    "unsigned",
    "typedef",
    "extern",
    "case",
    "default",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def make_mutants(file: str, source: str) -> list[Mutant]:
    """Return all mutants of the C text *source*, in the order of its lines."""
    tokens = [
        _Token(kind=str(found.lastgroup), text=found.group(), start=found.start(), end=found.end())
        for found in _TOKEN.finditer(source)
        if found.lastgroup != "skip"
    ]
    changes = [*_change_signs(source, tokens), *_negate_conditions(source, tokens), *_drop_statements(tokens)]
    return [
        Mutant(file=file, source=source, start=start, end=end, new=new) for start, end, new in sorted(changes)
    ]


def _change_signs(source: str, tokens: Sequence[_Token]) -> Iterator[tuple[int, int, str]]:
    for token in tokens:
        is_between = source[token.start - 1].isspace() and source[token.end : token.end + 1].isspace()
        changed = _BETWEEN.get(token.text, ()) if is_between else ()
        changed = changed or _OTHER.get(token.text, ())
        if token.kind == "number":
            changed = _neighbours(token.text)
        for new in changed:
            yield token.start, token.end, new


def _neighbours(text: str) -> tuple[str, ...]:
    """Return the number one larger and the one smaller, with the suffix and base of *text*."""
    digits = text.rstrip("uUlL")
    suffix, base = text[len(digits) :], 16 if digits.lower().startswith("0x") else 10
    number = int(digits, base)
    written = [
        f"{other:#x}" if base == 16 else str(other) for other in (number + 1, number - 1) if other >= 0
    ]
    return tuple(one + suffix for one in written)


def _closing(tokens: Sequence[_Token], opening: int) -> int:
    """Return the index of the parenthesis that closes the one at index *opening*."""
    depth = 0
    for index in range(opening, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[index].text, 0)
        if not depth:
            return index
    raise ValueError("a parenthesis without its end")


def _negate_conditions(source: str, tokens: Sequence[_Token]) -> Iterator[tuple[int, int, str]]:
    for index, token in enumerate(tokens):
        if token.text in ("if", "while") and token.kind == "word":
            inside = tokens[index + 2 : _closing(tokens, index + 1)]
            texts = {one.text for one in inside}
            # The negation of one comparison is that of its sign.
            if texts & {"&&", "||"} or not texts & _NEGATED:
                yield inside[0].start, inside[-1].end, f"!({source[inside[0].start : inside[-1].end]})"


def _drop_statements(tokens: Sequence[_Token]) -> Iterator[tuple[int, int, str]]:
    """Yield the removal of each statement in a function that is no declaration and not its last return."""
    openers: list[str] = []
    begins = index = 0  # of the present statement: its first token
    while index < len(tokens):
        text = tokens[index].text
        if text in _CONTROL and index == begins:
            index = _closing(tokens, index + 1)
            begins = index + 1
        elif text in ("(", "[", "{"):
            is_block = text == "{" and (index == begins or (not openers and tokens[index - 1].text != "="))
            openers.append("block" if is_block else text)
            begins = index + 1 if is_block else begins
        elif text in (")", "]", "}"):
            begins = index + 1 if openers.pop() == "block" else begins
        elif text in (";", "else", "do", ":") and openers[-1:] in (["block"], []):
            is_end = text == ";" and openers
            if is_end and _can_drop(tokens, begins, index, is_outermost=len(openers) == 1):
                yield tokens[begins].start, tokens[index].start, ""
            is_label = text != ":" or tokens[begins].text in ("case", "default")
            begins = index + 1 if is_label else begins
        index += 1


def _can_drop(tokens: Sequence[_Token], first: int, last: int, *, is_outermost: bool) -> bool:
    if first >= last or tokens[first].text in _DECLARATIONS:
        return False
    is_last = is_outermost and tokens[last + 1].text == "}"
    if tokens[first].text == "return":
        return not is_last
    # Two words, or a word, stars and a word: a type and a name.
    rest = [token for token in tokens[first:last] if token.text != "*"]
    is_declaration = rest[0].kind == "word" and rest[1:] and rest[1].kind == "word"
    return not (is_declaration and rest[0].text != "goto")
