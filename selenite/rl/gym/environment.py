"""What an environment is: tasks by number, an episode for each attempt, and its score.

episode = environment.begin(number)
turn = the model's reply to episode.opening with episode.tools
while more := episode.reply(turn): turn = its reply to these, too
score = episode.score()
close(episode)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from selenite.types import Message, ToolSpec

HELD_OUT = 10_000_000
"""Tasks from this number on are for evaluation; training has lower ones."""
SHOWN = HELD_OUT // 2
"""From here on to ``HELD_OUT`` are those of lessons, in which an environment shows how; runs that
act begin at 0."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. Written by the environment, shown beside the reward."""

    name: str
    value: float  # 0 to 1
    reason: str = ""  # why it is below 1, for people


@dataclass(frozen=True)
class Score:
    """What an episode is worth: the product of its checks, so that none makes up for another."""

    checks: tuple[Check, ...]

    @property
    def value(self) -> float:
        """0 to 1."""
        product = 1.0
        for check in self.checks:
            assert 0 <= check.value <= 1, f"{check.name}={check.value}"
            product *= check.value
        return product


@dataclass(frozen=True)
class Budget:
    """What one attempt may take. Going over it is the model's fault: it is cut, and pays for it."""

    tokens: int  # that the model writes, over all turns
    turns: int = 1


class EnvironmentFailedError(Exception):
    """The environment could not go on, or not judge: the attempt is dropped and counted."""


class Episode(Protocol):
    """One attempt at a task; used by one thread at a time.

    ``reply`` and ``score`` raise ``EnvironmentFailedError`` for what is not the model's fault.
    """

    @property
    def opening(self) -> Sequence[Message]:
        """What the model is told first."""
        ...

    @property
    def tools(self) -> Sequence[ToolSpec]:
        """What it may call."""
        ...

    def reply(self, turn: Message) -> Sequence[Message]:
        """What follows a turn of the model: results of all of its calls, or a user's words.
        Nothing: the episode is over."""
        ...

    def score(self) -> Score:
        """Of what has happened so far."""
        ...


@runtime_checkable
class Closing(Protocol):
    """An episode that holds something, such as a process: it is closed after its last use, once,
    maybe by another thread and in the middle of a ``reply`` for which nobody waits any more."""

    def close(self) -> None:
        """Lets go of it."""
        ...


def close(episode: Episode) -> None:
    """Closes an episode that has something to close."""
    if isinstance(episode, Closing):
        episode.close()


class Environment(Protocol):
    """Tasks of one kind."""

    @property
    def name(self) -> str:
        """Of the kind, for metrics and weights."""
        ...

    @property
    def budget(self) -> Budget:
        """Of each attempt."""
        ...

    def begin(self, number: int) -> Episode:
        """A new attempt at a task. The same number is the same task, in every process."""
        ...


@runtime_checkable
class Demonstrating(Protocol):
    """An environment whose tasks it can do itself."""

    def solution(self, number: int) -> Sequence[Message]:
        """The assistant's turns that earn everything in a task, in their order."""
        ...
