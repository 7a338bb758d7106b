"""``/v1/chat/completions``: OpenAI's shape to a ``ChatRequest``, completions back to it.

Extension fields: ``reasoning_content``, ``malformed`` (what was meant as a call and is none),
``stop_reason`` (the stop string or token), and ids with ``return_token_ids``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Literal

from pydantic import BaseModel, Field

from selenite.chat import events as chat_events
from selenite.chat.call_ids import is_tool_name
from selenite.chat.events import (
    ArgumentsDelta,
    CallStarted,
    ContentDelta,
    Event,
    Malformed,
    ReasoningDelta,
)
from selenite.errors import ConfigError
from selenite.serve.engine.request import SampledToken
from selenite.serve.generation import Choice, End, Generation, Update
from selenite.serve.http.logprobs import TokenLogprob, TokenWords
from selenite.serve.http.protocol import (
    CallEntry,
    ChatMessage,
    FunctionCall,
    Items,
    NamedTool,
    NumChoices,
    ResponseFormat,
    SamplingFields,
    StreamOptions,
    Tool,
    Usage,
)
from selenite.serve.http.stream import DONE, event
from selenite.serve.http.usage import usage_of
from selenite.serve.service import ChatRequest, Service
from selenite.types import FinishReason, ToolSpec

FinishName = Literal["stop", "length", "tool_calls"]


class ChatBody(SamplingFields):
    """The request."""

    messages: Items[ChatMessage] = Field(min_length=1)
    n: NumChoices = 1
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stream_options: StreamOptions | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: Items[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = True
    response_format: ResponseFormat | None = None
    constrain_calls: bool = Field(
        default=True, description="False: calls are written freely, and may be malformed."
    )

    def request(self) -> ChatRequest:
        """As the service takes it; raises ``ConfigError`` where fields contradict each other."""
        tools = specs_of([tool.function.spec() for tool in self.tools or ()])
        choice = choice_of(self.tool_choice, tools)
        grammar = self.response_format.grammar() if self.response_format else None
        if (grammar or self.structured_outputs) and choice != "none":
            raise ConfigError(
                "response_format: the text cannot follow a format while tools may be called; set "
                "tool_choice to none, or leave one of the two out"
            )
        if not self.constrain_calls and choice not in ("none", "auto"):
            raise ConfigError(
                f"constrain_calls: with tool_choice {choice!r} calls cannot be written freely; set "
                "tool_choice to auto"
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise ConfigError("top_logprobs: set logprobs too")
        limit = self.max_completion_tokens
        options = self.options(
            self.max_tokens if limit is None else limit,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            grammar=grammar,
            n=self.n,
        )
        messages = tuple(message.message() for message in self.messages)
        parallel = self.parallel_tool_calls is not False
        return ChatRequest(messages, options, tools, choice, parallel, self.constrain_calls)


def specs_of(tools: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
    """Raises ``ConfigError`` where two have one name, or one has a name that no call can have or
    that ``tool_choice`` has a meaning for."""
    names = [tool.name for tool in tools]
    for name in names:
        if not is_tool_name(name):
            raise ConfigError(
                f"tools: the name {name!r} has spaces or control characters, which the id of a "
                "call cannot hold; give it another name"
            )
    words = [name for name in names if name in ("none", "auto", "required")]
    if words:
        raise ConfigError(f"tools: {words[0]!r} is a word of tool_choice; give it another name")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ConfigError(f"tools: {twice[0]!r} stands there twice; give each tool its own name")
    return tuple(tools)


def choice_of(choice: str | NamedTool | None, tools: Sequence[ToolSpec]) -> str:
    """none, auto, required, or the tool's name. Raises ``ConfigError`` where it cannot be."""
    if choice is None:
        return "auto" if tools else "none"
    name = choice.function.name if isinstance(choice, NamedTool) else choice
    if isinstance(choice, NamedTool) and name not in {tool.name for tool in tools}:
        known = ", ".join(tool.name for tool in tools) or "none"
        raise ConfigError(f"tool_choice: there is no tool {name!r} (offered: {known})")
    if name == "required" and not tools:
        raise ConfigError("tool_choice: required needs tools")
    return name if tools else "none"


class MalformedPart(BaseModel):
    """What was meant as a tool call, or stood among calls, and is none."""

    index: int | None  # of the call in the stream that this takes back
    reason: chat_events.MalformedReason
    detail: str
    text: str


class CallDelta(BaseModel):
    """A call, or a piece of one."""

    index: int
    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionDelta


class FunctionDelta(BaseModel):
    """A function's name, or a piece of its arguments."""

    name: str = ""
    arguments: str = ""


class ChoiceLogprobs(BaseModel):
    """Of every token of the completion, the end token included."""

    content: list[TokenLogprob]


class ReplyMessage(BaseModel):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | None
    tool_calls: list[CallEntry] | None  # never empty
    malformed: list[MalformedPart] | None  # never empty


class ReplyDelta(BaseModel):
    """A piece of the assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    reasoning_content: str = ""
    tool_calls: list[CallDelta] = Field(default_factory=list)
    malformed: list[MalformedPart] = Field(default_factory=list)


class ChatChoice(BaseModel):
    """A completion."""

    index: int
    message: ReplyMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishName
    stop_reason: str | int | None = None
    token_ids: list[int] | None = None


class ChatCompletion(BaseModel):
    """The answer in one piece."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: list[int] | None = None


class ChunkChoice(BaseModel):
    """A piece of a completion."""

    index: int
    delta: ReplyDelta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishName | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] | None = None


class ChatChunk(BaseModel):
    """A piece of the answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    prompt_token_ids: list[int] | None = None


class ChatWriter:
    """Writes a generation in OpenAI's shape, whole or in pieces."""

    def __init__(self, body: ChatBody, generation: Generation, service: Service) -> None:
        self._body = body
        self._generation = generation
        self._words = TokenWords(service)
        self._options = body.stream_options or StreamOptions()
        self._head = {
            "id": f"chatcmpl-{generation.id}",
            "created": int(datetime.now(UTC).timestamp()),
            "model": body.model or service.loaded.name,
        }

    async def whole(self) -> ChatCompletion:
        """All of it, at the end."""
        ends = await self._generation.ends()
        choices = [self._choice(c, ends[c.index]) for c in self._generation.choices]
        completion = ChatCompletion(**self._head, choices=choices, usage=usage_of(self._generation))
        if self._body.return_token_ids:
            completion.prompt_token_ids = list(self._generation.choices[0].request.prompt)
        return completion

    async def pieces(self) -> AsyncIterator[bytes]:
        """Events of a stream. The same text, calls and log-probabilities as ``whole``."""
        begun: set[int] = set()
        async for updates in self._generation.updates():
            data = b""
            for update in updates:
                if update.index not in begun:
                    begun.add(update.index)
                    data += event(self._first(update.index))
                for choice in self._chunks(update):
                    data += event(self._chunk(choice))
            yield data
        if self._options.include_usage:
            last = self._chunk()
            last.usage = usage_of(self._generation)
            yield event(last)
        yield DONE

    def _choice(self, choice: Choice, end: End) -> ChatChoice:
        reply = choice.reply
        calls = [
            CallEntry(id=c.id, function=FunctionCall(name=c.name, arguments=c.arguments))
            for c in reply.calls
        ]
        message = ReplyMessage(
            content=reply.content or (None if reply.calls else ""),
            reasoning_content=reply.reasoning or None,
            tool_calls=calls or None,
            malformed=[malformed_part(part) for part in reply.malformed] or None,
        )
        return ChatChoice(
            index=choice.index,
            message=message,
            logprobs=self._logprobs(choice.request.completion),
            finish_reason=finish_name(end),
            stop_reason=end.stopped_by,
            token_ids=self._ids(choice.request.completion),
        )

    def _first(self, index: int) -> ChatChunk:
        delta = ReplyDelta(role="assistant", content="")
        chunk = self._chunk(ChunkChoice(index=index, delta=delta, finish_reason=None))
        if self._body.return_token_ids:
            chunk.prompt_token_ids = list(self._generation.choices[index].request.prompt)
        return chunk

    def _chunk(self, *choices: ChunkChoice) -> ChatChunk:
        chunk = ChatChunk(object="chat.completion.chunk", **self._head, choices=list(choices))
        if self._options.continuous_usage_stats:
            chunk.usage = usage_of(self._generation)
        elif self._options.include_usage:
            chunk.usage = None  # set, so that it is written: it comes in the last chunk
        return chunk

    def _chunks(self, update: Update) -> Iterator[ChunkChoice]:
        """A chunk for each kind of thing that follows another, and one for the end."""
        choices = [
            ChunkChoice(index=update.index, delta=delta, finish_reason=None)
            for delta in deltas(update.events)
        ]
        logprobs, ids = self._logprobs(update.tokens), self._ids(update.tokens)
        if (logprobs or ids) and not choices:
            choices = [ChunkChoice(index=update.index, delta=ReplyDelta(), finish_reason=None)]
        if logprobs:
            choices[0].logprobs = logprobs
        if ids:
            choices[0].token_ids = ids
        if update.end is not None:
            choices.append(
                ChunkChoice(
                    index=update.index,
                    delta=ReplyDelta(),
                    finish_reason=finish_name(update.end),
                    stop_reason=update.end.stopped_by,
                )
            )
        return iter(choices)

    def _logprobs(self, tokens: Sequence[SampledToken]) -> ChoiceLogprobs | None:
        if not self._body.logprobs or not tokens:
            return None
        return ChoiceLogprobs(content=[self._words.logprob(token) for token in tokens])

    def _ids(self, tokens: Sequence[SampledToken]) -> list[int] | None:
        return [token.token_id for token in tokens] if self._body.return_token_ids else None


def finish_name(end: End) -> FinishName:
    """OpenAI's word for it; a reply cut short is ``length``, whatever is in it."""
    if end.reason is FinishReason.LENGTH:
        return "length"
    return "tool_calls" if end.has_calls else "stop"


def malformed_part(part: Malformed) -> MalformedPart:
    """As the extension field has it."""
    return MalformedPart(index=part.index, reason=part.reason, detail=part.detail, text=part.text)


def deltas(events: Sequence[Event]) -> Iterator[ReplyDelta]:
    """Events as deltas; neighbours of one kind become one."""
    for _, same in groupby(events, key=lambda e: (type(e), getattr(e, "index", None))):
        group = list(same)
        match group[0]:
            case ContentDelta():
                text = "".join(e.text for e in group if isinstance(e, ContentDelta))
                yield ReplyDelta(content=text)
            case ReasoningDelta():
                text = "".join(e.text for e in group if isinstance(e, ReasoningDelta))
                yield ReplyDelta(reasoning_content=text)
            case CallStarted(index, id, name):
                function = FunctionDelta(name=name, arguments="")
                call = CallDelta(index=index, id=id, type="function", function=function)
                yield ReplyDelta(tool_calls=[call])
            case ArgumentsDelta(index):
                text = "".join(e.text for e in group if isinstance(e, ArgumentsDelta))
                call = CallDelta(index=index, function=FunctionDelta(arguments=text))
                yield ReplyDelta(tool_calls=[call])
            case Malformed():
                parts = [malformed_part(e) for e in group if isinstance(e, Malformed)]
                yield ReplyDelta(malformed=parts)
