"""Agents without a model, for every score to be read beside: what nothing, the first tool, and
words that match achieve.

``RETRIEVER`` is the strongest that is known without learning: the tool whose words are in the
request most (rarer words count more), and slots filled by patterns: numbers in their order, values
of enums that occur, capitalised words and quoted text for strings.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selenite.eval.question import Answer, Call, Question
from selenite.types import ToolSpec

Agent = Callable[[Question], Answer]

_THRESHOLD = 0.12  # share of a tool's words that the request must have


def null(question: Question) -> Answer:
    """Never calls anything."""
    return Answer("I cannot help with that.")


def first_tool(question: Question) -> Answer:
    """Calls the first tool with its schema's defaults and the emptiest values."""
    if not question.tools:
        return null(question)
    tool = question.tools[0]
    properties = tool.parameters.get("properties", {})
    required = tool.parameters.get("required", [])
    values = {name: emptiest(properties.get(name, {})) for name in required}
    return Answer(calls=(Call(tool.name, values),))


def retriever(question: Question) -> Answer:
    """Calls the tool that is most like the request, if one is like it."""
    ranked = rank(question.request, question.tools)
    if not ranked or ranked[0][0] < _THRESHOLD:
        return null(question)
    tool = ranked[0][1]
    return Answer(calls=(Call(tool.name, fill(question.request, tool.parameters)),))


FLOORS: Mapping[str, Agent] = {"null": null, "first tool": first_tool, "retriever": retriever}


def emptiest(schema: Mapping[str, Any]) -> Any:
    """A default, or the smallest value of a schema's type."""
    if "default" in schema:
        return schema["default"]
    if schema.get("enum"):
        return schema["enum"][0]
    empty: dict[str, Any] = {"integer": 0, "number": 0, "boolean": False, "array": [], "object": {}}
    return empty.get(str(schema.get("type")), "")


def rank(request: str, tools: Sequence[ToolSpec]) -> list[tuple[float, ToolSpec]]:
    """Tools by the share of their words that the request has, weighted by rarity."""
    words = set(_words(request))
    bags = [set(_words(f"{tool.name} {tool.description}")) for tool in tools]
    known = Counter(word for bag in bags for word in bag)
    weight = {word: math.log(1 + len(bags) / count) for word, count in known.items()}
    scores = [
        sum(weight[word] for word in bag & words) / max(1e-9, sum(weight[word] for word in bag))
        for bag in bags
    ]
    return sorted(zip(scores, tools, strict=True), key=lambda pair: -pair[0])


def fill(request: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Values for required parameters, by patterns."""
    numbers = re.findall(r"-?\d+(?:,\d{3})*(?:\.\d+)?", request)
    quoted = re.findall(r"[\"'“]([^\"'”]{2,80})[\"'”]", request)
    names = re.findall(r"(?<!^)(?<![.?!] )\b[A-Z][\w&.-]*(?:,? [A-Z][\w&.-]*)*", request)
    texts = [*quoted, *names]
    values = dict[str, Any]()
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        field = properties.get(name, {})
        values[name] = _value(field, request, numbers, texts)
    return values


def _value(field: Mapping[str, Any], request: str, numbers: list[str], texts: list[str]) -> Any:
    listed = field.get("enum")
    if listed:
        said = [value for value in listed if str(value).lower() in request.lower()]
        return said[0] if said else emptiest(field)
    match field.get("type"):
        case "integer" | "number" if numbers:
            text = numbers.pop(0).replace(",", "")
            return float(text) if "." in text else int(text)
        case "array" if field.get("items", {}).get("type") in ("integer", "number") and numbers:
            found = [float(n.replace(",", "")) for n in numbers]
            numbers.clear()
            return [int(n) if n.is_integer() else n for n in found]
        case "array" if texts:
            found_texts = list(texts)
            texts.clear()
            return found_texts
        case "string" if texts:
            return texts.pop(0)
    return emptiest(field)


def _words(text: str) -> list[str]:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if len(word) > 2]
