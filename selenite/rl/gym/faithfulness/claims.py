"""What a reply claims, sentence by sentence, and which of it the text does not say.

A value belongs to the subject that is named last before it in its clause, else first after it
there; else last before it in the sentence, else first after it; else, where the sentence has a word
such as “it”, to the one subject of the sentence before. In the same way it is what the nearest word
in its clause names, else the last one before it; what nothing names is a fault. What is not found:
invented names in small letters, claims without any value, and what else is said of a right one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from selenite.rl.gym.faithfulness.passage import Derived, Fact, Passage
from selenite.rl.gym.faithfulness.reading import (
    Break,
    Subject,
    Token,
    Value,
    Word,
    find_fact,
    read,
)
from selenite.rl.gym.faithfulness.topics import Attribute

_SENTENCE = re.compile(r"(?<=[.!?])[\s_\"”)]+")
_MARK = re.compile(r"^[\s>#]*(?:[-*•]|\d{1,2}[.)](?=\s))?\s*")
_NOT_TOLD = re.compile(
    r"\b(?i:not|no|never|none|nobody|neither|nor|without|unlike|or|either|maybe|perhaps|possibly"
    r"|probably|presumably|roughly|approximately|around|nearly|almost|might|could|would|if"
    r"|unclear|unknown|unsure|wrong|false|untrue|incorrect|denies|denied|guess|think|believe"
    r"|seems?|appears?|allegedly|supposedly|hardly|except|instead|rather|at least|at most)\b"
    r"|\bmay\b|(?i:n['’]t)\b|\?|\babout (?=\d)"  # May is a month
)
_LONGEST = 40  # words of a sentence with a value
_IT = frozenset(
    (
        *("it", "its", "he", "his", "him", "she", "her", "they", "their", "them"),
        *("this", "that", "there"),
    )
)
_STARTS = frozenset(
    (
        *("however", "also", "moreover", "furthermore", "besides", "finally", "first", "second"),
        *("third", "next", "then", "overall", "together", "both", "likewise", "meanwhile"),
        *("here", "yes", "thus", "hence", "therefore", "indeed", "so", "sure", "as", "in", "for"),
        *("on", "at", "by", "of", "to", "from", "since"),
    )
)
_UP = re.compile(r"\b(?:more|larger|greater|longer|higher|bigger|exceeds?|above|ahead)\b", re.I)
_DOWN = re.compile(r"\b(?:fewer|less|smaller|shorter|lower|below|behind)\b", re.I)
_THAN = frozenset(
    ("than", "compared", "over", "against", "exceeds", "exceed", "above", "below", "behind")
)
_DIFFERENCE = re.compile(r"\b(?:difference|differs?|than|compared|exceeds?)\b", re.I)
_SUM = re.compile(r"\b(?:sum|together|total|combined|altogether|in all|add|adds|both)\b", re.I)


@dataclass
class Claims:
    """What was found in a reply."""

    told: set[Fact] = field(default_factory=set)
    derived: set[Derived] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


def claims(reply: str, passage: Passage, vocabulary: frozenset[str]) -> Claims:
    """Reads a reply. ``vocabulary``: words in small letters that text and request have."""
    found, before = Claims(), None
    for sentence in sentences(reply):
        reader = _Reader(sentence, passage, vocabulary, before, found)
        found.faults += [f"{fault}: “{sentence}”" for fault in reader.faults()]
        names = {token.name for token in reader.tokens if isinstance(token, Subject)}
        if names:
            before = names.pop() if len(names) == 1 else None
    return found


def sentences(reply: str) -> list[str]:
    """Without what marks points of a list, and stars."""
    lines = (_MARK.sub("", line).replace("*", "") for line in reply.splitlines())
    return [part.strip() for line in lines for part in _SENTENCE.split(line) if part.strip()]


class _Reader:
    """One sentence. ``faults`` also notes in ``found`` what is told."""

    def __init__(
        self,
        sentence: str,
        passage: Passage,
        vocabulary: frozenset[str],
        before: str | None,
        found: Claims,
    ) -> None:
        self.tokens = read(sentence, passage)
        self._sentence, self._passage, self._vocabulary = sentence, passage, vocabulary
        self._before, self._found = before, found

    def faults(self) -> Iterator[str]:
        """What the text does not say, or not so."""
        yield from self._unknown_names()
        places = [place for place, token in enumerate(self.tokens) if isinstance(token, Value)]
        places = [place for place in places if not self._is_count(place)]
        if not places:
            return
        if _NOT_TOLD.search(self._sentence):
            yield "values that are denied, doubted or asked for"
            return
        if len(self._sentence.split()) > _LONGEST:
            yield f"over {_LONGEST} words"
            return
        for place in places:
            fault = self._fault(place)
            if fault is not None:
                yield fault

    def _fault(self, place: int) -> str | None:
        value = self.tokens[place]
        assert isinstance(value, Value)
        if self._has_scale(place):
            return f"{value.text} with a word that multiplies or divides it"
        for derived in self._passage.derived:
            if value.number == derived.value:
                return self._calculated(place, derived)
        if find_fact(value, self._passage.facts) is None:
            return f"{value.text} does not stand in the text"
        subject = self._subject(place)
        if subject is None:
            return f"{value.text} of nobody"
        known = find_fact(value, (f for f in self._passage.facts if f.subject == subject))
        if known is None:
            return f"{value.text} is not of {subject}"
        if subject not in self._passage.asked:
            return f"{subject} is not asked about"
        fact, is_full = known
        named = self._named(place)
        if fact.attribute not in named:
            return f"{value.text} is not {_labels(named)}"
        if is_full:
            self._found.told.add(fact)
        return None

    def _calculated(self, place: int, derived: Derived) -> str | None:
        names = [token.name for token in self.tokens if isinstance(token, Subject)]
        if set(names) != {derived.more, derived.fewer}:
            return f"{derived.value} is of {derived.more} and {derived.fewer} together"
        if not (_SUM if derived.is_sum else _DIFFERENCE).search(self._sentence):
            return f"{derived.value} without how it is calculated"
        named = self._named(place)
        if derived.attribute not in named:
            return f"{derived.value} is not of {_labels(named)}"
        if not derived.is_sum and not self._is_right_way(names, derived):
            return f"{derived.more} has more, not {derived.fewer}"
        self._found.derived.add(derived)
        return None

    def _is_right_way(self, names: Sequence[str], derived: Derived) -> bool:
        """Whether who is said to have more, or less, does."""
        reference = None
        for place, token in enumerate(self.tokens):
            if isinstance(token, Word) and token.text.lower() in _THAN:
                after = [t.name for t in self.tokens[place:] if isinstance(t, Subject)]
                reference = after[0] if after else None
                break
        first = next(name for name in names if name != reference)
        is_up, is_down = bool(_UP.search(self._sentence)), bool(_DOWN.search(self._sentence))
        if is_up and is_down:
            return False
        return not (is_up and first != derived.more) and not (is_down and first != derived.fewer)

    def _clause(self, place: int) -> range:
        start = end = place
        while start > 0 and not isinstance(self.tokens[start - 1], Break):
            start -= 1
        while end < len(self.tokens) and not isinstance(self.tokens[end], Break):
            end += 1
        return range(start, end)

    def _subject(self, place: int) -> str | None:
        clause = self._clause(place)
        everything = range(len(self.tokens))
        for within in (clause, everything):
            before = [self.tokens[p] for p in within if p < place]
            after = [self.tokens[p] for p in within if p > place]
            for token in (*reversed(before), *after):
                if isinstance(token, Subject):
                    return token.name
        words = {token.text.lower() for token in self.tokens if isinstance(token, Word)}
        return self._before if words & (_IT | {self._passage.topic.noun}) else None

    def _named(self, place: int) -> set[Attribute]:
        """The attributes that the nearest words name."""
        clause = [(p, a) for p in self._clause(place) if (a := _attribute(self.tokens[p]))]
        if clause:
            least = min(abs(p - place) for p, _ in clause)
            return {a for p, a in clause if abs(p - place) == least}
        before = [a for token in self.tokens[:place] if (a := _attribute(token))]
        after = [a for token in self.tokens[place:] if (a := _attribute(token))]
        return {before[-1]} if before else set(after[:1])

    def _is_count(self, place: int) -> bool:
        """“Two ships”, “three of them”: how many things there are."""
        value = self.tokens[place]
        after = self.tokens[place + 1] if place + 1 < len(self.tokens) else None
        assert isinstance(value, Value)
        return (
            value.number is not None
            and value.number <= len(self._passage.subjects)
            and isinstance(after, Word)
            and after.text.lower().startswith((self._passage.topic.noun[:-1], "of"))
        )

    def _has_scale(self, place: int) -> bool:
        value = self.tokens[place]
        after = self.tokens[place + 1] if place + 1 < len(self.tokens) else None
        assert isinstance(value, Value)
        if f"{value.text}%" in self._sentence.replace(" ", ""):
            return True
        if isinstance(after, Word) and after.text.lower() in ("percent", "dozen"):
            return True
        is_next_number = isinstance(after, Value) and after.number in (100, 1000, 1_000_000)
        return is_next_number and value.number is not None

    def _unknown_names(self) -> Iterator[str]:
        for place, token in enumerate(self.tokens):
            if not isinstance(token, Word) or not token.text[:1].isupper() or token.text == "I":
                continue
            if token.attribute is not None or token.text.lower() in self._vocabulary:
                continue
            is_start = place == 0 or isinstance(self.tokens[place - 1], Break)
            after = self.tokens[place + 1] if place + 1 < len(self.tokens) else None
            is_adverb = token.text.lower() in _STARTS or token.text.endswith("ly")
            is_inside = place > 0 and not (is_start and ":" in self._sentence)
            if is_inside or (isinstance(after, Break) and not is_adverb):
                yield f"{token.text} does not stand in the text"


def _attribute(token: Token) -> Attribute | None:
    return token.attribute if isinstance(token, Word) else None


def _labels(attributes: set[Attribute]) -> str:
    labels = sorted(attribute.label for attribute in attributes)
    return f"the {' or the '.join(labels)}" if labels else "said to be anything"
