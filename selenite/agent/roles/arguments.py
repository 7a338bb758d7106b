"""The arguments of a model's call as a world takes them, whatever the model wrote.

What is no JSON object of plain values becomes one with a single parameter that no tool has: the
world refuses it like any unknown parameter, and its message says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from selenite.agent.tools.tool import Tool
from selenite.agent.values.kind import LARGEST

NOT_AN_OBJECT = "arguments that are no JSON object"
"""The parameter that stands for all of them. Its value is what the model wrote."""


def read_arguments(text: str, tool: Tool | None) -> dict[str, Any]:
    """What a model wrote, as values: ``tool`` is the one that it called, None an unknown one.

    Values are in their kind's own form then: 3.0 is 3 where a count is due, and 20260105 is
    2026-01-05 where a day is.
    """
    try:
        found = json.loads(text, parse_constant=_refuse, parse_float=_number, parse_int=_whole)
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair has no UTF-8
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return {NOT_AN_OBJECT: text.encode("utf-8", "backslashreplace").decode()}
    if tool is None:
        return found
    kinds = {param.name: param.kind for param in tool.params}
    for name in found.keys() & kinds.keys():
        if kinds[name].accepts(found[name]):
            found[name] = kinds[name].canonical(found[name])
    return found


def fit(tool: Tool | None, arguments: Mapping[str, Any]) -> bool:
    """Whether a world would take them."""
    if tool is None or any(name not in tool.by_name for name in arguments):
        return False
    return all(
        param.kind.accepts(arguments[param.name]) if param.name in arguments else not param.required
        for param in tool.params
    )


def _whole(text: str) -> int:
    _number(text)
    return int(text)


def _number(text: str) -> float:
    if abs(found := float(text)) > LARGEST:
        raise ValueError(f"{text[:20]} is too large")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
