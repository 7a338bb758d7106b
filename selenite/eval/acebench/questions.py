"""ACEBench's questions as chat requests, and their answers as calls.

Two forms: ``tools`` offers the functions as OpenAI's tools and writes the history as turns, past
calls among them; ``text`` is the benchmark's own prompt, with the functions in it and calls as
text. The benchmark's prompts are read from its own file, as literals.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from selenite.errors import DataError
from selenite.eval.acebench.files import FILES, PROMPTS, answers_path, questions_path
from selenite.eval.acebench.text_calls import read_text_calls
from selenite.eval.comparison import Wanted
from selenite.eval.question import Call, Question
from selenite.types import Message, ToolCall, ToolSpec

Form = Literal["tools", "text"]

_SYSTEM = (
    "Call the functions that the last request needs, all of them at once. Take values from the "
    "conversation as they are said there, and leave out parameters of which nothing is said."
)
_GIVEN = "(offered as tools)"
_TYPES = {"dict": "object", "float": "number"}
_KEPT = (
    *("description", "enum", "default", "required", "format", "pattern", "minimum", "maximum"),
    *("minLength", "maxLength", "minItems", "maxItems"),
)


@dataclass(frozen=True)
class Item:
    """One question, and what is right."""

    question: Question
    truth: Any  # as the file has it
    tools: tuple[ToolSpec, ...]  # in either form

    @property
    def is_special(self) -> bool:
        """Whether no call is due."""
        return self.question.category.startswith("special")

    @property
    def alternatives(self) -> list[list[Wanted]]:
        """Each is all the calls that are due; one of them must be met."""
        truths = self.truth if isinstance(self.truth, list) else [self.truth]
        return [
            [(self._name(name), _exactly(arguments)) for name, arguments in truth.items()]
            for truth in truths
        ]

    @property
    def due(self) -> tuple[Call, ...]:
        """The calls of the first alternative, as they are written there."""
        first = self.truth[0] if isinstance(self.truth, list) else self.truth
        return tuple(Call(self._name(name), arguments) for name, arguments in first.items())

    def _name(self, name: str) -> str:
        """Of the tool; a number at the end tells calls of the same tool apart."""
        known = {tool.name for tool in self.tools}
        own = tool_name(name)
        return own if own in known else re.sub(r"_\d+$", "", own)


def read_items(folder: Path, category: str, form: Form = "tools") -> list[Item]:
    """The items of a category. Raises ``DataError`` for other files."""
    try:
        prompts = _prompts((folder / PROMPTS).read_text(encoding="utf-8"))
        questions = _lines(folder / questions_path(category))
        answers = {
            entry["id"]: entry["ground_truth"] for entry in _lines(folder / answers_path(category))
        }
        return [_item(entry, category, answers[entry["id"]], prompts, form) for entry in questions]
    except (OSError, ValueError, KeyError, SyntaxError) as error:
        raise DataError(f"{folder}: not the files of {FILES.title} ({error!r})") from error


def tool_name(name: str) -> str:
    """As OpenAI's API allows it."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line.strip()]


def _prompts(source: str) -> dict[str, str]:
    """The texts that a Python file gives names to."""
    return {
        target.id: node.value.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _item(
    entry: Mapping[str, Any], category: str, truth: Any, prompts: Mapping[str, str], form: Form
) -> Item:
    tools = tuple(_tool(function) for function in entry["function"])
    messages = (
        _as_tools(entry, category, prompts)
        if form == "tools"
        else _as_text(entry, category, prompts)
    )
    question = Question(entry["id"], category, messages, tools if form == "tools" else ())
    return Item(question, truth, tools)


def _as_tools(
    entry: Mapping[str, Any], category: str, prompts: Mapping[str, str]
) -> tuple[Message, ...]:
    if category.startswith("special"):
        prompt = prompts["SYSTEM_PROMPT_FOR_SPECIAL_DATA_EN"]
        system = prompt.format(time=entry["time"], function=_GIVEN)
    else:
        known = entry.get("profile")
        about = f"What is known of the user: {json.dumps(known)}" if known else entry["time"]
        system = f"{_SYSTEM}\n{about}".strip()
    return (Message("system", system), *_history(entry["question"]))


def _as_text(
    entry: Mapping[str, Any], category: str, prompts: Mapping[str, str]
) -> tuple[Message, ...]:
    sort = next((s for s in ("special", "preference") if s in category), "normal")
    system = prompts[f"SYSTEM_PROMPT_FOR_{sort.upper()}_DATA_EN"].format(
        time=entry.get("time", ""), profile=entry.get("profile"), function=entry["function"]
    )
    user = prompts["USER_PROMPT_EN"].format(question=entry["question"])
    return (Message("system", system), Message("user", user))


def _history(written: str) -> list[Message]:
    """The turns of a conversation that is written as ``user: …`` and ``system: …``, the latter
    being the assistant. What follows a call is its result."""
    parts = re.split(r"(?m)^(user|system): ?", written)
    found = list[Message]()
    open_calls: tuple[ToolCall, ...] = ()
    number = 0
    for speaker, text in zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True):
        if open_calls:  # answered by what is said next, or by nothing
            result = text if speaker == "system" else ""
            found += [Message("tool", result, tool_call_id=call.id) for call in open_calls]
            open_calls = ()
            if result:
                continue
        calls = read_text_calls(text) if speaker == "system" else ()
        if calls:
            open_calls = tuple(
                ToolCall(tool_name(c.name), json.dumps(c.arguments), f"call_{number + place}")
                for place, c in enumerate(calls)
            )
            number += len(calls)
            found.append(Message("assistant", tool_calls=open_calls))
        else:
            found.append(Message("user" if speaker == "user" else "assistant", text))
    return found


def _tool(function: Mapping[str, Any]) -> ToolSpec:
    documented = function.get("parameters", function.get("arguments")) or {}
    schema = _schema({"type": "object", "properties": {}} | documented)
    return ToolSpec(tool_name(function["name"]), function["description"], schema)


def _schema(documented: Mapping[str, Any]) -> dict[str, Any]:
    """JSON schema of a documented type; keywords that are none of its own go."""
    schema = {key: documented[key] for key in _KEPT if key in documented}
    schema["type"] = _TYPES.get(documented["type"], documented["type"])
    if "properties" in documented:
        schema["properties"] = {
            name: _schema(field) for name, field in documented["properties"].items()
        }
    if "items" in documented:
        schema["items"] = _schema(documented["items"])
    return schema


def _exactly(arguments: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Acceptable values by parameter, of which there is one each."""
    return {name: [_plain(value)] for name, value in arguments.items()}


def _plain(value: Any) -> Any:
    """A value for the comparison, to which a list in a table would be a choice."""
    if isinstance(value, dict):
        return _exactly(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value
