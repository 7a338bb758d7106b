"""``/v1/responses``: OpenAI's newer shape. Its request as a ``ChatRequest``.

Nothing is stored: the earlier turns come as input items. Ids of calls (``call_id``) are the model's
own. How the answer is written: ``response_items.py``.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from selenite.errors import ConfigError
from selenite.serve.http.chat import choice_of, specs_of
from selenite.serve.http.protocol import (
    Body,
    Content,
    FunctionSpec,
    Items,
    NamedFunction,
    NamedTool,
    SamplingFields,
    TextPart,
    at_most,
    text_of,
)
from selenite.serve.service import ChatRequest, MakeGrammar
from selenite.types import Message, ToolCall

OUTPUT_LOGPROBS = "message.output_text.logprobs"


class MessageItem(Body):
    """A turn, or the text of one."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class CallItem(Body):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str = Field(min_length=1, max_length=256)
    arguments: str


class OutputItem(Body):
    """What the tool returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content


class ReasoningText(Body):
    """A piece of reasoning."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class ReasoningItem(Body):
    """What the model thought before the item that follows."""

    type: Literal["reasoning"]
    content: Items[ReasoningText] | None = None


def _kind(item: Any) -> Any:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return "message" if kind is None else kind


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[OutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(
        _kind,
        custom_error_type="item_type",
        custom_error_message="type must be message, function_call, function_call_output or "
        "reasoning",
    ),
]


class FunctionTool(FunctionSpec):
    """A tool as offered to the model."""

    type: Literal["function"]


class NamedChoice(NamedFunction):
    """The tool that must be called."""

    type: Literal["function"]


class TextFormat(Body):
    """What the text must be."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    json_schema: dict[str, JsonValue] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    def grammar(self) -> MakeGrammar | None:
        """None: any text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return lambda grammars: grammars.json_object()
        if self.json_schema is None:
            raise ConfigError("text.format.schema: must be there with type=json_schema")
        schema = dict(self.json_schema)
        return lambda grammars: grammars.json_schema(schema)


class TextSettings(Body):
    """Of the text."""

    format: TextFormat = TextFormat()


class ResponsesBody(SamplingFields):
    """The request."""

    input: str | Items[InputItem]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    tools: Items[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = True
    text: TextSettings | None = None
    include: Items[str] | None = Field(
        default=None, description=f"{OUTPUT_LOGPROBS}; all else is passed over."
    )
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    truncation: Literal["disabled"] | None = None
    metadata: Annotated[dict[str, str], at_most(16)] | None = None

    @property
    def has_logprobs(self) -> bool:
        """Whether the answer has log-probabilities."""
        return OUTPUT_LOGPROBS in (self.include or ())

    def request(self) -> ChatRequest:
        """As the service takes it; raises ``ConfigError`` where fields contradict each other."""
        tools = specs_of([tool.spec() for tool in self.tools or ()])
        named = self.tool_choice
        if isinstance(named, NamedChoice):
            function = NamedFunction(name=named.name)
            choice = choice_of(NamedTool(type="function", function=function), tools)
        else:
            choice = choice_of(named, tools)
        grammar = self.text.format.grammar() if self.text else None
        if grammar and choice != "none":
            raise ConfigError(
                "text.format: the text cannot follow a format while tools may be called; set "
                "tool_choice to none, or leave one of the two out"
            )
        if self.top_logprobs and not self.has_logprobs:
            raise ConfigError(f"top_logprobs: set include to [{OUTPUT_LOGPROBS!r}] too")
        logprobs = (self.top_logprobs or 0) if self.has_logprobs else None
        options = self.options(self.max_output_tokens, logprobs, grammar=grammar)
        messages = self._messages()
        if not messages:
            raise ConfigError("input: give a text, or at least one item")
        parallel = self.parallel_tool_calls is not False
        return ChatRequest(tuple(messages), options, tools, choice, parallel)

    def _messages(self) -> list[Message]:
        items = self.input
        if isinstance(items, str):
            items = [MessageItem(role="user", content=[TextPart(type="input_text", text=items)])]
        turns = [Message("system", self.instructions)] if self.instructions else []
        return [*turns, *_turns(items)]


def _turns(items: list[InputItem]) -> list[Message]:
    """Items as turns: reasoning, text and calls that follow one another are one turn."""
    turns: list[Message] = []
    reasoning: str | None = None
    for item in items:
        if isinstance(item, ReasoningItem):
            reasoning = "".join(part.text for part in item.content or ()) or None
        elif isinstance(item, OutputItem):
            turns.append(Message("tool", text_of(item.output), tool_call_id=item.call_id))
        elif isinstance(item, CallItem):
            if not turns or turns[-1].role != "assistant":
                turns.append(Message("assistant", reasoning=reasoning))
            call = ToolCall(item.name, item.arguments, item.call_id)
            calls = (*turns[-1].tool_calls, call)
            turns[-1] = dataclasses.replace(turns[-1], tool_calls=calls)
            reasoning = None
        else:
            role = "system" if item.role == "developer" else item.role
            thought = reasoning if role == "assistant" else None
            turns.append(Message(role, text_of(item.content), reasoning=thought))
            reasoning = None
    return turns
