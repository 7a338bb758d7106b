"""The hand-written seeds of evolution: categories, and the archetypes of their entities."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from selenite.agent.ontology.entity import Entity
from selenite.agent.ontology.field_spec import prefix_of, read_field, read_life


@dataclass(frozen=True)
class Category:
    """One area of life, such as travel."""

    name: str
    title: str
    domains: tuple[str, ...]  # names of its domains
    archetypes: tuple[Entity, ...]

    def with_references(self, chosen: list[Entity]) -> list[Entity]:
        """The chosen archetypes and those that they refer to, these first."""
        by_name = {entity.name: entity for entity in self.archetypes}
        found: dict[str, Entity] = {}

        def add(entity: Entity) -> None:
            for _, kind in entity.references:
                if kind.entity not in found and kind.entity != entity.name:
                    add(by_name[kind.entity])
            found[entity.name] = entity

        for entity in chosen:
            add(entity)
        return list(found.values())


@cache
def categories() -> tuple[Category, ...]:
    """All of them, by name."""
    folder = files(__package__).joinpath("categories")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return tuple(
        _category(name.removesuffix(".toml"), folder.joinpath(name).read_text(encoding="utf-8"))
        for name in names
    )


def _category(name: str, text: str) -> Category:
    table = tomllib.loads(text)
    title, domains = table.pop("title"), table.pop("domains")
    return Category(name, title, tuple(domains), tuple(_entity(*item) for item in table.items()))


def _entity(name: str, table: dict[str, list[str]]) -> Entity:
    states, moves = read_life(table.get("life", []))
    fields = tuple(map(read_field, table["fields"]))
    return Entity(name, prefix_of(name), fields, states, moves)
