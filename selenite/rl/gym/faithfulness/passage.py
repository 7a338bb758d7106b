"""A text of facts about several things of a kind, and what is asked about some of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from selenite.rl.gym.faithfulness.topics import Attribute, Kind, Topic

MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
_SYLLABLES = (
    *("ba", "dro", "fel", "gri", "hu", "jo", "kir", "lum", "mor", "nes", "pra", "quo", "ril"),
    *("sva", "tek", "ul", "vor", "wen", "xi", "zab"),
)
_ENDS = ("dak", "fin", "gor", "lis", "met", "nov", "rup", "sek", "tha", "zen")
_FIRST_YEAR, _LAST_YEAR = 1861, 2019
_LAST_DAY = 28  # of any month


@dataclass(frozen=True)
class Fact:
    """A subject has a value. No value occurs twice in a text, no word of a name either."""

    subject: str
    attribute: Attribute
    value: str

    def told(self) -> str:
        """As texts have it, after the subject."""
        return self.attribute.phrase.format(self.value)


@dataclass(frozen=True)
class Derived:
    """A number that is asked for and does not stand in the text."""

    attribute: Attribute
    more: str  # the subject with more of it
    fewer: str
    value: int
    is_sum: bool

    def asked(self) -> str:
        """As requests have it."""
        both = (
            f"{self.more} and {self.fewer}" if self.value % 2 else f"{self.fewer} and {self.more}"
        )
        what = "sum" if self.is_sum else "difference"
        return f"the {what} of the {self.attribute.label} of {both}"


@dataclass(frozen=True)
class Passage:
    """A text with what is asked about it."""

    topic: Topic
    text: str
    facts: Sequence[Fact]
    required: Sequence[Fact]
    derived: Sequence[Derived]

    @property
    def subjects(self) -> set[str]:
        """All things that the text tells of."""
        return {fact.subject for fact in self.facts}

    @property
    def asked(self) -> set[str]:
        """Those that are asked about."""
        found = {fact.subject for fact in self.required}
        return found | {name for one in self.derived for name in (one.more, one.fewer)}

    def questions(self) -> list[str]:
        """What is asked, point by point."""
        points = [f"the {fact.attribute.label} of {fact.subject}" for fact in self.required]
        return [*points, *(one.asked() for one in self.derived)]


def make_passage(rng: random.Random, topic: Topic, level: int) -> Passage:
    """A text about ``2 + level`` things, of which ``1 + level`` facts are asked for, and from level
    2 on a number that must be calculated.

    Tries until no number that is asked for stands in the text as something else.
    """
    while True:
        facts = _facts(rng, topic, 2 + level)
        required = rng.sample(facts, 1 + level)
        derived = [_derived(rng, facts)] if level > 1 else []
        numbers = [fact.value for fact in facts if fact.attribute.kind is Kind.NUMBER]
        taken = {*numbers, *map(str, range(_FIRST_YEAR, _LAST_YEAR + 1))}
        if len(set(numbers)) == len(numbers) and all(
            one.value > _LAST_DAY and str(one.value) not in taken for one in derived
        ):
            return Passage(topic, _text(rng, topic, facts), facts, required, derived)


def _facts(rng: random.Random, topic: Topic, count: int) -> list[Fact]:
    names = _names(rng)
    days = iter(rng.sample(range((_LAST_YEAR - _FIRST_YEAR + 1) * 12 * _LAST_DAY), 2 * count))
    ids = iter(rng.sample(range(1000, 10_000), count))
    found = []
    for _ in range(count):
        subject = next(names)
        for attribute in topic.attributes:
            match attribute.kind:
                case Kind.NUMBER:
                    value = str(_number(rng, attribute.most))
                case Kind.DATE:
                    months, day = divmod(next(days), _LAST_DAY)
                    year, month = divmod(months, 12)
                    value = f"{1 + day} {MONTHS[month]} {_FIRST_YEAR + year}"
                case Kind.ID:
                    value = f"{topic.prefix}-{next(ids)}"
                case Kind.PERSON:
                    value = f"{next(names)} {next(names)}"
                case Kind.PLACE:
                    value = next(names)
            found.append(Fact(subject, attribute, value))
    return found


def _number(rng: random.Random, most: int) -> int:
    """Not one that could be a year, nor a small one that counts things."""
    while True:
        value = rng.randint(max(12, most // 10), most)
        if not 1000 <= value <= 2100:
            return value


def _names(rng: random.Random) -> Iterator[str]:
    """Words without a meaning, none of them twice."""
    seen = set[str]()
    while True:
        name = "".join((*rng.sample(_SYLLABLES, 2), rng.choice(_ENDS))).capitalize()
        if name not in seen:
            seen.add(name)
            yield name


def _derived(rng: random.Random, facts: Sequence[Fact]) -> Derived:
    pairs = [
        (one, other)
        for one, other in combinations(facts, 2)
        if one.attribute is other.attribute and one.attribute.kind is Kind.NUMBER
    ]
    fewer, more = sorted(rng.choice(pairs), key=lambda fact: int(fact.value))
    is_sum = rng.random() < 0.5
    value = int(more.value) + (1 if is_sum else -1) * int(fewer.value)
    return Derived(more.attribute, more.subject, fewer.subject, value, is_sum)


def _text(rng: random.Random, topic: Topic, facts: Sequence[Fact]) -> str:
    """Two or three facts a sentence, and neighbours about different things."""
    parts = list[str]()
    for subject in sorted({fact.subject for fact in facts}):
        own = [fact for fact in facts if fact.subject == subject]
        rng.shuffle(own)
        while own:
            size = 3 if len(own) in (3, 5) else min(2, len(own))
            told = [own.pop().told() for _ in range(size)]
            parts.append(f"The {topic.noun} {subject} {', '.join(told[:-1])} and {told[-1]}.")
    rng.shuffle(parts)
    return " ".join(parts)
