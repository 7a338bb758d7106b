"""Small mistakes in Python source, one at a time: what tests must find, and what is to be repaired.

A mutant differs from its source in one place; all else keeps its form, comments included.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

_SWAPS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """What is written at ``start .. end`` (characters of the source) instead."""

    kind: str
    start: int
    end: int
    text: str

    def applied(self, source: str) -> str:
        """The source with this mistake."""
        return source[: self.start] + self.text + source[self.end :]


def mutants(source: str) -> list[Mutant]:
    """All of a source in ASCII: comparisons, operators and words swapped, whole numbers one too
    large, constants negated, and statements left out."""
    assert source.isascii(), "columns are counted in bytes"
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def found(node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.JoinedStr):  # places in it are not told
            return
        yield from _of(node, source, starts)
        for child in ast.iter_child_nodes(node):
            yield from found(child)

    return list(found(ast.parse(source)))


def _of(node: ast.AST, source: str, starts: list[int]) -> Iterator[Mutant]:
    def start(part: ast.expr | ast.stmt) -> int:
        return starts[part.lineno - 1] + part.col_offset

    def end(part: ast.expr | ast.stmt) -> int:
        assert part.end_lineno is not None
        assert part.end_col_offset is not None
        return starts[part.end_lineno - 1] + part.end_col_offset

    def swap(operator: ast.AST, left: ast.expr, right: ast.expr) -> Iterator[Mutant]:
        if type(operator) not in _SWAPS:
            return
        old, new = _SWAPS[type(operator)]
        pattern = rf"\b{old}\b" if old[0].isalpha() else re.escape(old)
        match = re.compile(pattern).search(source, end(left), start(right))
        assert match is not None, ast.dump(operator)
        yield Mutant(f"{old} -> {new}", match.start(), match.end(), new)

    match node:
        case ast.Compare():
            parts = [node.left, *node.comparators]
            for left, operator, right in zip(parts, node.ops, parts[1:], strict=False):
                yield from swap(operator, left, right)
        case ast.BinOp():
            yield from swap(node.op, node.left, node.right)
        case ast.AugAssign():
            yield from swap(node.op, node.target, node.value)
            yield Mutant("left out", start(node), end(node), "pass")
        case ast.BoolOp():
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from swap(node.op, left, right)
        case ast.UnaryOp(op=ast.Not()):
            yield Mutant("not left out", start(node), start(node.operand), "")
        case ast.Constant(value=bool(value)):
            yield Mutant("negated", start(node), end(node), str(not value))
        case ast.Constant(value=int(value)):
            yield Mutant("one more", start(node), end(node), str(value + 1))
        case ast.Name(id="min" | "max" | "any" | "all"):
            yield Mutant(f"{node.id} swapped", start(node), end(node), _NAMES[node.id])
        case ast.Expr(value=ast.Call()):
            yield Mutant("left out", start(node), end(node), "pass")
