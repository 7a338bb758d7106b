"""An endpoint's answer as a ``Completion``, or as the fault that it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import PydanticSerializationError

from selenite.agent.models.failure import Fault, Reason
from selenite.chat.schema import CallCheck
from selenite.client.pieces import Usage
from selenite.types import FinishReason, Message, ToolCall

_CUT = ("length", "max_tokens")  # finish reasons


@dataclass(frozen=True)
class Completion:
    """What a model wrote: text, calls, or both; never nothing."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP  # LENGTH: cut at the token limit; calls: STOP
    usage: Usage | None = None  # as the endpoint counts; None: it does not say
    reasoning: str = ""  # what the model thought, where the endpoint shows it
    call_checks: tuple[CallCheck, ...] = ()  # of tool_calls, in order, against the tools offered
    is_cached: bool = False  # from our disk: nothing was sent and nothing paid

    @property
    def message(self) -> Message:
        """The assistant's turn, for the next request. Reasoning is left out."""
        return Message("assistant", self.text, tool_calls=self.tool_calls)


class _Function(BaseModel):
    name: str
    arguments: str | dict[str, Any] | None = None  # an object: of servers that parse it


class _Call(BaseModel):
    id: str | None = None
    function: _Function


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Answer(BaseModel):
    choices: list[_Choice] | None = None


class _Details(BaseModel):
    cached_tokens: int | None = Field(default=None, ge=0)


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    prompt_tokens_details: _Details | None = None


def read_completion(body: Mapping[str, Any]) -> Completion | Fault:
    """The first choice of an answer of status 200."""
    usage = _usage(body)
    if body.get("error") is not None:
        return Fault(Reason.SERVER_ERROR, f"error: {_short(body['error'])}", usage=usage)
    try:
        answer = _Answer.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return Fault(Reason.MALFORMED, f"{place}: {first['msg']}", usage=usage)
    if not answer.choices:
        return Fault(Reason.EMPTY, "the answer has no choices", usage=usage)
    if not _is_unicode(answer.choices[0]):
        return Fault(Reason.MALFORMED, "the text has half of a surrogate pair", usage=usage)
    return _read_choice(answer.choices[0], usage)


def _read_choice(choice: _Choice, usage: Usage | None) -> Completion | Fault:
    message = choice.message
    if choice.finish_reason == "error":
        return Fault(Reason.SERVER_ERROR, "the answer broke off with an error", usage=usage)
    if message.refusal or choice.finish_reason == "content_filter":
        said = message.refusal or "the endpoint's filter took the reply"
        return Fault(Reason.DECLINED, said[:500], usage=usage)
    is_cut = choice.finish_reason in _CUT
    text = message.content or ""
    calls = _calls(message.tool_calls or [])
    if not text.strip() and not calls:
        if is_cut:
            detail = "the tokens ran out before any text; raise max_tokens"
            return Fault(Reason.TRUNCATED, detail, usage=usage)
        return Fault(Reason.EMPTY, "the reply has neither text nor calls", usage=usage)
    return Completion(
        text,
        calls,
        FinishReason.LENGTH if is_cut else FinishReason.STOP,
        usage,
        message.reasoning_content or message.reasoning or "",
    )


def _calls(entries: list[_Call]) -> tuple[ToolCall, ...]:
    """A missing or repeated id is replaced: results are told apart by it."""
    calls: list[ToolCall] = []
    for index, entry in enumerate(entries):
        written = entry.function.arguments or "{}"  # nothing is how some write no arguments
        arguments = written if isinstance(written, str) else json.dumps(written)
        is_used = entry.id in {call.id for call in calls}
        id = f"call_{index}" if not entry.id or is_used else entry.id
        calls.append(ToolCall(entry.function.name, arguments, id))
    return tuple(calls)


def _is_unicode(choice: _Choice) -> bool:
    """Whether it can be written down in UTF-8: JSON escapes can spell what cannot."""
    try:
        choice.model_dump_json()
    except PydanticSerializationError:
        return False
    return True


def _usage(body: Mapping[str, Any]) -> Usage | None:
    """None where it is missing or makes no sense: that is no fault of the reply."""
    try:
        usage = _Usage.model_validate(body.get("usage"))
    except ValidationError:
        return None
    details = usage.prompt_tokens_details
    cached = None if details is None else details.cached_tokens
    return Usage(usage.prompt_tokens, usage.completion_tokens, cached)


def _short(error: Any) -> str:
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:500]
