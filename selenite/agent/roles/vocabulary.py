"""The words of a domain: what its things and deeds are called, whatever their endings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files

from selenite.agent.ontology.entity import Entity
from selenite.agent.values.compounds import Group, Several
from selenite.agent.values.kind import Kind
from selenite.agent.values.texts import Choice
from selenite.agent.world.domain import Domain

TABLE = tomllib.loads(files(__package__).joinpath("wording.toml").read_text(encoding="utf-8"))
"""``wording.toml``."""

_APOSTROPHE = re.compile(r"n['’]t$|['’]\w*$")
_PLAIN = frozenset(TABLE["plain"].split())
_ENDINGS = ("ings", "ing", "ied", "ies", "ed", "es", "s", "e", "y")
_SHORTEST = 4  # letters that an ending leaves, so that "notes" is not "not"; an "s" leaves 3


@dataclass(frozen=True)
class Vocabulary:
    """Stems of words. ``nouns`` are of things and their fields, ``words`` all of them."""

    nouns: frozenset[str]
    words: frozenset[str]


def vocabulary_of(domain: Domain) -> Vocabulary:
    """The words of a domain's entities, fields, moves, states and options."""
    nouns = [name for entity in domain.entities for name in _names(entity)]
    others: list[str] = []
    for entity in domain.entities:
        others += [move.verb for move in entity.moves]
        others += [option for field in entity.by_name.values() for option in _options(field.kind)]
    return Vocabulary(frozenset(_stems(nouns)), frozenset(_stems([*nouns, *others])))


def stem(word: str) -> str:
    """A word without its ending, small: "cancelled", "Cancels" and "cancel" have the same."""
    word = _APOSTROPHE.sub("", word.lower())
    for ending in _ENDINGS:
        kept = word.removesuffix(ending)
        shortest = _SHORTEST - (ending == "s")
        if kept == word or len(kept) < shortest or word.endswith("ss"):
            continue
        is_doubled = ending in ("ing", "ed") and kept[-1] == kept[-2] and kept[-1] not in "aeiou"
        return kept[:-1] if is_doubled and len(kept) > _SHORTEST else kept
    return word


_PHRASES = [
    phrase for table in ("senses", "deeds") for group in TABLE[table].values() for phrase in group
]
COMMON = frozenset(map(stem, " ".join([TABLE["common"], *_PHRASES]).split()))
"""Stems of words that tell nothing, and of those that are looked at by their groups."""


def _stems(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        for word in name.lower().split("_"):
            if len(word) > 2 and word not in _PLAIN:
                yield stem(word)


def _names(entity: Entity) -> Iterator[str]:
    yield entity.name
    for field in entity.by_name.values():
        yield field.name
        if isinstance(field.kind, Group):
            yield from (name for name, _ in field.kind.fields)


def _options(kind: Kind) -> Iterator[str]:
    match kind:
        case Choice(options):
            yield from options
        case Several(of):
            yield from _options(of)
        case Group(fields):
            for _, part in fields:
                yield from _options(part)
