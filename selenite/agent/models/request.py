"""What is asked once, and the body that asks it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selenite.agent.models.endpoint import Endpoint, JsonMode
from selenite.chat.openai_form import tool_entry, wire_message
from selenite.errors import ConfigError
from selenite.types import Message, ToolSpec

_CHARACTERS_PER_TOKEN = 4  # of English; only limits are planned with it


@dataclass(frozen=True)
class Request:
    """The conversation and how to go on with it. ``None``: left to the endpoint.

    Raises ``ConfigError`` for values that no endpoint takes.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str | None = None  # none, auto, required, or a tool's name
    schema: Mapping[str, Any] | None = None  # JSON schema of the reply's text; None: any text
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.messages:
            raise ConfigError("messages=(): must have one at least; ask something")
        known = {"none", "auto", "required", *(tool.name for tool in self.tools)}
        if self.tool_choice is not None and self.tool_choice not in known:
            raise ConfigError(
                f"tool_choice={self.tool_choice!r}: must be none, auto, required or one of the "
                f"tools; offer it, or choose from: {', '.join(sorted(known))}"
            )
        if self.tool_choice not in (None, "none") and not self.tools:
            raise ConfigError(f"tool_choice={self.tool_choice!r}: needs tools; offer some")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature}: must be 0 (greedy) or more")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"max_tokens={self.max_tokens}: must be 1 or more, or None")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed}: must be in [0, 2**63), or None")

    def continued(self, turns: Sequence[Message]) -> Request:
        """The same with further turns."""
        return dataclasses.replace(self, messages=(*self.messages, *turns))

    def body(self, endpoint: Endpoint) -> dict[str, Any]:
        """As it is sent to an endpoint; without the key."""
        messages = self.messages
        if self.schema is not None and endpoint.json_mode != JsonMode.SCHEMA:
            messages = _instructed(messages, self.schema)
        body: dict[str, Any] = {
            **endpoint.extra,
            "model": endpoint.model,
            "messages": [wire_message(message) for message in messages],
        }
        if self.tools:
            body["tools"] = [tool_entry(tool) for tool in self.tools]
        if self.tools and self.tool_choice is not None:
            body["tool_choice"] = _wire_choice(self.tool_choice)
        if self.schema is not None and endpoint.json_mode != JsonMode.PROMPT:
            body["response_format"] = _response_format(self.schema, endpoint.json_mode)
        chosen = {
            "temperature": self.temperature,
            endpoint.limit_field: self.max_tokens,
            "seed": self.seed,
        }
        return body | {name: value for name, value in chosen.items() if value is not None}

    def expected_tokens(self, body: Mapping[str, Any]) -> int:
        """About how many tokens the prompt has and the reply may have, for ``rate.py``."""
        return len(json.dumps(body)) // _CHARACTERS_PER_TOKEN + (self.max_tokens or 0)


def _response_format(schema: Mapping[str, Any], mode: JsonMode) -> dict[str, Any]:
    if mode == JsonMode.OBJECT:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}


def _instructed(messages: tuple[Message, ...], schema: Mapping[str, Any]) -> tuple[Message, ...]:
    """With the schema in the system message, which is made where there is none."""
    wanted = f"Answer with one JSON object and nothing else. Its JSON schema:\n{json.dumps(schema)}"
    first, *others = messages
    if first.role != "system":
        return (Message("system", wanted), *messages)
    return (dataclasses.replace(first, content=f"{first.content}\n\n{wanted}"), *others)


def _wire_choice(choice: str) -> str | dict[str, Any]:
    """``none``, ``auto``, ``required``, or a tool by its name."""
    if choice in ("none", "auto", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}
