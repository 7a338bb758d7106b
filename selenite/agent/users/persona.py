"""Who the user is: how they talk, what they put up with. Number ``n`` is the same for everybody."""

from __future__ import annotations

from dataclasses import dataclass

from selenite.agent.randomness import stream


@dataclass(frozen=True)
class Persona:
    """Traits that the grammar of ``speech.py`` obeys."""

    number: int
    manner: str  # plain, polite, brisk, chatty or foreign
    greets: bool
    is_lower: bool  # writes without capitals
    typos: float  # share of words with a slip; never in values
    patience: int  # fruitless turns that they put up with
    shuffles: bool  # tells details in any order
    lists: bool  # details as a list, and not as sentences


MANNERS = ("plain", "polite", "brisk", "chatty", "foreign")


def persona(number: int) -> Persona:
    """A person; two numbers hardly ever have the same traits and the same words."""
    rng = stream(0, "persona", number)
    return Persona(
        number,
        manner=MANNERS[number % len(MANNERS)],
        greets=rng.random() < 0.4,
        is_lower=rng.random() < 0.25,
        typos=rng.choice((0, 0, 0, 0.02, 0.06)),
        patience=rng.randint(2, 5),
        shuffles=rng.random() < 0.3,
        lists=rng.random() < 0.3,
    )
