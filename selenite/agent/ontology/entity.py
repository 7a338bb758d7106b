"""What a domain is made of: entities with typed fields, and the life that a record goes through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from selenite.agent.values.kind import Kind, spoken
from selenite.agent.values.numbers import Count, Measure, Money
from selenite.agent.values.texts import Choice, Identifier, Reference

STATUS = "status"
"""The field that holds where in its life a record is."""


@dataclass(frozen=True)
class Field:
    """A field of an entity's records."""

    name: str
    kind: Kind
    required: bool = True  # whoever makes a record must give it; None is stored otherwise
    mutable: bool = True  # an update may change it

    @property
    def words(self) -> str:
        return spoken(self.name)


@dataclass(frozen=True)
class Move:
    """A step in a life, such as ``cancel``: from any of some states to another."""

    verb: str
    sources: tuple[str, ...]
    target: str


@dataclass(frozen=True)
class Entity:
    """A sort of record. ``prefix`` begins its ids; a life may be empty."""

    name: str
    prefix: str
    fields: tuple[Field, ...]
    states: tuple[str, ...] = ()  # the first is where a record begins
    moves: tuple[Move, ...] = ()

    @cached_property
    def id_kind(self) -> Identifier:
        return Identifier(self.prefix)

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Its fields, the status among them where there is a life."""
        found = {field.name: field for field in self.fields}
        if self.states:
            found[STATUS] = Field(STATUS, Choice(self.states), required=False, mutable=False)
        return found

    @property
    def words(self) -> str:
        return spoken(self.name)

    @property
    def plural(self) -> str:
        """Several of them, as an identifier."""
        if self.name.endswith("y") and self.name[-2] not in "aeiou":
            return f"{self.name[:-1]}ies"
        return f"{self.name}es" if self.name.endswith(("s", "x", "ch", "sh")) else f"{self.name}s"

    @property
    def references(self) -> list[tuple[Field, Reference]]:
        """Fields that hold the id of another entity's record."""
        return [(f, f.kind) for f in self.fields if isinstance(f.kind, Reference)]

    @property
    def amounts(self) -> list[Field]:
        """Fields that hold a number, which can be added up or moved."""
        return [f for f in self.fields if isinstance(f.kind, (Count, Measure, Money))]
