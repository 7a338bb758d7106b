"""Questions on tables: over several rows, and from one table into another."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

from selenite.rl.gym.answers import NumberAnswer
from selenite.rl.gym.questions import Question

_CITIES = ("Bergen", "Cork", "Gdansk", "Lyon", "Porto", "Turku", "Varna")
_PEOPLE = ("Amal", "Boris", "Chloe", "David", "Elena", "Farid", "Greta", "Hugo", "Irena", "Jamal")
_GOODS = ("chairs", "lamps", "tables", "carpets", "mirrors", "shelves")
_TRIES = 200

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Names of columns, and rows."""


def tables(rng: random.Random, level: int) -> Question:
    """A total over a table; a total over what another table selects; and that of a price list."""
    for _ in range(_TRIES):
        text, value, given = _question(rng, level)
        # As with sums elsewhere: what stands there is not what is asked for.
        if value and str(value) not in given:
            return Question(text, NumberAnswer(Fraction(value)))
    raise AssertionError("no table was found")


def _question(rng: random.Random, level: int) -> tuple[str, int, set[str]]:
    people = rng.sample(_PEOPLE, 3 + level)
    cities = rng.sample(_CITIES, 3)
    goods = rng.sample(_GOODS, 3)
    home = {person: rng.choice(cities) for person in people}
    price = {good: rng.randint(4, 60) for good in goods}
    orders = [
        (rng.choice(people), rng.choice(goods), rng.randint(2, 9)) for _ in range(4 + 2 * level)
    ]
    shown = [_written(("customer", "goods", "pieces"), orders)]
    city, good, person = rng.choice(cities), rng.choice(goods), rng.choice(people)
    if level == 1:
        about = rng.choice((person, good))
        value = sum(n for who, what, n in orders if about in (who, what))
        question = (
            f"How many pieces did {about} order in all?"
            if about == person
            else f"How many pieces of {good} were ordered in all?"
        )
    else:
        shown.append(_written(("customer", "city"), list(home.items())))
        chosen = [(what, n) for who, what, n in orders if home[who] == city]
        if level == 2:
            value = sum(n for _, n in chosen)
            question = f"How many pieces did customers from {city} order in all?"
        else:
            shown.append(_written(("goods", "euros a piece"), list(price.items())))
            value = sum(price[what] * n for what, n in chosen)
            question = f"What do customers from {city} have to pay in all, in euros?"
    given = {str(n) for *_, n in orders} | {str(euros) for euros in price.values()}
    return "\n\n".join([*shown, question]), value, given


def _written(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [" | ".join(map(str, row)) for row in (columns, *rows)]
    return "\n".join(lines)
