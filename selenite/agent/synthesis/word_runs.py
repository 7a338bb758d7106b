"""Eight words in a row that two sets of texts have in common.

What is shared is joined to the longest runs. A run counts when it has three different words that
say what it is about: without that rule the stock phrase "can you tell me the name of the" was the
one overlap of 20,000 trajectories with BFCL, and lists of numbers would be others. The rule sets
aside 9 % of BFCL's eight-word runs and 6 % of tau2's, and those only where nothing else is shared
beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from selenite.agent.synthesis.diversity_measures import Gram, grams, words_of

WORDS = 8
_CONTENT_WORDS = 3
_FUNCTION_WORDS = """
a about after all also am an and any are as at be been before both but by can could did do does for
from get give had has have he her him his how i if in into is it its just let like me more my need
no not of on one or our out please she should so some tell than that the their them then there
these they this to two up us want was we were what when where which who why will with would you your
"""
_SAYS_NOTHING = frozenset(_FUNCTION_WORDS.split())


class RunIndex:
    """All runs of eight words of some texts."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """``texts`` maps each to the place that it is from."""
        self._places: dict[Gram, str] = {}
        for text, place in texts.items():
            for gram in grams(words_of(text), WORDS):
                self._places.setdefault(gram, place)

    def __len__(self) -> int:
        return len(self._places)

    def shared(self, text: str) -> Iterator[tuple[str, str]]:
        """The longest runs that a text shares with the index, each with the place of its start."""
        words = words_of(text)
        if self._places.keys().isdisjoint(grams(words, WORDS)):
            return
        for start, end in _joined(self._hits(words)):
            run = words[start:end]
            if _says_something(run):
                yield " ".join(run), self._places[tuple(run[:WORDS])]

    def _hits(self, words: list[str]) -> Iterator[int]:
        return (at for at, gram in enumerate(grams(words, WORDS)) if gram in self._places)


def _joined(hits: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ranges of words; hits that follow one another are one range."""
    start = end = -1
    for at in hits:
        if at + WORDS - 1 != end:
            if end > 0:
                yield start, end
            start = at
        end = at + WORDS
    if end > 0:
        yield start, end


def _says_something(run: list[str]) -> bool:
    content = {
        word for word in run if len(word) > 1 and word.isalpha() and word not in _SAYS_NOTHING
    }
    return len(content) >= _CONTENT_WORDS
