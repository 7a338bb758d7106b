"""Which concepts are offered together, and which are held out."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

from selenite.agent.functions.concept import Concept, concepts
from selenite.data.documents import stable_fraction

Split = Literal["train", "concept"]

_HELD_OUT = 0.1  # of the concepts


def split_of(concept: Concept) -> Split:
    """One concept in ten is held out, with all of its names and requests."""
    is_held_out = stable_fraction(concept.name[0], "functions") < _HELD_OUT
    return "concept" if is_held_out else "train"


@cache
def known_concepts(split: Split) -> dict[str, list[Concept]]:
    """Concepts of a split by topic."""
    found = {
        topic: [concept for concept in known if split_of(concept) == split]
        for topic, known in concepts().items()
    }
    return {topic: known for topic, known in found.items() if len(known) > 3}


def draw_others(
    wanted: Sequence[Concept],
    topic: str,
    count: int,
    rng: random.Random,
    known: Mapping[str, Sequence[Concept]] | None = None,
) -> list[Concept]:
    """Concepts for other tools, half of them of the same topic; none is much like a wanted one.

    Of what is held out, only the request is: tools beside it come from all concepts, unless
    ``known`` says from which.
    """
    everything = known or concepts()
    found: list[Concept] = []
    for _ in range(20 * count):
        own = topic if rng.random() < 0.5 else rng.choice(list(everything))
        concept = rng.choice(everything[own])
        if not any(is_alike(concept, other) for other in (*wanted, *found)):
            found.append(concept)
        if len(found) == count:
            break
    return found


def is_alike(one: Concept, other: Concept) -> bool:
    """Whether two concepts may do the same: half of the words of a name are the other's."""
    if one is other:
        return True
    for name in one.name:
        for theirs in other.name:
            words, known = set(name.split()), set(theirs.split())
            if 2 * len(words & known) >= min(len(words), len(known)):
                return True
    return False
