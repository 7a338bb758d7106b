"""One event of a stream, of ``/v1/chat/completions`` or ``/v1/completions``, as a ``Piece``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CallPiece:
    """A part of a tool call."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens as the server counts them."""

    prompt: int
    completion: int
    cached: int | None = None  # of the prompt; None: the server does not say


@dataclass(frozen=True)
class Piece:
    """What one event adds to the first choice."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[CallPiece, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None  # the server failed after the status was sent

    @property
    def has_output(self) -> bool:
        """Whether the model wrote something, seen from here."""
        return bool(self.content or self.reasoning or self.calls)


def parse_piece(data: str) -> Piece:
    """Raises ``ValueError`` for what is no event of these endpoints."""
    try:
        event = json.loads(data)
        return _piece(event)
    except (json.JSONDecodeError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"not an event of a completion: {data[:200]!r}") from error


def _piece(event: dict[str, Any]) -> Piece:
    if event.get("error") is not None:
        error = event["error"]
        return Piece(error=str(error.get("message") if isinstance(error, dict) else error))
    usage = None if event.get("usage") is None else _usage(event["usage"])
    choices = event.get("choices") or []
    if not choices:
        return Piece(usage=usage)
    choice = choices[0]
    delta = choice.get("delta") or {}
    return Piece(
        content=delta.get("content") or choice.get("text") or "",
        reasoning=delta.get("reasoning_content") or delta.get("reasoning") or "",
        calls=tuple(_call(call) for call in delta.get("tool_calls") or ()),
        finish_reason=choice.get("finish_reason"),
        usage=usage,
    )


def _call(call: dict[str, Any]) -> CallPiece:
    function = call.get("function") or {}
    return CallPiece(
        index=int(call.get("index", 0)),
        id=call.get("id") or "",
        name=function.get("name") or "",
        arguments=function.get("arguments") or "",
    )


def _usage(usage: dict[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        prompt=int(usage["prompt_tokens"]),
        completion=int(usage.get("completion_tokens") or 0),
        cached=details.get("cached_tokens"),
    )
