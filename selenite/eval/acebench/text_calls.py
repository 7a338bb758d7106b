"""Calls that are written as text, the way ACEBench's prompts ask for them and its histories are.

    [city.find(name='Rome', limit=3), f(open=true)]

The text is parsed and never run: values are literals, of Python or of JSON.
"""

from __future__ import annotations

import ast
from typing import Any

from selenite.eval.question import Call

_CONSTANTS = {"true": True, "false": False, "null": None}


def read_text_calls(text: str) -> tuple[Call, ...]:
    """The calls that a text consists of; none where it is anything else."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if not isinstance(tree, ast.List):
            return ()
        return tuple(_call(node) for node in tree.elts)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):  # or nested deeply
        return ()


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call with named arguments")
    arguments = dict[str, Any]()
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise ValueError(f"argument {keyword.arg}: unnamed, or there twice")
        arguments[keyword.arg] = _value(keyword.value)
    return Call(_name(node.func), arguments)


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{_name(node.value)}.{node.attr}"
    raise ValueError("no name")


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Name() if node.id in _CONSTANTS:
            return _CONSTANTS[node.id]
        case ast.List() | ast.Tuple():
            return [_value(item) for item in node.elts]
        case ast.Dict():
            keys = [None if key is None else ast.literal_eval(key) for key in node.keys]
            if not all(isinstance(key, str) for key in keys):
                raise ValueError("a table has names that are no texts")
            return dict(zip(keys, map(_value, node.values), strict=True))
    value = ast.literal_eval(node)
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError(f"{value!r}: no value of JSON")
    return value
