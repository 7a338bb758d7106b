"""How a task is solved: calls whose arguments each have a source.

An argument comes from the user (``Given``), from what an earlier call returned (``Read``), or is
the agent's own words (``Words``). So no argument of a solution falls from the sky.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from selenite.agent.values.kind import Kind, Value
from selenite.agent.world.reply import Code


@dataclass(frozen=True)
class Slot:
    """Something that the user knows and can say."""

    name: str
    words: str  # what people call it
    kind: Kind
    value: Value


@dataclass(frozen=True)
class Given:
    """What the user says of a slot."""

    slot: str


@dataclass(frozen=True)
class Read:
    """What a call returned, at a path of its content."""

    step: int
    path: tuple[str | int, ...]


@dataclass(frozen=True)
class Words:
    """A text that is the agent's to choose."""

    text: str


@dataclass(frozen=True)
class All:
    """A list of several."""

    of: tuple[Given | Read, ...]


Source = Given | Read | Words | All


@dataclass(frozen=True)
class Step:
    """One call of a solution, which works, or fails for good."""

    tool: str
    sources: Mapping[str, Source]  # by parameter
    arguments: Mapping[str, Value]
    is_write: bool
    needs: frozenset[int] = frozenset()  # steps that must come before
    fails: Code | None = None  # what is answered however often it is tried; None: it works


@dataclass(frozen=True)
class Answer:
    """What the agent must tell: a value, or one of several ways to put it."""

    words: str
    forms: tuple[str, ...]


@dataclass(frozen=True)
class Phase:
    """One thing that the user wants, after what came before is done.

    ``request`` has the names of slots in braces; ``details`` are slots that a sentence each tells.
    """

    request: str
    details: tuple[str, ...]
    steps: tuple[Step, ...]  # ``Read.step`` counts over all phases
    answers: tuple[Answer, ...] = ()
    report: str = ""  # what is so afterwards, in words
    is_amendment: bool = False  # of the wish before
    is_exhaustive: bool = False  # the answers are all ids of their sort that may be told
    is_whole: bool = True  # all of the wish can be done

    @property
    def slots_of_request(self) -> list[str]:
        """Slots that the request names."""
        return [name for _, name, _, _ in Formatter().parse(self.request) if name]

    @property
    def slots(self) -> list[str]:
        """All that are told with this wish."""
        return [*self.slots_of_request, *self.details]


def at(content: Any, path: Sequence[str | int]) -> Any:
    """The value at a path of a result."""
    for part in path:
        content = content[part]
    return content


def value_of(source: Source, slots: Mapping[str, Slot], contents: Sequence[Any]) -> Value:
    """What a source stands for, by what the calls so far returned.

    Raises ``LookupError`` where a call did not return it.
    """
    match source:
        case Given(slot):
            return slots[slot].value
        case Read(step, path):
            return at(contents[step], path)
        case Words(text):
            return text
        case All(parts):
            return [value_of(part, slots, contents) for part in parts]


def sources_of(source: Source) -> tuple[Given | Read | Words, ...]:
    """The parts that a source has."""
    return source.of if isinstance(source, All) else (source,)
