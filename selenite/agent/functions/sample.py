"""A conversation in which functions are offered, called for, or missed.

Each has tools of its own; ``group.py`` makes many that have the same. What one trains is its
``Sort``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from selenite.agent.functions.concept import Concept
from selenite.agent.functions.selection import Split, draw_others, is_alike, known_concepts
from selenite.agent.functions.signature import STYLES, Function, make_function
from selenite.agent.functions.turn import Sort, Turn, make_turn
from selenite.agent.randomness import stream
from selenite.chat.openai_form import tool_entry, wire_message
from selenite.types import Message

_MOST_TOOLS = 8

SHARES: Mapping[Sort, float] = {
    Sort.SINGLE: 0.14,
    Sort.CHOICE: 0.14,
    Sort.PARALLEL: 0.12,
    Sort.SEVERAL: 0.09,
    Sort.IRRELEVANT: 0.24,
    Sort.MISSING: 0.07,
    Sort.SESSION: 0.20,
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
_HAS_SYSTEM = 0.4

_RESULTS = ('{"ok": true}', '{"status": "success"}', '{"error": null}', "done", "{}")


@dataclass(frozen=True)
class Sample:
    """One conversation."""

    sort: Sort
    split: Split
    messages: tuple[Message, ...]
    functions: tuple[Function, ...]  # offered
    needed: tuple[str, ...] = ()  # tools that must stay although nobody calls them
    group: str = ""  # samples of one have the same tools

    def row(self) -> dict[str, Any]:
        """In OpenAI's form."""
        return {
            "sort": self.sort.value,
            "split": self.split,
            "messages": [wire_message(message) for message in self.messages],
            "tools": [tool_entry(function.tool) for function in self.functions],
            "parallel_tool_calls": True,
            "needed": list(self.needed),
            "group": self.group,
        }


def make_sample(seed: int, number: int, split: Split = "train") -> Sample:
    """The sample of a number; follows from the seed and the files of concepts alone."""
    for attempt in range(100):
        rng = stream(seed, "functions", split, number, attempt)
        sort = rng.choices(list(SHARES), list(SHARES.values()))[0]
        sample = _make(sort, split, rng)
        if sample is not None:
            return sample
    raise AssertionError(f"no sample of number {number}")


def draw_system(rng: random.Random) -> list[Message]:
    """A system message, or none."""
    has_one = rng.random() < _HAS_SYSTEM
    return [Message("system", rng.choice(_SYSTEMS))] if has_one else []


def _make(sort: Sort, split: Split, rng: random.Random) -> Sample | None:
    if sort is Sort.SESSION:
        return _session(split, rng)
    style = rng.choice(STYLES)
    topics = known_concepts(split)
    topic = rng.choice(list(topics))
    wanted = rng.sample(topics[topic], rng.choice([2, 2, 2, 3]) if sort is Sort.SEVERAL else 1)
    if any(is_alike(one, other) for one, other in combinations(wanted, 2)):
        return None
    functions = [make_function(concept, style, rng) for concept in wanted]
    turn = make_turn(sort, functions, rng)
    if turn is None:
        return None
    count = {Sort.SINGLE: 0, Sort.CHOICE: rng.randint(1, _MOST_TOOLS - 1)}.get(sort)
    if count is None:
        count = rng.choice([1, 1, 1, 2, 3, 5] if sort is Sort.IRRELEVANT else [0, 0, 1, 2, 3, 4])
    others = draw_others(wanted, topic, count, rng)
    offered = [] if sort is Sort.IRRELEVANT else list(functions)
    offered += [make_function(concept, style, rng) for concept in others]
    if not offered or not have_own_names(offered):
        return None
    rng.shuffle(offered)
    messages = (*draw_system(rng), *turn.messages())
    return Sample(sort, split, messages, tuple(offered), turn.needed)


def have_own_names(offered: Sequence[Function]) -> bool:
    """Whether no two tools have one name."""
    return len({function.tool.name for function in offered}) == len(offered)


def _session(split: Split, rng: random.Random) -> Sample | None:
    """Requests in a row; results say nothing, since nothing is there that could work them out."""
    style, topics = rng.choice(STYLES), known_concepts(split)
    topic = rng.choice(list(topics))
    wanted, most = list[Concept](), rng.randint(2, 4)
    for concept in rng.sample(topics[topic], len(topics[topic])):
        if len(wanted) < most and not any(is_alike(concept, other) for other in wanted):
            wanted.append(concept)
    functions = [make_function(concept, style, rng) for concept in wanted]
    others = draw_others(wanted, topic, rng.choice([0, 0, 1, 2]), rng)
    offered = [*functions, *(make_function(concept, style, rng) for concept in others)]
    if not have_own_names(offered):
        return None
    rng.shuffle(offered)
    messages = draw_system(rng)
    num_calls, turns = 0, rng.randint(2, 4)
    for number in range(turns):
        if number and rng.random() < 0.2:
            messages += stranger([*wanted, *others], split, style, rng).messages()
            continue
        function = [rng.choice(functions)]
        turn = make_turn(Sort.PARALLEL, function, rng) if rng.random() < 0.2 else None
        turn = turn or make_turn(Sort.SINGLE, function, rng)
        assert turn is not None
        messages += turn.messages(num_calls)
        num_calls += len(turn.calls)
        if number < turns - 1:
            result = rng.choice(_RESULTS)
            messages += [
                Message("tool", result, tool_call_id=call.id) for call in messages[-1].tool_calls
            ]
    return Sample(Sort.SESSION, split, tuple(messages), tuple(offered))


def stranger(offered: Sequence[Concept], split: Split, style: str, rng: random.Random) -> Turn:
    """A request for something that nothing here does, and the text that says so."""
    others = [concept for known in known_concepts(split).values() for concept in known]
    concept = rng.choice([c for c in others if not any(is_alike(c, other) for other in offered)])
    turn = make_turn(Sort.IRRELEVANT, [make_function(concept, style, rng)], rng)
    assert turn is not None
    return turn
