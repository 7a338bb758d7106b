"""Tools and calls in a benchmark's files: in values of JSON, and in Python sources.

The forms differ from benchmark to benchmark. A tool is an object with a name and a schema of
parameters, or a public function with a docstring. Calls are objects with a name and arguments
(tau2, OpenAI), objects from names to arguments (BFCL, ACEBench), or texts (both).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_TYPES = {
    "dict": "object",
    "hashmap": "object",
    "list": "array",
    "tuple": "array",
    "set": "array",
    "sequence": "array",
    "arraylist": "array",
    "str": "string",
    "char": "string",
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
}
_JSON_TYPES = frozenset(["object", "array", "string", "integer", "number", "boolean"])
_CALL = re.compile(r"\s*\[?([A-Za-z_][\w.]*)\(.*\)\]?\s*", re.DOTALL)
_REPEATED = re.compile(r"_\d+$")  # ACEBench tells calls of one tool in one object apart so


@dataclass(frozen=True)
class Signature:
    """What a call looks like: the parameters, each as ``name:type``, in the alphabet's order.

    Names are normalised, and types are JSON's or ``any``: only what benchmarks agree upon.
    """

    parameters: tuple[str, ...]

    def without_names(self) -> Signature:
        """Types alone."""
        return Signature(tuple(sorted(each.partition(":")[2] for each in self.parameters)))

    def __str__(self) -> str:
        return f"({', '.join(self.parameters)})"


def normal(name: str) -> str:
    """A name without its style: ``createOrder``, ``create_order`` and ``order.create`` differ only
    in the last, whose words are in another order."""
    return "".join(character for character in name.lower() if character.isalnum())


def signature_of(schema: Mapping[str, Any]) -> Signature:
    """Of the JSON schema of a tool's parameters."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return Signature(())
    return Signature(tuple(sorted(f"{normal(n)}:{_type(s)}" for n, s in properties.items())))


def _type(schema: Any) -> str:
    """An enumeration has the type of its values."""
    name = schema.get("type") if isinstance(schema, Mapping) else None
    if name is None and isinstance(schema, Mapping) and schema.get("enum"):
        name = type(schema["enum"][0]).__name__
    return _known(name) if isinstance(name, str) else "any"


def _known(name: str) -> str:
    name = _TYPES.get(name.lower(), name.lower())
    return name if name in _JSON_TYPES else "any"


def tools_in(value: Any) -> Iterator[tuple[str, Signature]]:
    """The tools that a JSON value describes, at any depth."""
    if isinstance(value, Mapping):
        name, schema = value.get("name"), _schema(value)
        if isinstance(name, str) and schema is not None:
            yield name, signature_of(schema)
            return
    inner = value.values() if isinstance(value, Mapping) else value
    for each in inner if isinstance(value, Mapping | list) else ():
        yield from tools_in(each)


def _schema(tool: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for key in ("parameters", "inputSchema", "input_schema", "arguments"):
        schema = tool.get(key)
        if isinstance(schema, Mapping) and isinstance(schema.get("properties"), Mapping):
            return schema
    return None


def tools_in_source(tree: ast.AST) -> Iterator[tuple[str, Signature]]:
    """The functions of a Python module that may be tools: public ones with a docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            pairs = [
                f"{normal(each.arg)}:{_annotated(each.annotation)}"
                for each in given
                if each.arg not in ("self", "cls")
            ]
            yield node.name, Signature(tuple(sorted(pairs)))


def _annotated(node: ast.expr | None) -> str:
    """The JSON type of an annotation; of ``X | None`` and ``Optional[X]`` that of X."""
    match node:
        case ast.Name(name) | ast.Attribute(attr=name):
            return _known(name)
        case ast.Constant(str(text)):
            return _annotated(ast.parse(text, mode="eval").body)
        case ast.Subscript(ast.Name("Optional"), inner):
            return _annotated(inner)
        case ast.Subscript(
            ast.Name("Literal"), ast.Constant(value) | ast.Tuple([ast.Constant(value), *_])
        ):
            return _known(type(value).__name__)
        case ast.Subscript(outer, _):
            return _annotated(outer)
        case ast.BinOp(left, ast.BitOr(), ast.Constant(None)):
            return _annotated(left)
    return "any"


def calls_in(value: Any, tools: Collection[str]) -> Iterator[list[str]]:
    """The names of ``tools`` that are called in a row: all calls of one JSON list, also of lists
    in it, and of the messages of one conversation; or of one object."""
    found = [name for each in _flat(value) for name in _called(each, tools)]
    if found:
        yield found
        return
    inner = value.values() if isinstance(value, Mapping) else value
    for each in inner if isinstance(value, Mapping | list) else ():
        yield from calls_in(each, tools)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def _called(value: Any, tools: Collection[str]) -> Iterator[str]:
    """The calls that a value is, not those in it."""
    if isinstance(value, str):
        names = [found[1]] if (found := _CALL.fullmatch(value)) else []
    elif not isinstance(value, Mapping):
        names = []
    elif isinstance(value.get("tool_calls"), list):
        names = [name for each in value["tool_calls"] for name in _called(each, tools)]
    else:
        call = value.get("function", value)
        names = _named(call, tools) if isinstance(call, Mapping) else []
    yield from (name for name in names if name in tools)


def _named(call: Mapping[str, Any], tools: Collection[str]) -> list[str]:
    if isinstance(call.get("name"), str) and "arguments" in call and _schema(call) is None:
        return [call["name"]]
    if not all(isinstance(arguments, Mapping) for arguments in call.values()):
        return []
    return [name if name in tools else _REPEATED.sub("", name) for name in call]
