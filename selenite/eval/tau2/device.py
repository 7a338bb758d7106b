"""Which of the user's own tools is a text asking for: the words of its name are in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selenite.types import ToolSpec

_LIKE = {
    "reboot": ("restart",),
    "device": ("phone",),
    "check": ("look", "see", "tell", "what", "show", "is", "are"),
    "toggle": ("turn", "switch", "enable", "disable"),
    "set": ("change", "select", "switch"),
    "reseat": ("remove", "reinsert", "insert"),
    "grant": ("give", "allow"),
    "make": ("pay",),
    "payment": ("pay", "bill"),
    "run": ("do", "perform"),
    "disconnect": ("off",),
    "data": ("mobile data", "cellular data"),
    "preference": ("mode",),
    "settings": ("setting",),
    "permission": ("permissions",),
    "wifi": ("wi-fi",),
}
"""What people say for a word in a tool's name."""


def asked_tool(text: str, tools: Sequence[ToolSpec]) -> ToolSpec | None:
    """The tool with the longest name all of whose words are said; None: none of them."""
    said = _spaced(text)
    names = {tool.name: tool for tool in tools if all(_is_said(w, said) for w in _words(tool.name))}
    return names[max(names, key=lambda name: (len(_words(name)), name))] if names else None


def arguments_said(
    text: str, tool: ToolSpec, known: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Arguments out of the text: of those that are known to be of use the first whose words are all
    said, or else values that the schema lists, or the word before the parameter's own; None where
    one is due and not said."""
    said = _spaced(text)
    for arguments in known:
        if all(_is_mentioned(str(value), said) for value in arguments.values()):
            return dict(arguments)
    found = dict[str, Any]()
    for name in tool.parameters.get("required", ()):
        field = tool.parameters["properties"][name]
        options = [*_listed(field, tool.parameters), *(str(a[name]) for a in known if name in a)]
        chosen = [value for value in options if _is_mentioned(value, said)]
        chosen = chosen or re.findall(rf" (\w+) {_words(name)[0]} ", said)
        if not chosen:
            return None
        found[name] = max(chosen, key=len)
    return found


def _listed(field: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    parts = [field, *field.get("anyOf", ())]
    parts += [schema["$defs"][p["$ref"].rpartition("/")[2]] for p in parts if "$ref" in p]
    return [str(value) for part in parts for value in part.get("enum", ())]


def _words(name: str) -> list[str]:
    return name.split("_")


def _spaced(text: str) -> str:
    return " " + re.sub(r"[^a-z0-9]+", " ", text.lower()).strip() + " "


def _is_said(word: str, said: str) -> bool:
    return any(f" {form.replace('-', ' ')} " in said for form in (word, *_LIKE.get(word, ())))


def _is_mentioned(value: str, said: str) -> bool:
    return all(f" {word} " in said for word in _spaced(value).split())
