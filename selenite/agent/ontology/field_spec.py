"""Fields and lives written in one line each, as the categories' files have them.

    owner person                  a text of that sort (values/words.py)
    kind checking|savings         one of these
    seats count 1..9 seats        whole numbers with their unit; also: measure 0..5 kg
    price money 5..900            in the domain's currency
    starts moment 1..30           days from today, may be left out; also: due day -5..60
    length span                   minutes
    express flag
    tags several tag              some different ones of a kind
    customer ref customer         the id of another entity's record
    place group floor count 0..9, city city     an object
    note note ?                   may be left out;  a last "!" means: never changed once it is set

A life names its first state, then moves: ``open``, ``close open > closed``,
``reopen closed,lapsed > open``.
"""

from __future__ import annotations

from collections.abc import Sequence

from selenite.agent.ontology.entity import Field, Move
from selenite.agent.values.compounds import Group, Several
from selenite.agent.values.dates import Day, Moment
from selenite.agent.values.kind import Kind
from selenite.agent.values.numbers import Count, Measure, Money, Span
from selenite.agent.values.texts import Choice, Flag, Reference, Text
from selenite.agent.values.words import SORTS
from selenite.errors import DataError

_WITHOUT_BOUNDS = {"flag": Flag(), "span": Span(), "day": Day(), "moment": Moment()}


def read_field(line: str) -> Field:
    """A field from its line; raises ``DataError`` for one that says nothing known."""
    name, _, spec = line.strip().partition(" ")
    required, mutable = not spec.endswith("?"), not spec.endswith("!")
    return Field(name, read_kind(spec.rstrip("?! "), line), required, mutable)


def read_kind(spec: str, line: str) -> Kind:
    """A kind from its words; ``line`` is where they stand."""
    head, *rest = spec.split()
    if head in SORTS and not rest:
        return Text(head)
    if "|" in head:
        return Choice(tuple(head.split("|")))
    if head == "ref":
        return Reference(prefix_of(rest[0]), entity=rest[0])
    if head == "several":
        return Several(read_kind(" ".join(rest), line))
    if head == "group":
        fields = [read_field(part) for part in " ".join(rest).split(",")]
        return Group(tuple((field.name, field.kind) for field in fields))
    if head in _WITHOUT_BOUNDS and not rest:
        return _WITHOUT_BOUNDS[head]
    bounds = rest[0].split("..") if rest else []
    if len(bounds) == 2:
        low, high = (float(bound) for bound in bounds)
        unit = " ".join(rest[1:])
        match head:
            case "count":
                return Count(int(low), int(high), unit)
            case "measure":
                return Measure(low, high, unit=unit)
            case "money":
                return Money(low, high)
            case "day":
                return Day(int(low), int(high))
            case "moment":
                return Moment(int(low), int(high))
    raise DataError(f"{line!r}: {spec!r} is no kind; see selenite/agent/ontology/field_spec.py")


def read_life(lines: Sequence[str]) -> tuple[tuple[str, ...], tuple[Move, ...]]:
    """States and moves from their lines."""
    if not lines:
        return (), ()
    states, moves = [lines[0]], []
    for line in lines[1:]:
        verb, sources, arrow, target = line.split()
        if arrow != ">":
            raise DataError(f"{line!r} is no move; write: VERB STATE[,STATE] > STATE")
        moves.append(Move(verb, tuple(sources.split(",")), target))
        states += [*sources.split(","), target]
    return tuple(dict.fromkeys(states)), tuple(moves)


def prefix_of(entity: str) -> str:
    """What the ids of an entity begin with: its consonants, at most four."""
    letters = entity.replace("_", "")
    kept = letters[0] + "".join(letter for letter in letters[1:] if letter not in "aeiou")
    return (kept if len(kept) > 2 else letters)[:4].upper()
