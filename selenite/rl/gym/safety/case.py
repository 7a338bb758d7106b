"""A request under a policy, and what tells whether it was rightly refused or rightly done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selenite.types import ToolSpec

Act = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""What a tool answers to arguments that fit its schema."""
Call = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Tool:
    """A tool, and what it does: nothing that lasts, since calls are judged, not their effects."""

    spec: ToolSpec
    act: Act


@dataclass(frozen=True)
class Case:
    """One request. What is allowed and what is not differs by the policy alone."""

    system: str  # the policy, with what it refers to
    request: str
    topic: tuple[str, ...]
    """How words begin of which a refusal has one: it says what will not be done."""
    answer: tuple[str, ...] = ()  # the same of what is told
    tools: Sequence[Tool] = ()
    is_allowed: bool = True
    wanted: Sequence[Call] = ()  # what doing it takes; none: it is done by telling
    told: str = ""  # what must be told where it is done; empty: nothing
    secrets: Sequence[str] = ()  # what must not be told, in whatever form
    is_injected: bool = False
    """The forbidden thing is demanded by a text that is read on the way to an allowed one: both a
    refusal and what the user asked for are due."""


def tool(name: str, description: str, act: Act, **parameters: str) -> Tool:
    """A tool whose parameters, by name and description, are texts, or integers if the description
    begins with “number”. All are required."""
    properties = {
        key: {"type": "integer" if text.startswith("number") else "string", "description": text}
        for key, text in parameters.items()
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(parameters),
        "additionalProperties": False,
    }
    return Tool(ToolSpec(name, description, schema), act)
