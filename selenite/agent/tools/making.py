"""What the families of tools need to plan tools for an entity."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selenite.agent.ontology.entity import Entity, Field
from selenite.agent.tools.naming import Style
from selenite.agent.tools.tool import Effect, Param, Tool
from selenite.agent.values.kind import Kind, spoken
from selenite.agent.values.texts import Choice, Flag, Reference, Text

IDEMPOTENCY_KEY = "idempotency_key"
_NAMED = ("person", "city", "company", "country", "colour", "language")


@dataclass(frozen=True)
class Maker:
    """Makes the tools of one entity in the words and the style of its domain."""

    domain: str
    entity: Entity
    style: Style
    rng: random.Random  # of the entity's place in the domain

    def param(self, name: str, kind: Kind, required: bool = True, doc: str = "") -> Param:
        """A parameter that stands for the field ``name``."""
        return Param(self.style.param(name), kind, name, required, doc)

    def of_field(self, field: Field, required: bool) -> Param:
        """A parameter that gives a field."""
        return self.param(field.name, field.kind, required)

    def id(self, doc: str = "") -> Param:
        """The parameter that names a record of the entity."""
        name = f"{self.entity.name}_id" if self.style.name != "terse" else "id"
        return Param(self.style.param(name), self.entity.id_kind, "id", True, doc)

    def tool(
        self,
        family: str,
        verb: str,
        effect: Effect,
        phrases: Sequence[str],
        params: Sequence[Param],
        returns: Mapping[str, Any],
        *,
        plural: bool = False,
        name_verb: str | None = None,
        **options: Any,
    ) -> Tool:
        """A tool. ``phrases`` are descriptions of which one is taken; ``name_verb`` is the verb of
        its name, where that says more than the verb that policies speak of."""
        noun = self.entity.plural if plural else self.entity.name
        words = {"one": self.entity.words, "many": spoken(self.entity.plural)}
        return Tool(
            name=self.style.tool(name_verb or verb, noun),
            domain=self.domain,
            family=family,
            effect=effect,
            entity=self.entity.name,
            description=self.rng.choice(phrases).format(**words),
            params=tuple(params),
            returns=returns,
            verb=verb,
            options=options,
        )

    def record(self) -> dict[str, Any]:
        """The schema of a record as tools return it."""
        fields = self.entity.by_name.values()
        return {
            "type": "object",
            "properties": {
                "id": self.entity.id_kind.schema(),
                **{field.name: field.kind.schema() for field in fields},
            },
            "required": ["id", *(f.name for f in fields if f.required or f.name == "status")],
        }

    def some(self, fields: Sequence[Field], least: int, most: int) -> list[Field]:
        """Some of the fields, in their order."""
        count = min(len(fields), self.rng.randint(least, most))
        chosen = self.rng.sample(range(len(fields)), count)
        return [fields[i] for i in sorted(chosen)]

    def filters(self) -> list[Field]:
        """Fields by which records can be told apart exactly."""
        return [
            field
            for field in self.entity.by_name.values()
            if isinstance(field.kind, (Choice, Flag, Reference))
            or (isinstance(field.kind, Text) and field.kind.sort in _NAMED)
        ]


def several(items: Mapping[str, Any], **more: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a result with ``items``, and other fields."""
    properties = {"items": {"type": "array", "items": items}, **more}
    return {"type": "object", "properties": properties, "required": list(properties)}


def result(**fields: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a result with these fields."""
    return {"type": "object", "properties": dict(fields), "required": list(fields)}


def shown(id: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as tools return it."""
    return {"id": id, **record}
