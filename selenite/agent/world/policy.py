"""Policies: a rule as text, which agents read, and as predicate, which the world obeys.

A policy guards some verbs of an entity. The text is all that an agent gets; what it may not do is
refused with ``FAILED_PRECONDITION`` and the policy's id.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from selenite.agent.values.kind import spoken

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Policy(ABC):
    """One rule. ``entity`` and ``verbs`` are what it guards."""

    id: str
    entity: str
    verbs: tuple[str, ...]
    field: str

    @abstractmethod
    def allows(self, record: Record, others: Iterable[Record], today: date) -> bool:
        """Whether a record may be acted on. ``record`` is as it is, or as it would be made;
        ``others`` are all records of the entity."""

    @abstractmethod
    def text(self) -> str:
        """The rule for people, without its subject: see ``sentence``."""

    def sentence(self) -> str:
        """The rule for people."""
        verbs = " or ".join(spoken(verb) for verb in self.verbs)
        thing = spoken(self.entity)
        article = "an" if thing[0] in "aeiou" else "a"
        return f"{self.id}: You may {verbs} {article} {thing} only if {self.text()}."


@dataclass(frozen=True)
class AtMost(Policy):
    """An amount is not above a limit."""

    most: float
    unit: str = ""

    def allows(self, record: Record, others: Iterable[Record], today: date) -> bool:
        value = record.get(self.field)
        return value is None or value <= self.most

    def text(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"its {spoken(self.field)} is at most {self.most:g}{unit}"


@dataclass(frozen=True)
class DaysAhead(Policy):
    """A date is still some days away."""

    least: int

    def allows(self, record: Record, others: Iterable[Record], today: date) -> bool:
        value = record.get(self.field)
        return value is None or (date.fromisoformat(value[:10]) - today).days >= self.least

    def text(self) -> str:
        return f"its {spoken(self.field)} is {self.least} or more days away"


@dataclass(frozen=True)
class OneOf(Policy):
    """A choice is one of some."""

    options: tuple[str, ...]

    def allows(self, record: Record, others: Iterable[Record], today: date) -> bool:
        value = record.get(self.field)
        return value is None or value in self.options

    def text(self) -> str:
        options = " or ".join(spoken(option) for option in self.options)
        return f"its {spoken(self.field)} is {options}"


@dataclass(frozen=True)
class Is(Policy):
    """A flag is set, or is not."""

    value: bool

    def allows(self, record: Record, others: Iterable[Record], today: date) -> bool:
        found = record.get(self.field)
        return found is None or found is self.value

    def text(self) -> str:
        return f"its {spoken(self.field)} is {'yes' if self.value else 'no'}"


@dataclass(frozen=True)
class Quota(Policy):
    """Nobody has more than some records in the state in which they begin."""

    most: int
    state: str

    def allows(self, record: Record, others: Iterable[Record], today: date) -> bool:
        owner = record.get(self.field)
        same = (
            other.get(self.field) == owner and other["status"] == self.state for other in others
        )
        return sum(same) < self.most

    def text(self) -> str:
        return f"the same {spoken(self.field)} has fewer than {self.most} that are {self.state}"
