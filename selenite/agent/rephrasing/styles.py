"""Styles and perspectives: how a document is told again (K2's style- and perspective-diverse
prompts).

Which ones a document gets follows from the seed, its number and the round; its rounds differ in
both as long as there are enough.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files

from selenite.agent.randomness import stream


class Form(StrEnum):
    """What paragraphs become, by rules."""

    PROSE = "prose"
    NOTES = "notes"
    NUMBERED = "numbered"
    OUTLINE = "outline"
    QUESTIONS = "questions"
    DIALOGUE = "dialogue"


class Tone(StrEnum):
    """How one speaks."""

    FORMAL = "formal"
    PLAIN = "plain"


class Length(StrEnum):
    """Of sentences."""

    SHORT = "short"
    LONG = "long"
    MIXED = "mixed"


@dataclass(frozen=True)
class Style:
    """A kind of text."""

    name: str
    instruction: str  # for models, after "Write it as"
    form: Form  # for rules


@dataclass(frozen=True)
class Perspective:
    """Somebody who writes."""

    name: str
    instruction: str  # for models, after "You write as"
    tone: Tone
    sentences: Length
    openings: tuple[str, ...]  # first sentences that state nothing


_TABLE = tomllib.loads(files(__package__).joinpath("styles.toml").read_text(encoding="utf-8"))

STYLES = tuple(
    Style(name, row["instruction"], Form(row["form"])) for name, row in _TABLE["styles"].items()
)
PERSPECTIVES = tuple(
    Perspective(
        name,
        row["instruction"],
        Tone(row["tone"]),
        Length(row["sentences"]),
        tuple(row["openings"]),
    )
    for name, row in _TABLE["perspectives"].items()
)


def choose(seed: int, document: int, round_number: int) -> tuple[Style, Perspective]:
    """The style and the perspective of a round of a document; a pair never comes twice."""
    rng = stream(seed, "style", document)
    styles = rng.sample(STYLES, len(STYLES))
    perspectives = rng.sample(PERSPECTIVES, len(PERSPECTIVES))
    turn = round_number // len(styles)
    return (
        styles[round_number % len(styles)],
        perspectives[(round_number + turn) % len(perspectives)],
    )
