"""A message of a user, and what answers it: what samples are put together from.

sort        offered                      answered by
SINGLE      one tool                     one call
CHOICE      several tools                one call
PARALLEL    one tool, or more            several calls of one
SEVERAL     two tools, or more           calls of two or three of them
IRRELEVANT  no tool that would do        a text
MISSING     the tool, but not a value    a question
SESSION     several tools                two to four requests in a row, each answered
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from selenite.agent.functions.concept import Concept
from selenite.agent.functions.request import Request, make_request, merged, once_more, spelt
from selenite.agent.functions.signature import Function
from selenite.types import Message, ToolCall

_SPELT = 0.12  # share of requests for one call whose values are named one by one
_BARE = 0.4  # share of requests that lack a value which have none at all
_ONE_OF_SEVERAL = 0.3  # share of requests for several tools that want one of them several times

_UNABLE = (
    "I'm sorry, but none of my tools can {wish}.",
    "I cannot {wish}: there is no tool for that here.",
    "The tools that I have do not let me {wish}.",
    "None of the available functions fits, so I am unable to {wish}.",
    "Sorry, I have no function with which I could {wish}.",
    "That is not something that the tools I have can do: none of them can {wish}.",
)
_OPENINGS = (
    "I'd like to {wish}.",
    "Can you {wish}?",
    "Please {wish}.",
    "I want to {wish}.",
    "I need to {wish}, can you help?",
    "Could you {wish} for me?",
)


class Sort(StrEnum):
    """What a conversation trains."""

    SINGLE = "single"
    CHOICE = "choice"
    PARALLEL = "parallel"
    SEVERAL = "several"
    IRRELEVANT = "irrelevant"
    MISSING = "missing"
    SESSION = "session"


@dataclass(frozen=True)
class Turn:
    """What a user says, and the calls or the text that answer it."""

    asked: str
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # tools and arguments
    answer: str = ""
    needed: tuple[str, ...] = ()  # tools that are not called, without which another answer is right

    def messages(self, num_calls: int = 0) -> list[Message]:
        """Of the user and of the assistant; ``num_calls`` are the conversation's before."""
        calls = tuple(
            ToolCall(name, json.dumps(arguments, ensure_ascii=False), f"functions.{name}:{number}")
            for number, (name, arguments) in enumerate(self.calls, num_calls)
        )
        return [Message("user", self.asked), Message("assistant", self.answer, tool_calls=calls)]


def make_turn(sort: Sort, functions: Sequence[Function], rng: random.Random) -> Turn | None:
    """A turn about ``functions``: all of them where it wants several, else the first.

    None where they allow no such turn.
    """
    first = functions[0]
    match sort:
        case Sort.PARALLEL:
            request = _several(first, rng)
            return None if request is None else Turn(request.text, _calls(first, request))
        case Sort.SEVERAL:
            return _of_several_tools(functions, rng)
        case Sort.IRRELEVANT:
            return _refused(first, rng)
        case Sort.MISSING:
            return _lacking(first, rng)
    request = _single(first, rng)
    return Turn(request.text, _calls(first, request))


def _single(function: Function, rng: random.Random) -> Request:
    listed = spelt(function, _opening(function.concept, rng), rng)
    if listed is not None and rng.random() < _SPELT:
        return listed[0]
    request = make_request(function, rng)
    assert request is not None
    return request


def _several(function: Function, rng: random.Random) -> Request | None:
    """Several calls of one function: several things named at once, a second with one change, or
    whole requests one after the other."""
    form = rng.random()
    if form < 0.45 and any(p.several for p in function.concept.parameters):
        found = make_request(function, rng, rng.choice([2, 2, 3, 3, 4]))
        if found is not None:
            return found
    first = make_request(function, rng)
    assert first is not None
    if not first.calls[0]:
        return None
    if form < 0.7:
        return once_more(function, first, rng)
    requests = [first, *(make_request(function, rng) for _ in range(rng.choice([1, 1, 2, 3])))]
    found_all = [request for request in requests if request is not None]
    calls = [json.dumps(request.calls) for request in found_all]
    return merged(found_all, rng) if len(set(calls)) == len(calls) else None


def _of_several_tools(functions: Sequence[Function], rng: random.Random) -> Turn:
    requests = [make_request(function, rng) for function in functions]
    if rng.random() < _ONE_OF_SEVERAL:
        requests[0] = _several(functions[0], rng) or requests[0]
    made = [(f, request) for f, request in zip(functions, requests, strict=True) if request]
    calls = [call for function, request in made for call in _calls(function, request)]
    return Turn(merged([request for _, request in made], rng).text, tuple(calls))


def _refused(function: Function, rng: random.Random) -> Turn:
    request = make_request(function, rng)
    assert request is not None
    return Turn(request.text, answer=rng.choice(_UNABLE).format(wish=function.concept.wish))


def _lacking(function: Function, rng: random.Random) -> Turn | None:
    """A wish that leaves out values which the function requires: all of them, or some."""
    required = [p for p in function.concept.parameters if not p.optional]
    if not required:
        return None
    opening = _opening(function.concept, rng)
    asked, missing = opening, tuple(required)
    if rng.random() >= _BARE:
        most = min(3, len(required) - 1)
        listed = spelt(function, opening, rng, rng.randint(1, most)) if most else None
        if listed is None:
            return None
        asked, missing = listed[0].text, listed[1]
    question = " ".join(parameter.missing for parameter in missing[:3])
    return Turn(asked, answer=question, needed=(function.tool.name,))


def _opening(concept: Concept, rng: random.Random) -> str:
    return rng.choice(_OPENINGS).format(wish=concept.wish)


def _calls(function: Function, request: Request) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    return tuple((function.tool.name, arguments) for arguments in request.calls)
