"""BFCL's questions of a single turn as chat requests, and their acceptable answers as calls.

Tools are converted as its own handler of OpenAI's function calling does: dots of names become
underscores, types become JSON schema's, a float says so in its description, and each tool's
description ends in a hint at the language. Keywords that are none of JSON schema's go.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenite.errors import DataError
from selenite.eval.comparison import Wanted
from selenite.eval.question import Answer, Call, Question
from selenite.eval.wheels import Wheel
from selenite.types import Message, ToolSpec

WHEEL = Wheel(
    "bfcl-eval",
    "2026.3.23",
    "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
)
"""Its licence is Apache-2.0."""

CATEGORIES = (
    *("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance"),
    *("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"),
    *("live_irrelevance", "live_relevance"),
)
"""Of Python's functions. Java and JavaScript are asked for in those languages' literals."""

_HINT = " Note that the provided function is in Python 3 syntax."
_TYPES = {
    **dict.fromkeys(("integer", "byte", "short", "long", "Bigint"), "integer"),
    **dict.fromkeys(("number", "float", "double"), "number"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("array", "list", "tuple", "ArrayList", "Array"), "array"),
    **dict.fromkeys(("dict", "object", "HashMap", "Hashtable"), "object"),
}


@dataclass(frozen=True)
class Item:
    """One question, as the files have it. ``acceptable`` is empty where no call is due, and where
    any is."""

    question: Question
    functions: tuple[Mapping[str, Any], ...]  # as documented
    acceptable: tuple[Mapping[str, Any], ...]  # {name: {parameter: [values]}}; "": may be left out


def read_items(folder: Path, category: str) -> list[Item]:
    """The items of a category, from an unpacked wheel. Raises ``DataError`` for another wheel."""
    name = f"BFCL_v4_{category}.json"
    data = folder / "bfcl_eval" / "data"
    try:
        entries = _lines(data / name)
        answers_path = data / "possible_answer" / name
        answers = (
            {entry["id"]: entry["ground_truth"] for entry in _lines(answers_path)}
            if (answers_path.exists())
            else {}
        )
        return [_item(entry, category, answers.get(entry["id"], [])) for entry in entries]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{data / name}: not a file of {WHEEL.title} ({error!r})") from error


def gold(item: Item) -> Answer:
    """The first acceptable answer; where any call is right, the first tool's."""
    required = {tool.name: tool.parameters.get("required", ()) for tool in item.question.tools}
    calls = tuple(
        Call(tool_name(name), _first(values, required.get(tool_name(name), ())))
        for entry in item.acceptable
        for name, values in entry.items()
    )
    if not calls and "irrelevance" not in item.question.category:
        calls = (Call(item.question.tools[0].name, {}),)
    return Answer("" if calls else "None of the tools fits.", calls)


def wanted(item: Item) -> list[Wanted]:
    """What is acceptable, for our own comparison."""
    return [(tool_name(name), v) for entry in item.acceptable for name, v in entry.items()]


def tool_name(name: str) -> str:
    """As OpenAI's API allows it."""
    return name.replace(".", "_")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _item(entry: Mapping[str, Any], category: str, acceptable: list[Mapping[str, Any]]) -> Item:
    messages = tuple(Message(m["role"], m["content"]) for m in entry["question"][0])
    tools = tuple(_tool(function) for function in entry["function"])
    question = Question(entry["id"], category, messages, tools)
    return Item(question, tuple(entry["function"]), tuple(acceptable))


def _tool(function: Mapping[str, Any]) -> ToolSpec:
    parameters = _schema(function["parameters"], is_root=True)
    return ToolSpec(tool_name(function["name"]), function["description"] + _HINT, parameters)


def _schema(documented: Mapping[str, Any], is_root: bool = False) -> dict[str, Any]:
    """JSON schema of a documented type; keywords that are none of its own go.

    Choices that no value could meet are read as they are meant: those of an array are its items',
    and those of a boolean or an integer that are texts are what the texts spell.
    """
    kept = ("description", "enum", "default", "required", "items", "properties")
    schema = {key: documented[key] for key in kept if key in documented}
    kind = "object" if is_root else _TYPES.get(str(documented.get("type")), "string")
    schema["type"] = kind
    if kind in ("boolean", "integer") and all(isinstance(v, str) for v in schema.get("enum", [0])):
        spelled = [_spelled(value, kind) for value in schema.pop("enum")]
        if known := [value for value in spelled if value is not None]:
            schema["enum"] = known
    if documented.get("type") == "float":
        text = f"{schema.get('description', '')} This is a float type value."
        schema["description"] = text.strip()
    if kind != "object":
        schema.pop("properties", None)
        schema.pop("required", None)
    if isinstance(schema.get("properties"), dict):
        schema["properties"] = {
            name: _schema(field) for name, field in schema["properties"].items()
        }
        known = schema["properties"]
        if "required" in schema:
            schema["required"] = [name for name in schema["required"] if name in known]
    if kind == "array":
        items = schema.get("items")
        schema["items"] = _schema(items) if isinstance(items, dict) else {}
        if "enum" in schema and not any(isinstance(value, list) for value in schema["enum"]):
            schema["items"]["enum"] = schema.pop("enum")
    else:
        schema.pop("items", None)
    return schema


def _spelled(text: str, kind: str) -> bool | int | None:
    """The boolean or integer that a text spells, if it spells one."""
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower())
    return int(text) if text.isdecimal() else None


def _first(values: Mapping[str, Any], required: Collection[str] = ()) -> dict[str, Any]:
    """Of each parameter the first value; where that is to be left out, none, unless it is due."""
    chosen = {
        name: next((option for option in options if option != ""), "")
        if name in required
        else options[0]
        for name, options in values.items()
        if options
    }
    return {
        name: _plain(value) for name, value in chosen.items() if value != "" or name in required
    }


def _plain(value: Any) -> Any:
    """A value of an answer; in tables every field has a list of acceptable values, too."""
    if isinstance(value, dict):
        return _first({k: v if isinstance(v, list) else [v] for k, v in value.items()})
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
