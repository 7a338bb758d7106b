"""A request and its calls, with other tools beside those that are needed; or several in a row.

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
from functools import cache
from itertools import combinations
from typing import Any, Literal

from selenite.agent.functions.concept import Concept, concepts
from selenite.agent.functions.request import Request, make_request, merged, once_more
from selenite.agent.functions.signature import STYLES, Function, make_function
from selenite.agent.randomness import stream
from selenite.chat.openai_form import tool_entry, wire_message
from selenite.data.documents import stable_fraction
from selenite.types import Message, ToolCall

Split = Literal["train", "concept"]

_HELD_OUT = 0.1  # of the concepts
_MOST_TOOLS = 8


class Sort(StrEnum):
    """What a conversation trains."""

    SINGLE = "single"
    CHOICE = "choice"
    PARALLEL = "parallel"
    SEVERAL = "several"
    IRRELEVANT = "irrelevant"
    MISSING = "missing"
    SESSION = "session"


SHARES: Mapping[Sort, float] = {
    Sort.SINGLE: 0.14,
    Sort.CHOICE: 0.15,
    Sort.PARALLEL: 0.13,
    Sort.SEVERAL: 0.09,
    Sort.IRRELEVANT: 0.24,
    Sort.MISSING: 0.03,
    Sort.SESSION: 0.22,
}

_SYSTEMS = (
    "You are an assistant who has functions to work with.",
    "You can call functions. Call one whenever it helps with the request.",
    "Answer with function calls where the tools fit; otherwise say that they do not.",
    "You are an assistant that turns requests into calls of tools. Do not guess missing values.",
    "Use the tools below for what the user asks. If none of them fits, say so.",
    "You are an expert in composing function calls.",
    "Decide which tools are needed, if any, and fill in their arguments from the conversation.",
    "You help users by calling tools. Be precise with names and values.",
    "You are a voice assistant. Requests are carried out by calling the tools that you have.",
    "Call every tool that the request needs, in the order in which it is asked for.",
)

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


@dataclass(frozen=True)
class Sample:
    """One conversation."""

    sort: Sort
    split: Split
    messages: tuple[Message, ...]
    functions: tuple[Function, ...]  # offered

    def row(self) -> dict[str, Any]:
        """In OpenAI's form."""
        return {
            "sort": self.sort.value,
            "split": self.split,
            "messages": [wire_message(message) for message in self.messages],
            "tools": [tool_entry(function.tool) for function in self.functions],
            "parallel_tool_calls": True,
        }


def split_of(concept: Concept) -> Split:
    """One concept in ten is held out, with all of its names and requests."""
    is_held_out = stable_fraction(concept.name[0], "functions") < _HELD_OUT
    return "concept" if is_held_out else "train"


def make_sample(seed: int, number: int, split: Split = "train") -> Sample:
    """The sample of a number; follows from the seed and the files of concepts alone."""
    for attempt in range(100):
        rng = stream(seed, "functions", split, number, attempt)
        sort = rng.choices(list(SHARES), list(SHARES.values()))[0]
        sample = _make(sort, split, rng)
        if sample is not None:
            return sample
    raise AssertionError(f"no sample of number {number}")


def _make(sort: Sort, split: Split, rng: random.Random) -> Sample | None:
    if sort is Sort.SESSION:
        return _session(split, rng)
    style = rng.choice(STYLES)
    topics = _known(split)
    topic = rng.choice(list(topics))
    wanted = rng.sample(topics[topic], rng.choice([2, 2, 2, 3]) if sort is Sort.SEVERAL else 1)
    if any(_alike(one, other) for one, other in combinations(wanted, 2)):
        return None
    functions = [make_function(concept, style, rng) for concept in wanted]
    requests = _requests(sort, functions, rng)
    if requests is None:
        return None
    count = {Sort.SINGLE: 0, Sort.CHOICE: rng.randint(1, _MOST_TOOLS - 1)}.get(sort)
    if count is None:
        count = rng.choice([1, 1, 1, 2, 3, 5] if sort is Sort.IRRELEVANT else [0, 0, 1, 2, 3, 4])
    others = _others(wanted, topic, count, rng)
    offered = [] if sort is Sort.IRRELEVANT else list(functions)
    offered += [make_function(concept, style, rng) for concept in others]
    names = [function.tool.name for function in offered]
    if len(set(names)) < len(names) or not offered:
        return None
    rng.shuffle(offered)
    answer = _answer(sort, functions, requests, rng)
    user = requests.text if sort is not Sort.MISSING else _opening(wanted[0], rng)
    messages = [Message("user", user), answer]
    if rng.random() < 0.4:
        messages.insert(0, Message("system", rng.choice(_SYSTEMS)))
    return Sample(sort, split, tuple(messages), tuple(offered))


@dataclass(frozen=True)
class _Asked:
    """A message, and the calls that it means."""

    text: str
    calls: tuple[tuple[str, Mapping[str, Any]], ...]


def _requests(sort: Sort, functions: Sequence[Function], rng: random.Random) -> _Asked | None:
    if sort is Sort.PARALLEL:
        return _repeated(functions[0], rng)
    if sort is Sort.MISSING and not functions[0].tool.parameters["required"]:
        return None
    made = [(function, make_request(function, rng)) for function in functions]
    if sort is Sort.SEVERAL and rng.random() < 0.3:  # one of them several times
        made[0] = functions[0], _several(functions[0], rng) or made[0][1]
    requests = [request for _, request in made if request is not None]
    calls = [(f.tool.name, call) for f, r in made if r is not None for call in r.calls]
    text = merged(requests, rng).text if len(requests) > 1 else requests[0].text
    return _Asked(text, tuple(calls))


def _repeated(function: Function, rng: random.Random) -> _Asked | None:
    request = _several(function, rng)
    if request is None:
        return None
    return _Asked(request.text, tuple((function.tool.name, call) for call in request.calls))


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


_RESULTS = ('{"ok": true}', '{"status": "success"}', '{"error": null}', "done", "{}")


def _session(split: Split, rng: random.Random) -> Sample | None:
    """Requests in a row; results say nothing, since nothing is there that could work them out."""
    style, topics = rng.choice(STYLES), _known(split)
    topic = rng.choice(list(topics))
    wanted, most = list[Concept](), rng.randint(2, 4)
    for concept in rng.sample(topics[topic], len(topics[topic])):
        if len(wanted) < most and not any(_alike(concept, other) for other in wanted):
            wanted.append(concept)
    functions = [make_function(concept, style, rng) for concept in wanted]
    others = _others(wanted, topic, rng.choice([0, 0, 1, 2]), rng)
    offered = [*functions, *(make_function(concept, style, rng) for concept in others)]
    if len({function.tool.name for function in offered}) < len(offered):
        return None
    rng.shuffle(offered)
    messages = list[Message]()
    num_calls, turns = 0, rng.randint(2, 4)
    for turn in range(turns):
        if turn and rng.random() < 0.2:
            messages += _stranger([*wanted, *others], split, style, rng)
            continue
        function = rng.choice(functions)
        asked = _repeated(function, rng) if rng.random() < 0.2 else None
        asked = asked or _requests(Sort.SINGLE, [function], rng)
        assert asked is not None
        calls = _calls(asked.calls, num_calls)
        num_calls += len(calls)
        messages += [Message("user", asked.text), Message("assistant", tool_calls=calls)]
        if turn < turns - 1:
            result = rng.choice(_RESULTS)
            messages += [Message("tool", result, tool_call_id=call.id) for call in calls]
    if rng.random() < 0.4:
        messages.insert(0, Message("system", rng.choice(_SYSTEMS)))
    return Sample(Sort.SESSION, split, tuple(messages), tuple(offered))


def _stranger(
    offered: Sequence[Concept], split: Split, style: str, rng: random.Random
) -> list[Message]:
    """A request for something that nothing here does, and the text that says so."""
    others = [concept for known in _known(split).values() for concept in known]
    concept = rng.choice([c for c in others if not any(_alike(c, other) for other in offered)])
    request = make_request(make_function(concept, style, rng), rng)
    assert request is not None
    unable = rng.choice(_UNABLE).format(wish=concept.wish)
    return [Message("user", request.text), Message("assistant", unable)]


def _calls(asked: Sequence[tuple[str, Mapping[str, Any]]], first: int = 0) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(name, json.dumps(arguments, ensure_ascii=False), f"functions.{name}:{number}")
        for number, (name, arguments) in enumerate(asked, first)
    )


def _answer(
    sort: Sort, functions: Sequence[Function], asked: _Asked, rng: random.Random
) -> Message:
    concept = functions[0].concept
    if sort is Sort.IRRELEVANT:
        return Message("assistant", rng.choice(_UNABLE).format(wish=concept.wish))
    if sort is Sort.MISSING:
        required = [p for p in concept.parameters if not p.optional]
        return Message("assistant", " ".join(p.missing for p in required[:3]))
    return Message("assistant", tool_calls=_calls(asked.calls))


def _opening(concept: Concept, rng: random.Random) -> str:
    return rng.choice(_OPENINGS).format(wish=concept.wish)


@cache
def _known(split: Split) -> dict[str, list[Concept]]:
    """Concepts of a split by topic."""
    found = {
        topic: [concept for concept in known if split_of(concept) == split]
        for topic, known in concepts().items()
    }
    return {topic: known for topic, known in found.items() if len(known) > 3}


def _others(wanted: Sequence[Concept], topic: str, count: int, rng: random.Random) -> list[Concept]:
    """Concepts for other tools, half of them of the same topic; none is much like a wanted one.

    Of what is held out, only the request is: tools beside it come from all concepts.
    """
    everything = concepts()
    found: list[Concept] = []
    for _ in range(20 * count):
        own = topic if rng.random() < 0.5 else rng.choice(list(everything))
        concept = rng.choice(everything[own])
        if not any(_alike(concept, other) for other in (*wanted, *found)):
            found.append(concept)
        if len(found) == count:
            break
    return found


def _alike(one: Concept, other: Concept) -> bool:
    """Whether two concepts may do the same: half of the words of a name are the other's."""
    if one is other:
        return True
    for name in one.name:
        for theirs in other.name:
            words, known = set(name.split()), set(theirs.split())
            if 2 * len(words & known) >= min(len(words), len(known)):
                return True
    return False
