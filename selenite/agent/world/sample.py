"""Worlds to begin with: records drawn for a domain."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from selenite.agent.ontology.entity import STATUS, Entity
from selenite.agent.randomness import stream
from selenite.agent.values.texts import Reference
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
