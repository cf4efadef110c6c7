# SPDX-License-Identifier: Apache-2.0
"""Mutants of Python source text, by rules over its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from mutation.mutants import Mutant

_COMPARED = {
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
}
_WORDS = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
}
_COMPUTED: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.Mod: ("%", "//"),
    ast.BitXor: ("^", "&"),
}
# Arguments that no caller can notice, as the size of a cache, and texts for people.
_UNSEEN = ("slots", "frozen", "kw_only", "maxsize", "hint")


def make_mutants(file: str, source: str) -> list[Mutant]:
    """Return all mutants of the Python text *source*, in the order of its lines."""
    text = _Text(source)
    tree = ast.parse(source)
    changes = sorted({change for node in _seen(tree) for change in text.changes(node)})
    bodies = [text.span(node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [
        Mutant(
            file=file,
            source=source,
            start=start,
            end=end,
            new=new,
            in_function=any(first <= start < last for first, last in bodies),
        )
        for start, end, new in changes
    ]


def _seen(node: ast.AST) -> Iterator[ast.AST]:
    """Yield *node* and what is below it, without annotations, texts and arguments that no caller notices."""
    if isinstance(node, ast.JoinedStr):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") or (name == "keywords" and isinstance(node, ast.ClassDef)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not (isinstance(child, ast.keyword) and child.arg in _UNSEEN):
                yield from _seen(child)


class _Text:
    """The text of a module, and the changes of its nodes."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def span(self, node: ast.FunctionDef) -> tuple[int, int]:
        """Return start and end of a function's statements."""
        return self._start(node.body[0]), self._end(node)

    def changes(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        """Yield start, end and new text of each change of *node* itself."""
        if isinstance(node, ast.Compare):
            yield from self._compare(node)
        elif isinstance(node, ast.BoolOp):
            old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from self._between(left, right, old, (new,))
        elif isinstance(node, ast.BinOp | ast.AugAssign):
            yield from self._compute(node)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield self._start(node), self._start(node) + len("not"), ""
        elif isinstance(node, ast.If | ast.While | ast.IfExp):
            yield from self._negate(node.test)
        elif isinstance(node, ast.comprehension):
            for condition in node.ifs:
                yield from self._negate(condition)
        elif isinstance(node, ast.Constant):
            yield from self._constant(node)
        yield from self._drop(node)

    def _compare(self, node: ast.Compare) -> Iterator[tuple[int, int, str]]:
        operands = [node.left, *node.comparators]
        for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
            yield from self._between(left, right, _WORDS[type(op)], _COMPARED[type(op)])

    def _compute(self, node: ast.BinOp | ast.AugAssign) -> Iterator[tuple[int, int, str]]:
        left, right = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
        is_text = isinstance(left, ast.Constant) and isinstance(left.value, str | bytes)
        if type(node.op) in _COMPUTED and not is_text:
            old, new = _COMPUTED[type(node.op)]
            yield from self._between(left, right, old, (new,))

    def _constant(self, node: ast.Constant) -> Iterator[tuple[int, int, str]]:
        start, end = self._start(node), self._end(node)
        if isinstance(node.value, bool):
            yield start, end, str(not node.value)
        elif isinstance(node.value, int):
            yield start, end, str(node.value + 1)
            if node.value:
                yield start, end, str(node.value - 1)

    def _drop(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        if isinstance(node, ast.Return):
            if node.value and not (isinstance(node.value, ast.Constant) and node.value.value is None):
                yield self._start(node.value), self._end(node.value), "None"
            return
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_dropped = isinstance(node, ast.Expr | ast.Raise | ast.AugAssign | ast.Continue | ast.Break)
        if isinstance(node, ast.Assign):
            is_dropped = isinstance(node.targets[0], ast.Attribute | ast.Subscript)
        if is_dropped and not is_docstring:
            yield self._start(node), self._end(node), "pass"

    def _negate(self, node: ast.expr) -> Iterator[tuple[int, int, str]]:
        is_negation = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        # The negation of one comparison is that of its operator.
        if not (is_negation or (isinstance(node, ast.Compare) and len(node.ops) == 1)):
            start, end = self._start(node), self._end(node)
            yield start, end, f"(not ({self._source[start:end]}))"

    def _between(
        self, left: ast.AST, right: ast.AST, old: str, changed: tuple[str, ...]
    ) -> Iterator[tuple[int, int, str]]:
        start = self._source.find(old, self._end(left), self._start(right))
        if start >= 0:
            for new in changed:
                yield start, start + len(old), new

    def _start(self, node: ast.AST) -> int:
        return self._offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def _end(self, node: ast.AST) -> int:
        return self._offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def _offset(self, line: int, column: int) -> int:
        """Return the offset in characters; *column* counts bytes."""
        begin = self._lines[line - 1]
        text = self._source[begin : self._lines[line]]
        return begin + len(text.encode()[:column].decode())
