"""Worlds to begin with: records drawn for a domain."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from selenite.agent.ontology.entity import STATUS, Entity
from selenite.agent.randomness import stream
from selenite.agent.tools.tool import Param, Tool
from selenite.agent.values.compounds import Several
from selenite.agent.values.kind import Kind
from selenite.agent.values.texts import Identifier, Reference
from selenite.agent.world.domain import Domain
from selenite.agent.world.records import Record, Records
from selenite.agent.world.world import World

_FIRST_DAY = date(2026, 1, 5)
_RECORDS = (3, 8)  # of an entity, at least and at most


def sample_world(domain: Domain, seed: int) -> World:
    """World ``seed`` of a domain: a day, and records that refer to records that are there."""
    rng = stream(seed, "world", domain.id)
    today = _FIRST_DAY + timedelta(days=rng.randrange(360))
    tables: dict[str, dict[str, Record]] = {}
    for entity in domain.entities:
        # Nothing was escalated yet.
        count = rng.randint(*_RECORDS) if entity.name != "escalation" else 0
        numbers = sorted(rng.sample(range(1, 900), count))
        tables[entity.name] = {
            entity.id_kind.of(number): _record(entity, tables, rng, today) for number in numbers
        }
    return World(domain, Records(tables), today)


def draw_arguments(world: World, tool: Tool, rng: random.Random) -> dict[str, Any]:
    """Arguments that fit a tool's schema, and often what is there: ids, and values of fields."""
    return {
        param.name: _argument(world, tool, param.kind, rng)
        if isinstance(param.kind, Identifier) or rng.random() < 0.5
        else _present(world, tool, param, rng)
        for param in tool.params
        if param.required or rng.random() < 0.4
    }


def _present(world: World, tool: Tool, param: Param, rng: random.Random) -> Any:
    """A value that some record has."""
    records = list(world.records.of(tool.entity).values())
    value = rng.choice(records).get(tool.options.get("field", param.field)) if records else None
    if isinstance(value, list) and not isinstance(param.kind, Several):
        value = rng.choice(value)
    fits = value is not None and param.kind.accepts(value)
    return value if fits else _argument(world, tool, param.kind, rng)


def _argument(world: World, tool: Tool, kind: Kind, rng: random.Random) -> Any:
    match kind:
        case Several(of, most):
            drawn = [_argument(world, tool, of, rng) for _ in range(rng.randint(1, most))]
            return list({str(value): value for value in drawn}.values())
        case Reference():
            ids = list(world.records.of(kind.entity))
        case Identifier():
            prefixes = {entity.prefix: entity.name for entity in world.domain.entities}
            ids = list(world.records.of(prefixes.get(kind.prefix, tool.entity)))
        case _:
            ids = []
    return rng.choice(ids) if ids and rng.random() < 0.9 else kind.draw(rng, world.today)


def _record(
    entity: Entity, tables: dict[str, dict[str, Record]], rng: random.Random, today: date
) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for field in entity.fields:
        if not field.required and rng.random() < 0.5:
            continue
        if isinstance(field.kind, Reference):
            present = list(tables.get(field.kind.entity, ()))
            if present:
                record[field.name] = rng.choice(present)
        else:
            record[field.name] = field.kind.draw(rng, today)
    if entity.states:
        # Most are where they began: there is something to do with them.
        first = rng.random() < 0.5
        record[STATUS] = entity.states[0] if first else rng.choice(entity.states)
    return record
