"""Morse code, both ways."""

from __future__ import annotations

import random
from dataclasses import dataclass

from selenite.rl.gym.environment import Check
from selenite.rl.gym.questions import Question

# fmt: off
CODE = {
    "A": ".-", "B": "-...", "C": "-.-.", "D": "-..", "E": ".", "F": "..-.", "G": "--.",
    "H": "....", "I": "..", "J": ".---", "K": "-.-", "L": ".-..", "M": "--", "N": "-.",
    "O": "---", "P": ".--.", "Q": "--.-", "R": ".-.", "S": "...", "T": "-", "U": "..-",
    "V": "...-", "W": ".--", "X": "-..-", "Y": "-.--", "Z": "--..",
}
_WORDS = (
    "anchor", "bridge", "candle", "dragon", "engine", "forest", "garden", "harbor", "island",
    "jacket", "kettle", "ladder", "magnet", "needle", "orange", "pencil", "quarry", "rocket",
    "saddle", "timber", "umbrella", "violin", "window", "yellow", "zipper",
)
# fmt: on


def morse(rng: random.Random, level: int) -> Question:
    """Letters drawn at random, three to seven; from level 2 on sometimes to be encoded."""
    text = "".join(rng.choice(tuple(CODE)) for _ in range(1 + 2 * level))
    if level > 1 and rng.random() < 0.3:
        text = rng.choice(_WORDS).upper()
    code = " ".join(CODE[letter] for letter in text)
    if level > 1 and rng.random() < 0.5:
        return Question(f"Write {text} in Morse code, with a space between letters.", Code(code))
    return Question(f"Which letters are these in Morse code? {code}", Letters(text))


@dataclass(frozen=True)
class Letters:
    """Judges letters."""

    letters: str

    def __call__(self, text: str) -> Check:
        """Upper or lower case, together or apart."""
        found = text.strip("`*. ").replace(" ", "").replace(",", "").upper()
        is_right = found == self.letters
        return Check("answer", float(is_right), "" if is_right else "other letters")


@dataclass(frozen=True)
class Code:
    """Judges Morse code."""

    code: str

    def __call__(self, text: str) -> Check:
        """Long and short signs may be dashes and dots of any kind."""
        table = str.maketrans({"–": "-", "—": "-", "−": "-", "_": "-", "·": ".", "•": "."})
        found = " ".join(text.translate(table).strip("`* ").split())
        is_right = found == self.code
        return Check("answer", float(is_right), "" if is_right else "another code")
