"""May a text stand for another: does it say the same values, of the same things, and no others.

Code cannot read what a sentence means. It sees which values, words of the domain, numbers and
words such as "not" are in both texts, and refuses what differs, and new words other than those that
tell nothing. So a refusal may be unjust; what passes has no value and no fact that was not there,
and speaks of the same things and deeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from selenite.agent.roles.objection import Objection, Why
from selenite.agent.roles.passage import Forms, Passage, places_of, read_passage
from selenite.agent.roles.vocabulary import COMMON, Vocabulary, vocabulary_of
from selenite.agent.world.domain import Domain


class Wording:
    """Judges texts about a domain."""

    def __init__(self, domain: Domain) -> None:
        self._vocabulary: Vocabulary = vocabulary_of(domain)

    def objection(self, before: str, after: str, values: Sequence[Forms] = ()) -> Objection | None:
        """Why ``after`` may not stand for ``before``; None: it may.

        ``values`` are what ``before`` says, each by the forms in which it may be said.
        """
        if not after.strip():
            return Objection(Why.BLANK, "it is empty")
        if not all(letter.isprintable() or letter == "\n" for letter in after):
            return Objection(Why.NOT_PLAIN, "it has control characters")
        if after.strip() == before.strip():
            return Objection(Why.UNCHANGED, "it is the same text; use other words")
        old = read_passage(before, values, self._vocabulary)
        new = read_passage(after, values, self._vocabulary)
        return (
            _unseen(old, values)
            or _facts(old, new, values)
            or _words(old, new)
            or _order(old, new, values)
        )


def _unseen(old: Passage, values: Sequence[Forms]) -> Objection | None:
    """A value that cannot be found in code's own text could be lost without being missed."""
    places = places_of(values)
    for forms in values:
        if not any(places[form] in old.values for form in forms):
            return Objection(Why.UNSEEN, f"{forms[0]!r} cannot be told from the words around it")
    return None


def _facts(old: Passage, new: Passage, values: Sequence[Forms]) -> Objection | None:
    lost = [values[place][0] for place in old.values if place not in new.values]
    lost += sorted(old.numbers - new.numbers)
    if lost:
        return Objection(Why.LOST_VALUE, f"it does not say {_listed(lost)}")
    more = [values[place][0] for place in new.values if place not in old.values]
    more += sorted(new.numbers - old.numbers)
    more += sorted(new.quotes - old.quotes)
    others = new.spelt.keys() - old.spelt.keys() - COMMON - new.words.keys()
    more += sorted(new.spelt[root] for root in others)
    if more:
        return Objection(Why.INVENTED, f"it says {_listed(more)}, which is not in the text")
    return None


def _words(old: Passage, new: Passage) -> Objection | None:
    if lost := sorted(old.words.keys() - new.words.keys()):
        return Objection(Why.LOST_WORD, f"it does not use the word {_spelt(lost, old)}")
    if more := sorted(new.words - old.words):
        detail = f"it uses the word {_spelt(more, new)}, which the text does not, or not so often"
        return Objection(Why.NEW_WORD, detail)
    if more := sorted(new.senses - old.senses):
        detail = f"it says a word of the sort {more[0]!r}, which the text does not, or not so often"
        return Objection(Why.CHANGED_SENSE, detail)
    lost = sorted(old.senses.keys() - new.senses.keys())
    if lost or old.senses["negation"] != new.senses["negation"]:
        said = lost[0] if lost else "negation"
        return Objection(Why.CHANGED_SENSE, f"it does not say a word of the sort {said!r}")
    if any(count > max(1, old.sentences[said]) for said, count in new.sentences.items()):
        return Objection(Why.REPEATS, "it says the same twice")
    return None


def _order(old: Passage, new: Passage, values: Sequence[Forms]) -> Objection | None:
    """Two values could have changed places."""
    if len(old.values) < 2:
        return None
    if old.values != new.values:
        said = ", ".join(values[place][0] for place in old.values)
        return Objection(Why.REORDERED, f"values must come in this order: {said}")
    for place, label, other in zip_longest(old.values, old.labels, new.labels):
        if label and label != other:
            said = f"right before {values[place][0]!r} it must say what that is, as the text does"
            return Objection(Why.REORDERED, said)
    if any(old.towards) and old.towards != new.towards:
        return Objection(Why.REORDERED, "keep each to, from and as before its value")
    return None


def _spelt(roots: Sequence[str], passage: Passage) -> str:
    return _listed([passage.spelt[root.removeprefix("not ")] for root in roots])


def _listed(items: Sequence[str]) -> str:
    return ", ".join(map(repr, items[:5]))
