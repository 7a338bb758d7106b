"""Words and phrases in place of others that mean the same."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files

from selenite.agent.rephrasing.styles import Tone

_TABLE: dict[str, dict[str, list[str]]] = tomllib.loads(
    files(__package__).joinpath("wording.toml").read_text(encoding="utf-8")
)
_VOWEL = re.compile(r"[aeiou]", re.IGNORECASE)
_NEVER_LAST = re.compile(r"(?:'s|'re| to| can)$")  # "it is." stays


class _Wording:
    """The phrases of a tone, and the pattern that finds them: longer ones first."""

    def __init__(self, phrases: Mapping[str, list[str]]) -> None:
        self._phrases = phrases
        longest_first = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
        options = "|".join(map(re.escape, longest_first))
        self._pattern = re.compile(
            rf"(?:\b(?P<article>an?)(?P<space>\s+))?(?<![\w'’-])(?P<phrase>{options})(?![\w'’-])",
            re.IGNORECASE,
        )

    def apply(self, text: str, rng: random.Random, share: float) -> str:
        """The text with about ``share`` of the phrases replaced."""

        def replaced(match: re.Match[str]) -> str:
            phrase = match["phrase"]
            if rng.random() >= share:
                return match[0]
            new = rng.choice(self._phrases[phrase.lower()])
            is_last = not text[match.end() : match.end() + 2].strip().isalpha()
            is_inside = phrase[0].isupper() and match.start("phrase") > 0  # of a name, a title
            if is_inside or not phrase[1:].islower() or (_NEVER_LAST.search(new) and is_last):
                return match[0]
            new = new[0].upper() + new[1:] if phrase[0].isupper() else new
            if match["article"] is None:
                return new
            return f"{_article(match['article'], new)}{match['space']}{new}"

        return self._pattern.sub(replaced, text)


_WORDINGS = {tone: _Wording(_TABLE["any"] | _TABLE[tone]) for tone in Tone}


def reworded(text: str, tone: Tone, rng: random.Random, share: float) -> str:
    """The text in other words, in the tone; names, numbers and what is masked stay."""
    return _WORDINGS[tone].apply(text, rng, share)


def _article(old: str, word: str) -> str:
    """``a`` or ``an``, as the word wants it and as large as it was."""
    return old[0] + ("n" if _VOWEL.match(word) else "")
