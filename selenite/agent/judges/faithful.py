"""Does what the agent says come from somewhere: each id, number and quoted text in its words
must stand in what the user said, in a result, or in the system prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selenite.agent.episodes.trajectory import Trajectory

_ID = re.compile(r"\b[A-Z]{2,4}-\d+\b")
_NUMBER = re.compile(r"(?<![\w.-])-?\d[\d,]*(?:\.\d+)?(?![\w-])")
_TRIES = re.compile(r"\b(\d{1,3}) (?:times|tries|attempts)\b")
_QUOTED = re.compile(r"[\"“]([^\"”]{2,60})[\"”]")


def faults(trajectory: Trajectory) -> list[str]:
    """What the agent says that comes from nowhere."""
    forms = [form for phase in trajectory.task.phases for a in phase.answers for form in a.forms]
    known, found, calls = "\n".join(forms), [], 0  # other ways to say a result
    for message in trajectory.messages:
        if message.role == "assistant":
            text = _without_tries(message.content, calls)
            found += [f"{claim!r} comes from nowhere" for claim in _unfounded(text, known)]
            calls += len(message.tool_calls)
        else:
            known += f"\n{message.content}"
    return found


def _without_tries(text: str, calls: int) -> str:
    """Without numbers of tries, if there were so many calls: nobody needs to tell the agent."""
    return _TRIES.sub(lambda said: "" if int(said[1]) <= calls else said[0], text)


def _unfounded(text: str, known: str) -> Iterator[str]:
    ids = set(_ID.findall(known.upper().replace(" ", "-"))) | set(_ID.findall(known))
    for id in _ID.findall(text):
        if id not in ids and not re.search(_loose(id), known, re.IGNORECASE):
            yield id
    numbers = {_number(n) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", known)}
    negative = {-_number(n) for n in re.findall(r"(?<![\w.])-(\d[\d,]*(?:\.\d+)?)", known)}
    for number in _NUMBER.findall(_ID.sub("", text)):
        if _number(number) not in numbers | negative:
            yield number
    for quoted in _QUOTED.findall(text):
        if quoted.lower() not in known.lower():
            yield quoted


def _loose(id: str) -> str:
    prefix, _, digits = id.partition("-")
    return rf"\b{prefix}[- ]?{digits}\b"


def _number(text: str) -> float:
    return float(text.replace(",", ""))
