"""What users say: sentences of each act and manner, with values that are never touched."""

from __future__ import annotations

import random
import tomllib
from importlib.resources import files

from selenite.agent.users.persona import Persona

_FILE = tomllib.loads(files(__package__).joinpath("speech.toml").read_text(encoding="utf-8"))
_MARK = "\0"  # stands around values while words change


def act(name: str, persona: Persona, rng: random.Random, **values: str) -> str:
    """One sentence of an act in the persona's manner. Values are put in as they are."""
    table = _FILE[name]
    options = [*table.get("any", ()), *table.get(persona.manner, ())]
    return fill(rng.choice(options), persona, rng, **values)


def fill(sentence: str, persona: Persona, rng: random.Random, **values: str) -> str:
    """A sentence with its values, in the persona's spelling."""
    parts = sentence.format(**{k: f"{_MARK}{v}{_MARK}" for k, v in values.items()}).split(_MARK)
    return "".join(
        _spelt(part, persona, rng) if i % 2 == 0 else part for i, part in enumerate(parts)
    )


def _spelt(words: str, persona: Persona, rng: random.Random) -> str:
    if persona.is_lower:
        words = words.lower()
    if not persona.typos:
        return words
    return " ".join(
        _slip(word, rng)
        if len(word) > 4 and word.isalpha() and rng.random() < persona.typos
        else word
        for word in words.split(" ")
    )


def _slip(word: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(word) - 2)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
