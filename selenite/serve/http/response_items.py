"""The answer of ``/v1/responses``: output items that grow with the model's events.

One walk over the events makes both the stream and the whole answer. Extension field:
``malformed``, what was meant as a call and is none.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic_core import to_json

from selenite.chat.events import (
    ArgumentsDelta,
    CallFinished,
    CallStarted,
    ContentDelta,
    Event,
    Malformed,
    ReasoningDelta,
)
from selenite.serve.engine.request import SampledToken
from selenite.serve.generation import End, Generation
from selenite.serve.http.chat import MalformedPart, malformed_part
from selenite.serve.http.errors import error_response
from selenite.serve.http.logprobs import TokenLogprob, TokenWords
from selenite.serve.http.responses import ResponsesBody
from selenite.serve.service import Service
from selenite.types import FinishReason

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(BaseModel):
    """Text for the user."""

    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: list[str] = Field(default_factory=list)
    logprobs: list[TokenLogprob] = Field(default_factory=list)  # empty: not asked for


class ReasoningPart(BaseModel):
    """A piece of reasoning."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str = ""


class MessageOutput(BaseModel):
    """An assistant's text."""

    type: Literal["message"] = "message"
    id: str
    status: ItemStatus = "in_progress"
    role: Literal["assistant"] = "assistant"
    content: list[OutputText] = Field(default_factory=list)


class ReasoningOutput(BaseModel):
    """What the model thought."""

    type: Literal["reasoning"] = "reasoning"
    id: str
    status: ItemStatus = "in_progress"
    summary: list[str] = Field(default_factory=list)
    content: list[ReasoningPart] = Field(default_factory=list)


class CallOutput(BaseModel):
    """A call; incomplete: do not make it."""

    type: Literal["function_call"] = "function_call"
    id: str
    status: ItemStatus = "in_progress"
    call_id: str
    name: str
    arguments: str = ""


Output = MessageOutput | ReasoningOutput | CallOutput


class CachedDetails(BaseModel):
    """Of the input."""

    cached_tokens: int


class ReasoningDetails(BaseModel):
    """Of the output: reasoning, counted by encoding it again."""

    reasoning_tokens: int


class ResponseUsage(BaseModel):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: CachedDetails
    output_tokens: int
    output_tokens_details: ReasoningDetails
    total_tokens: int


class IncompleteDetails(BaseModel):
    """Why it is incomplete."""

    reason: Literal["max_output_tokens"]


class ResponseObject(BaseModel):
    """The answer."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: dict[str, str] | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[Output]
    parallel_tool_calls: bool
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    metadata: dict[str, str]
    malformed: list[MalformedPart] | None = None


class ResponseWriter:
    """Writes a generation of one choice, whole or in pieces."""

    def __init__(self, body: ResponsesBody, generation: Generation, service: Service) -> None:
        self._generation = generation
        self._tokenizer = service.tokenizer
        self._words = TokenWords(service)
        self._has_logprobs = body.has_logprobs
        self._special = frozenset(service.tokenizer.special_tokens.values())
        self._unsaid: list[SampledToken] = []  # tokens since the last event, but for special ones
        self._sequence = 0
        self._malformed: list[MalformedPart] = []
        self._calls: dict[int, int] = {}  # index of a call to that of its item
        self._response = ResponseObject(
            id=f"resp_{generation.id}",
            created_at=int(datetime.now(UTC).timestamp()),
            status="in_progress",
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            model=body.model or service.loaded.name,
            output=[],
            parallel_tool_calls=body.parallel_tool_calls is not False,
            temperature=body.temperature,
            text=body.text.model_dump(by_alias=True) if body.text else {"format": {"type": "text"}},
            tool_choice=body.model_dump(include={"tool_choice"})["tool_choice"] or "auto",
            tools=[tool.model_dump() for tool in body.tools or ()],
            top_logprobs=body.top_logprobs or 0,
            top_p=body.top_p,
            metadata=body.metadata or {},
        )

    async def whole(self) -> ResponseObject:
        """All of it, at the end."""
        async for _ in self._walk():
            pass
        return self._response

    async def pieces(self) -> AsyncIterator[bytes]:
        """Events of a stream."""
        response = self._response.model_dump()
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)
        try:
            async for data in self._walk():
                yield data
        except Exception as error:
            body = error_response(error).error
            self._response.status = "failed"
            self._response.error = {"code": body.code or body.type, "message": body.message}
            yield self._event("response.failed", response=self._response.model_dump())
            raise

    async def _walk(self) -> AsyncIterator[bytes]:
        async for updates in self._generation.updates():
            data = b""
            for update in updates:
                self._unsaid += [t for t in update.tokens if t.token_id not in self._special]
                for event in update.events:
                    data += b"".join(self._take(event))
                    self._unsaid.clear()
                if update.end is not None:
                    data += b"".join(self._finish(update.end))
            if data:
                yield data

    def _take(self, event: Event) -> Iterator[bytes]:
        match event:
            case ContentDelta(text):
                yield from self._text(text, MessageOutput, OutputText, "msg", "output_text")
            case ReasoningDelta(text):
                yield from self._text(text, ReasoningOutput, ReasoningPart, "rs", "reasoning_text")
            case CallStarted(index, id, name):
                yield from self._close_last("completed")
                self._calls[index] = len(self._response.output)
                yield from self._add(CallOutput(id=_new_id("fc"), call_id=id, name=name))
            case ArgumentsDelta(index, text):
                item = self._call(index)
                item.arguments += text
                yield self._event(
                    "response.function_call_arguments.delta",
                    item_id=item.id,
                    output_index=self._calls[index],
                    delta=text,
                )
            case CallFinished():
                yield from self._close_last("completed")
            case Malformed():
                self._malformed.append(malformed_part(event))
                if event.index is not None:
                    yield from self._close_last("incomplete")

    def _text(
        self,
        text: str,
        kind: type[MessageOutput] | type[ReasoningOutput],
        part_kind: type[OutputText] | type[ReasoningPart],
        prefix: str,
        name: str,
    ) -> Iterator[bytes]:
        """More text of the open item of this kind, or of a new one."""
        item = self._response.output[-1] if self._response.output else None
        if not isinstance(item, kind) or item.status != "in_progress":
            yield from self._close_last("completed")
            item = kind(id=_new_id(prefix))
            yield from self._add(item)
            item.content.append(part_kind())  # type: ignore[arg-type]
            yield self._event("response.content_part.added", **self._part(item))
        part = item.content[0]
        part.text += text
        place = {"item_id": item.id, "output_index": self._last, "content_index": 0}
        extra = {}
        if isinstance(part, OutputText):
            scored = [self._words.logprob(t) for t in self._unsaid] if self._has_logprobs else []
            part.logprobs += scored
            extra["logprobs"] = [token.model_dump() for token in scored]
        yield self._event(f"response.{name}.delta", **place, delta=text, **extra)

    def _close_last(self, status: Literal["completed", "incomplete"]) -> Iterator[bytes]:
        item = self._response.output[-1] if self._response.output else None
        if item is None or item.status != "in_progress":
            return
        item.status = status
        place = {"item_id": item.id, "output_index": self._last}
        if isinstance(item, CallOutput):
            if status == "completed":
                yield self._event(
                    "response.function_call_arguments.done",
                    **place,
                    name=item.name,
                    arguments=item.arguments,
                )
        else:
            part = item.content[0].model_dump(exclude={"annotations"})
            name = f"response.{part.pop('type')}.done"
            yield self._event(name, **place, content_index=0, **part)
            yield self._event("response.content_part.done", **self._part(item))
        yield self._event(
            "response.output_item.done", output_index=self._last, item=item.model_dump()
        )

    def _finish(self, end: End) -> Iterator[bytes]:
        is_cut = end.reason is FinishReason.LENGTH
        yield from self._close_last("incomplete" if is_cut else "completed")
        self._response.status = "incomplete" if is_cut else "completed"
        if is_cut:
            self._response.incomplete_details = IncompleteDetails(reason="max_output_tokens")
        self._response.malformed = self._malformed or None
        self._response.usage = self._usage()
        name = f"response.{self._response.status}"
        yield self._event(name, response=self._response.model_dump())

    def _usage(self) -> ResponseUsage:
        generation = self._generation
        taken, written = generation.num_prompt_tokens, generation.num_completion_tokens
        reasoning = generation.choices[0].reply.reasoning
        return ResponseUsage(
            input_tokens=taken,
            input_tokens_details=CachedDetails(cached_tokens=generation.num_cached_tokens),
            output_tokens=written,
            output_tokens_details=ReasoningDetails(
                reasoning_tokens=len(self._tokenizer.encode(reasoning))
            ),
            total_tokens=taken + written,
        )

    @property
    def _last(self) -> int:
        return len(self._response.output) - 1

    def _call(self, index: int) -> CallOutput:
        item = self._response.output[self._calls[index]]
        assert isinstance(item, CallOutput), f"item {self._calls[index]} is no call"
        return item

    def _add(self, item: Output) -> Iterator[bytes]:
        self._response.output.append(item)
        yield self._event(
            "response.output_item.added", output_index=self._last, item=item.model_dump()
        )

    def _part(self, item: MessageOutput | ReasoningOutput) -> dict[str, Any]:
        return {
            "item_id": item.id,
            "output_index": self._last,
            "content_index": 0,
            "part": item.content[0].model_dump(),
        }

    def _event(self, type: str, **fields: Any) -> bytes:
        body = {"type": type, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return b"event: " + type.encode() + b"\ndata: " + to_json(body) + b"\n\n"


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
