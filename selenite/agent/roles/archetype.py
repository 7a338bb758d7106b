"""Archetypes as a model proposes them: lines of ``ontology/field_spec.py``, read and checked.

The language's reader trusts its files, which were written by hand; here everything is checked that
the tools made of an archetype rely on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selenite.agent.ontology.archetypes import Addition, Category
from selenite.agent.ontology.entity import Entity, Field, Move
from selenite.agent.ontology.field_spec import prefix_of, read_field, read_life
from selenite.agent.roles.objection import Objection, Why
from selenite.agent.values.compounds import COMPOUND, Group, Several
from selenite.agent.values.dates import Day, Moment
from selenite.agent.values.kind import Kind
from selenite.agent.values.numbers import Count, Measure, Money
from selenite.agent.values.texts import Choice

_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_OPTION = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")
_LINE = re.compile(r"[a-zA-Z0-9_|.,?!/% -]{3,160}")  # of a field
_UNIT = re.compile(r"[a-zA-Z/% ]*")
_LONGEST_NAME = 30
_LARGEST = 1e6  # bound of a number
_FARTHEST = 40_000  # days
_FIELDS = (2, 12)  # of an archetype, at least and at most
_TAKEN = frozenset({"id", "status", "details", "idempotency_key", "group_by"})
"""Names that tools give to parameters of their own, and an operator to a field."""
_TAKEN_VERBS = frozenset(
    {
        *("get", "list", "search", "count", "highest", "lowest"),
        *("create", "update", "delete", "duplicate", "set", "add", "remove"),
        *("transfer", "total", "reassign", "quote", "bulk"),
    }
)


@dataclass(frozen=True)
class Archetype:
    """A proposal: its lines, and what they say."""

    entity: Entity
    lines: Addition


def read_archetype(
    name: str, fields: Sequence[str], life: Sequence[str], category: Category
) -> Archetype | Objection:
    """What lines say, if it is an archetype that the category does not have yet."""
    known = {entity.name: entity for entity in category.archetypes}
    if not _is_name(name):
        return _bad_name(name)
    if name in known or prefix_of(name) in {entity.prefix for entity in known.values()}:
        detail = f"there is {name!r} already, or one whose ids look the same; choose another name"
        return Objection(Why.NOT_NEW, detail)
    read = _read_lines(fields, life)
    if isinstance(read, Objection):
        return read
    found, states, moves = read
    entity = Entity(name, prefix_of(name), found, states, moves)
    objection = next(_faults(entity, known), None)
    lines = Addition(category.name, name, tuple(fields), tuple(life))
    return objection or Archetype(entity, lines)


def _read_lines(
    fields: Sequence[str], life: Sequence[str]
) -> tuple[tuple[Field, ...], tuple[str, ...], tuple[Move, ...]] | Objection:
    found: list[Field] = []
    for line in fields:
        try:
            if not _LINE.fullmatch(line):
                raise ValueError(line)
            found.append(read_field(line))
        except (ValueError, IndexError, OverflowError):
            detail = f"the field {line[:80]!r} is not in the language; write it like the examples"
            return Objection(Why.UNREADABLE, detail)
    try:
        states, moves = read_life(life)
    except ValueError:
        detail = (
            f"the life {list(life)!r} is not in the language; write: VERB STATE[,STATE] > STATE"
        )
        return Objection(Why.UNREADABLE, detail[:400])
    return tuple(found), states, moves


def _faults(entity: Entity, known: dict[str, Entity]) -> Iterator[Objection]:
    names = [field.name for field in entity.fields]
    if not _FIELDS[0] <= len(names) <= _FIELDS[1]:
        yield Objection(Why.BAD_BOUNDS, f"it has {len(names)} fields; give 3 to 8")
    if not any(f.required and not isinstance(f.kind, COMPOUND) for f in entity.fields):
        yield Objection(Why.BAD_BOUNDS, "one field at least must be plain and not left out")
    for field in entity.fields:
        if not _is_name(field.name) or field.name in _TAKEN or names.count(field.name) > 1:
            yield _bad_name(field.name)
        yield from _kind_faults(field.kind, field.name)
    for _, reference in entity.references:
        if reference.entity not in (*known, entity.name):
            there = ", ".join(known)
            detail = f"there is no {reference.entity!r} to refer to; there are: {there}"
            yield Objection(Why.UNKNOWN_REFERENCE, detail)
    if any(entity.fields == other.fields for other in known.values()):
        yield Objection(Why.NOT_NEW, "another has the same fields")
    yield from _life_faults(entity)


def _kind_faults(kind: Kind, name: str) -> Iterator[Objection]:
    match kind:
        case Several(of) if isinstance(of, COMPOUND):
            yield Objection(Why.UNREADABLE, f"{name}: several of a list or an object is too much")
        case Several(of):
            yield from _kind_faults(of, name)
        case Group(fields):
            parts = [part for part, _ in fields]
            for part, inner in fields:
                if not _is_name(part) or parts.count(part) > 1:
                    yield _bad_name(part)
                if isinstance(inner, COMPOUND):
                    yield Objection(Why.UNREADABLE, f"{name}: an object holds no other")
                yield from _kind_faults(inner, part)
        case Choice(options):
            if len(set(options)) < 2 or len(set(options)) < len(options):
                yield Objection(Why.BAD_BOUNDS, f"{name}: give two different options or more")
            if not all(map(_OPTION.fullmatch, options)):
                yield Objection(Why.BAD_NAME, f"{name}: options are lower case words joined by _")
        case Count(low, high, unit) | Measure(low, high, _, unit):
            if not _UNIT.fullmatch(unit):
                yield Objection(Why.BAD_NAME, f"{name}: {unit!r} is no unit")
            yield from _bound_faults(low, high, -_LARGEST, _LARGEST, name)
        case Money(low, high):
            yield from _bound_faults(low, high, 0, _LARGEST, name)
        case Day(low, high) | Moment(low, high):
            yield from _bound_faults(low, high, -_FARTHEST, _FARTHEST, name)


def _bound_faults(
    low: float, high: float, least: float, most: float, name: str
) -> Iterator[Objection]:
    if not (math.isfinite(low) and math.isfinite(high) and least <= low < high <= most):
        detail = f"{name}: the bounds must rise, and lie within {least:g} and {most:g}"
        yield Objection(Why.BAD_BOUNDS, detail)


def _life_faults(entity: Entity) -> Iterator[Objection]:
    verbs = [move.verb for move in entity.moves]
    if entity.states and not verbs:
        yield Objection(Why.BAD_LIFE, "its life has no moves")
    for name in (*entity.states, *verbs):
        if not _is_name(name) or name in _TAKEN_VERBS or verbs.count(name) > 1:
            yield _bad_name(name)
    reached = set(entity.states[:1])
    for _ in entity.moves:
        reached |= {move.target for move in entity.moves if reached & set(move.sources)}
    if lost := sorted(set(entity.states) - reached):
        yield Objection(Why.BAD_LIFE, f"no move leads to {', '.join(lost[:5])}")


def _is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and len(name) <= _LONGEST_NAME


def _bad_name(name: str) -> Objection:
    detail = (
        f"{name[:40]!r} is no name that can be used; take lower case words joined by _, once each"
    )
    return Objection(Why.BAD_NAME, detail)
