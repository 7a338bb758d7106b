"""What must be so at the end: the differences between two states, and that nothing else differs.

A record that was made is known by its fields, not by its id, which depends on the order of calls.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from selenite.agent.world.records import Record, Records, canonical


@dataclass(frozen=True)
class Made:
    """A new record with these fields, and with no others but ``free`` ones."""

    entity: str
    fields: Mapping[str, Any]
    free: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Changed:
    """A field of a record that was there has this value; None: it is gone."""

    entity: str
    id: str
    field: str
    value: Any


@dataclass(frozen=True)
class Removed:
    """A record is not there any more."""

    entity: str
    id: str


Predicate = Made | Changed | Removed


@dataclass(frozen=True)
class Goal:
    """All predicates hold, and what they do not speak of is as it was."""

    predicates: tuple[Predicate, ...]

    @classmethod
    def between(cls, before: Records, after: Records, free: Mapping[str, Collection[str]]) -> Goal:
        """The differences. ``free``: fields by entity that a new record may have as it likes."""
        found: list[Predicate] = []
        for entity, id, record in after:
            old = before.find(entity, id)
            if old is None:
                own = frozenset(free.get(entity, ()))
                fields = {k: v for k, v in record.items() if k not in own}
                found.append(Made(entity, fields, own))
                continue
            if old is record:
                continue
            for field in sorted({*old, *record}):
                if not _same(old.get(field), record.get(field)):
                    found.append(Changed(entity, id, field, record.get(field)))
        for entity, id, _ in before:
            if after.find(entity, id) is None:
                found.append(Removed(entity, id))
        return cls(tuple(found))

    def unmet(self, before: Records, after: Records) -> list[str]:
        """What is not as it must be, each in a line; nothing: the goal is reached."""
        faults: list[str] = []
        wanted = {
            (p.entity, p.id, p.field): p.value for p in self.predicates if isinstance(p, Changed)
        }
        removed = {(p.entity, p.id) for p in self.predicates if isinstance(p, Removed)}
        made = [p for p in self.predicates if isinstance(p, Made)]
        for (entity, id, field), value in wanted.items():
            record = after.find(entity, id)
            if record is None or not _same(record.get(field), value):
                found = "gone" if record is None else repr(record.get(field))
                faults.append(f"{entity} {id}: {field} is {found}, not {value!r}")
        for entity, id in sorted(removed):
            if after.find(entity, id) is not None:
                faults.append(f"{entity} {id} is still there")
        for entity, id, record in after:
            old = before.find(entity, id)
            if old is None:
                match = next((p for p in made if p.entity == entity and _has(record, p)), None)
                if match is None:
                    faults.append(f"{entity} {id} was made, which nobody wanted")
                else:
                    made.remove(match)
            elif old is not record:
                for field in sorted({*old, *record}):
                    if (entity, id, field) not in wanted and not _same(
                        old.get(field), record.get(field)
                    ):
                        faults.append(f"{entity} {id}: {field} was changed, which nobody wanted")
        for entity, id, _ in before:
            if after.find(entity, id) is None and (entity, id) not in removed:
                faults.append(f"{entity} {id} was removed, which nobody wanted")
        return faults + [f"no {p.entity} was made with {dict(p.fields)}" for p in made]

    def record(self) -> list[dict[str, Any]]:
        """As a file has it."""
        kinds = {Made: "made", Changed: "changed", Removed: "removed"}
        rows = [{"kind": kinds[type(p)], **vars(p)} for p in self.predicates]
        return [row | {"free": sorted(row["free"])} if "free" in row else row for row in rows]


def _same(one: Any, other: Any) -> bool:
    return one == other or canonical(one) == canonical(other)


def _has(record: Record, made: Made) -> bool:
    names = {*made.fields, *(name for name in record if name not in made.free)}
    return all(_same(record.get(name), made.fields.get(name)) for name in names)
