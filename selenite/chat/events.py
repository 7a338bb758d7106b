"""What a model's reply consists of, as events in the order of writing, and as their sum.

Written by ``ReplyParser`` (``reply_parser.py``), read by whoever streams or stores the reply.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from selenite.types import Message, ToolCall


@dataclass(frozen=True)
class ContentDelta:
    """More of the text for the user; never empty."""

    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    """More of what the model thinks before it answers; never empty."""

    text: str


@dataclass(frozen=True)
class CallStarted:
    """A call whose tool is known. ``CallFinished`` or ``Malformed`` with its index follows."""

    index: int  # counts the calls started in this reply
    id: str  # unique in the conversation
    name: str
    written_id: str | None  # what the model wrote where it is not ``id``; None: it is, or none


@dataclass(frozen=True)
class ArgumentsDelta:
    """More of a call's arguments, JSON text as written; a prefix of one JSON object so far."""

    index: int
    text: str


@dataclass(frozen=True)
class CallFinished:
    """The arguments are one complete JSON object."""

    index: int


class MalformedReason(StrEnum):
    """Why a part of a reply is no call."""

    TRUNCATED = "truncated"  # the reply ended inside the call
    BAD_ID = "bad_id"  # K2: the id names no tool
    BAD_NAME = "bad_name"  # Hermes: "name" is missing, twice there, or no name
    NO_ARGUMENTS = "no_arguments"
    NOT_AN_OBJECT = "not_an_object"  # the arguments, or the call, are something other than {...}
    INVALID_JSON = "invalid_json"
    STRAY_TEXT = "stray_text"  # text among calls where none may stand
    STRAY_TOKEN = "stray_token"  # a special token where it means nothing
    EMPTY_SECTION = "empty_section"  # markers of calls with no call between them


@dataclass(frozen=True)
class Malformed:
    """Something that was meant as a call, or stood among calls, and is not one.

    ``text`` is all of it as written, special tokens by name, so that nothing is lost.
    """

    index: int | None  # of a call that had started; None: of no such call
    reason: MalformedReason
    detail: str  # for people
    text: str


Event = ContentDelta | ReasoningDelta | CallStarted | ArgumentsDelta | CallFinished | Malformed


class Outcome(StrEnum):
    """What a caller has to decide upon."""

    TEXT = "text"  # no call was tried
    CALLS = "calls"  # one or more calls, all of them well formed
    MALFORMED = "malformed"  # something was wrong; well-formed calls may stand beside it


@dataclass(frozen=True)
class Reply:
    """A whole reply."""

    content: str
    reasoning: str
    calls: tuple[ToolCall, ...]  # the finished ones
    malformed: tuple[Malformed, ...]

    @property
    def outcome(self) -> Outcome:
        if self.malformed:
            return Outcome.MALFORMED
        return Outcome.CALLS if self.calls else Outcome.TEXT

    def message(self) -> Message:
        """The reply as the next turn of its conversation; malformed parts are not in it."""
        return Message(
            "assistant",
            self.content,
            tool_calls=self.calls,
            reasoning=self.reasoning or None,
        )


def collect(events: Iterable[Event]) -> Reply:
    """Adds up the events of one reply, from the first to the last."""
    content: list[str] = []
    reasoning: list[str] = []
    started: dict[int, CallStarted] = {}
    arguments: dict[int, list[str]] = {}
    calls: list[ToolCall] = []
    malformed: list[Malformed] = []
    for event in events:
        match event:
            case ContentDelta(text):
                content.append(text)
            case ReasoningDelta(text):
                reasoning.append(text)
            case CallStarted(index):
                started[index], arguments[index] = event, []
            case ArgumentsDelta(index, text):
                arguments[index].append(text)
            case CallFinished(index):
                call = started[index]
                calls.append(ToolCall(call.name, "".join(arguments[index]), call.id))
            case Malformed():
                malformed.append(event)
    return Reply("".join(content), "".join(reasoning), tuple(calls), tuple(malformed))
