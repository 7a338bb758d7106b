"""A domain: entities, tools and policies; all that a world needs but its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from selenite.agent.ontology.entity import Entity
from selenite.agent.tools.tool import Tool
from selenite.agent.world.policy import Policy


@dataclass(frozen=True)
class Domain:
    """One domain, made by evolution (``ontology/evolve.py``)."""

    id: str
    category: str
    title: str
    style: str  # of its tools' names
    currency: str
    entities: tuple[Entity, ...]
    tools: tuple[Tool, ...]
    policies: tuple[Policy, ...]
    steps: tuple[str, ...]  # the operators that made it

    @property
    def subject(self) -> str:
        """The title without the number that tells it from others."""
        return self.title.rpartition(" ")[0]

    @cached_property
    def by_entity(self) -> Mapping[str, Entity]:
        return {entity.name: entity for entity in self.entities}

    @cached_property
    def by_tool(self) -> Mapping[str, Tool]:
        return {tool.name: tool for tool in self.tools}

    def policies_of(self, entity: str, verb: str) -> list[Policy]:
        """The policies that guard a verb of an entity."""
        return [p for p in self.policies if p.entity == entity and verb in p.verbs]
