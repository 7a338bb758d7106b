"""What agents earn that do not try: each environment's table of them is a test.

An environment in which one of them earns much teaches it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from selenite.agent.randomness import stream
from selenite.rl.gym.environment import Environment, Episode, close
from selenite.types import Message, ToolSpec

Agent = Callable[[Sequence[Message], Sequence[ToolSpec], random.Random], Message]
"""The next turn, after these messages and with these tools."""

_WORD = re.compile(r"[\w.+-]+")
_CONSTANTS = ("0", "1", "2", "3", "4", "5", "6", "8", "10", "12", "24", "yes", "no", "x", "nobody")


def attempt(environment: Environment, number: int, agent: Agent) -> float:
    """What an agent earns in one task."""
    episode: Episode = environment.begin(number)
    try:
        rng = stream(number, "audit")
        messages = list(episode.opening)
        for _ in range(environment.budget.turns):
            turn = agent(messages, episode.tools, rng)
            more = episode.reply(turn)
            messages += [turn, *more]
            if not more:
                break
        return episode.score().value
    finally:
        close(episode)


def audit(
    environment: Environment, numbers: Sequence[int], agents: Mapping[str, Agent]
) -> dict[str, float]:
    """The mean of each agent over tasks; ``constant`` is the best of all that say one thing."""
    found = {
        name: mean(attempt(environment, number, agent) for number in numbers)
        for name, agent in agents.items()
    }
    constants = (
        mean(attempt(environment, number, _saying(f"Answer: {text}")) for number in numbers)
        for text in _CONSTANTS
    )
    return {**found, "constant": max(constants)}


def _saying(text: str) -> Agent:
    return lambda messages, tools, rng: Message("assistant", text)


def _asked(messages: Sequence[Message]) -> str:
    return next(message.content for message in reversed(messages) if message.role == "user")


def _copying(messages: Sequence[Message], tools: Sequence[ToolSpec], rng: random.Random) -> Message:
    words = _WORD.findall(_asked(messages))
    return Message("assistant", f"Answer: {rng.choice(words)}")


def _copying_a_number(
    messages: Sequence[Message], tools: Sequence[ToolSpec], rng: random.Random
) -> Message:
    words = [word for word in _WORD.findall(_asked(messages)) if word.isdecimal()]
    return Message("assistant", f"Answer: {rng.choice(words or ['0'])}")


def _copying_a_line(
    messages: Sequence[Message], tools: Sequence[ToolSpec], rng: random.Random
) -> Message:
    lines = [line for line in _asked(messages).splitlines() if line.strip()]
    return Message("assistant", f"Answer: {rng.choice(lines)}")


def _guessing(
    messages: Sequence[Message], tools: Sequence[ToolSpec], rng: random.Random
) -> Message:
    return Message("assistant", f"Answer: {rng.randint(0, 100)}")


def _listing(messages: Sequence[Message], tools: Sequence[ToolSpec], rng: random.Random) -> Message:
    return Message("assistant", "\n".join(f"Answer: {number}" for number in range(200)))


def _enumerating(
    messages: Sequence[Message], tools: Sequence[ToolSpec], rng: random.Random
) -> Message:
    return Message("assistant", f"Answer: {', '.join(map(str, range(-50, 200)))}")


def _echoing(messages: Sequence[Message], tools: Sequence[ToolSpec], rng: random.Random) -> Message:
    return Message("assistant", _asked(messages))


def _repeating(
    messages: Sequence[Message], tools: Sequence[ToolSpec], rng: random.Random
) -> Message:
    return Message("assistant", "\n".join([_asked(messages)] * 20 + ["Answer: done"]))


SPEAKERS: Mapping[str, Agent] = {
    "silent": _saying(""),
    "refusing": _saying("I cannot help with that."),
    "evasive": _saying("Answer: it depends"),
    "shortest": _saying("Answer:"),
    "longest": _repeating,
    "echoing": _echoing,
    "copying": _copying,
    "copying a number": _copying_a_number,
    "copying a line": _copying_a_line,
    "guessing": _guessing,
    "listing": _listing,
    "enumerating": _enumerating,
}
"""Agents without calls."""
