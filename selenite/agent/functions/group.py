"""Many conversations of one turn that have the same tools, so that they can be read together.

Most of a short conversation are declarations of tools. Read once for many requests, they cost
little, and a request is seen beside others to which the same tools give other answers: a call, no
call, a question.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from selenite.agent.functions.sample import Sample, draw_system, have_own_names, stranger
from selenite.agent.functions.selection import draw_others, known_concepts
from selenite.agent.functions.signature import STYLES, Function, make_function
from selenite.agent.functions.turn import Sort, Turn, make_turn
from selenite.agent.randomness import stream

SIZE = 16  # samples of a group
SHARES: Mapping[Sort, float] = {
    Sort.CHOICE: 0.40,
    Sort.PARALLEL: 0.15,
    Sort.SEVERAL: 0.15,
    Sort.IRRELEVANT: 0.16,
    Sort.MISSING: 0.14,
}
_TOOLS = (2, 3, 4, 6, 8)  # how many a group has


def make_group(seed: int, number: int) -> tuple[Sample, ...]:
    """``SIZE`` samples of the training split; follow from the seed and the files of concepts."""
    for attempt in range(100):
        rng = stream(seed, "groups", number, attempt)
        samples = _make(f"functions-{seed}-{number}", rng)
        if samples is not None:
            return samples
    raise AssertionError(f"no group of number {number}")


def _make(name: str, rng: random.Random) -> tuple[Sample, ...] | None:
    style, topics = rng.choice(STYLES), known_concepts("train")
    topic = rng.choice(list(topics))
    first = rng.choice(topics[topic])
    concepts = [first, *draw_others([first], topic, rng.choice(_TOOLS) - 1, rng, topics)]
    functions = [make_function(concept, style, rng) for concept in concepts]
    if len(functions) < 2 or not have_own_names(functions):
        return None
    system = draw_system(rng)
    samples = list[Sample]()
    for _ in range(20 * SIZE):
        sort = rng.choices(list(SHARES), list(SHARES.values()))[0]
        turn = _turn(sort, functions, style, rng)
        if turn is not None:
            messages = (*system, *turn.messages())
            samples.append(Sample(sort, "train", messages, tuple(functions), turn.needed, name))
        if len(samples) == SIZE:
            return tuple(samples)
    return None


def _turn(sort: Sort, functions: Sequence[Function], style: str, rng: random.Random) -> Turn | None:
    if sort is Sort.IRRELEVANT:
        return stranger([function.concept for function in functions], "train", style, rng)
    count = rng.choice([2, 2, 2, 3]) if sort is Sort.SEVERAL else 1
    return make_turn(sort, rng.sample(functions, min(count, len(functions))), rng)
