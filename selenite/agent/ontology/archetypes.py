"""The seeds of evolution: categories, and the archetypes of their entities.

They were written by hand. A corpus may have further archetypes, which a model proposed: an
extension. Its key is the hash of what it adds, so that nobody takes a domain for another's.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files

from selenite.agent.ontology.entity import Entity
from selenite.agent.ontology.field_spec import prefix_of, read_field, read_life
from selenite.errors import DataError


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


@dataclass(frozen=True)
class Addition:
    """One more archetype of a category, in the lines of the category's file."""

    category: str
    name: str
    fields: tuple[str, ...]
    life: tuple[str, ...] = ()


_extensions: dict[str, tuple[Category, ...]] = {}  # by key; each process has its own


def extend(additions: Sequence[Addition]) -> str:
    """Makes an extension known to this process; returns its key, which is "" for nothing."""
    if not additions:
        return ""
    text = json.dumps([asdict(one) for one in additions])
    key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    if key not in _extensions:
        _extensions[key] = tuple(_extended(category, additions) for category in categories())
    return key


def _extended(category: Category, additions: Sequence[Addition]) -> Category:
    mine = [one for one in additions if one.category == category.name]
    entities = (_entity(one.name, {"fields": one.fields, "life": one.life}) for one in mine)
    return replace(category, archetypes=(*category.archetypes, *entities))


def categories(extension: str = "") -> tuple[Category, ...]:
    """All of them, by name. Raises ``DataError`` for an extension that is not known."""
    if not extension:
        return _written()
    if extension not in _extensions:
        raise DataError(
            f"extension {extension}: its archetypes are not known here; read them from the "
            "archetypes.json of the corpus first"
        )
    return _extensions[extension]


@cache
def _written() -> tuple[Category, ...]:
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


def _entity(name: str, table: Mapping[str, Sequence[str]]) -> Entity:
    states, moves = read_life(table.get("life", []))
    fields = tuple(map(read_field, table["fields"]))
    return Entity(name, prefix_of(name), fields, states, moves)
