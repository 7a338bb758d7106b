"""Reads a sentence into what matters: subjects, values, words that name attributes, and breaks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selenite.rl.gym.faithfulness.passage import MONTHS, Fact, Passage
from selenite.rl.gym.faithfulness.topics import Attribute, Kind

Day = tuple[int | None, int | None, int | None]
"""Year, month and day; None: not told."""


@dataclass(frozen=True)
class Word:
    """A word that is none of the others. ``attribute``: the one that it names, if any."""

    text: str
    attribute: Attribute | None = None


@dataclass(frozen=True)
class Break:
    """Between two clauses."""

    text: str


@dataclass(frozen=True)
class Subject:
    """One of the things that the text tells of."""

    name: str


@dataclass(frozen=True)
class Value:
    """A number, date, id or name. ``number`` and ``day`` are what it says, where it says one."""

    text: str
    number: int | None = None
    day: Day | None = None


Token = Word | Break | Subject | Value

_UNITS = {
    word: value
    for value, word in enumerate(
        (
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
            *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
            *("seventeen", "eighteen", "nineteen"),
        )
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2
    )
}
_DIGITS = 12  # of a number that is read; Python refuses to read thousands
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_NUMERAL = "|".join((*_TENS, *sorted(_UNITS, key=len, reverse=True), *_SCALES))
_JOINT = r"(?:[ -]|(?<=hundred) and |(?<=thousand) and )"
_MONTH = "|".join((*MONTHS, "Sept", *(month[:3] for month in MONTHS)))
_PATTERNS: Mapping[str, str] = {
    "id": r"\b[A-Z]{2,4}-\d+\b",
    "iso": r"\b\d{4}-\d{2}-\d{2}\b",
    "day first": rf"\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? (?:{_MONTH})\b(?:,? \d{{4}}\b)?",
    "month first": rf"\b(?:{_MONTH}) \d{{1,2}}(?:st|nd|rd|th)?\b(?:,? \d{{4}}\b)?",
    "month": rf"\b(?:{_MONTH})(?: \d{{4}})?\b",
    "digits": r"\d+(?:,\d{3})*(?:\.\d+)?",
    "numeral": rf"\b(?:{_NUMERAL})(?:{_JOINT}(?:{_NUMERAL}))*\b",
    "word": r"[^\W\d_]+(?:['’-][^\W\d_]+)*",
    "break": r"[,;:()\[\]–—/|]",
}
_TOKEN = re.compile("|".join(f"({pattern})" for pattern in _PATTERNS.values()), re.IGNORECASE)
_BREAKS = {"and", "but", "while", "whereas", "which", "who", "with"}


def read(sentence: str, passage: Passage) -> list[Token]:
    """The tokens of a sentence."""
    found = list[Token]()
    for match in _TOKEN.finditer(sentence):
        kind = list(_PATTERNS)[match.lastindex - 1] if match.lastindex else ""
        text = match[0]
        match kind:
            case "id":
                found.append(Value(text))
            case "iso" | "day first" | "month first" | "month":
                if text.islower() and text in ("may", "mar", "sep", "dec", "jan"):
                    found.append(Word(text))
                else:
                    found.append(Value(text, day=_day(text)))
            case "digits":
                found.append(_number(text))
            case "numeral" if text.lower() != "one":
                found.append(Value(text, number=_spelled(text)))
            case "break":
                found.append(Break(text))
            case _:
                found.append(_word(text, passage))
    return _with_full_names(found, passage)


def _word(text: str, passage: Passage) -> Token:
    plain = re.sub(r"['’]s?$", "", text)
    if plain in passage.subjects:
        return Subject(plain)
    lowered = plain.lower()
    if lowered in _BREAKS:
        return Break(lowered)
    for attribute in passage.topic.attributes:
        if lowered.startswith(attribute.words):
            return Word(plain, attribute)
    if any(plain in fact.value.split() for fact in passage.facts):
        return Value(plain)
    return Word(plain)


def _with_full_names(tokens: Sequence[Token], passage: Passage) -> list[Token]:
    """Two names of one person after each other are one value."""
    people = {f.value for f in passage.facts if f.attribute.kind is Kind.PERSON}
    found = list[Token]()
    for token in tokens:
        last = found[-1] if found else None
        if isinstance(token, Value) and isinstance(last, Value):
            whole = f"{last.text} {token.text}"
            if whole in people:
                found[-1] = Value(whole)
                continue
        found.append(token)
    return found


def _number(text: str) -> Value:
    plain = text.replace(",", "")
    is_whole = plain.isdecimal() and len(plain) <= _DIGITS
    return Value(text, number=int(plain) if is_whole else None)


def _spelled(text: str) -> int:
    """``two hundred and twelve`` is 212."""
    total = part = 0
    for word in re.split(r"[ -]", text.lower()):
        if word == "hundred":
            part = max(part, 1) * 100
        elif word in _SCALES:
            total += max(part, 1) * _SCALES[word]
            part = 0
        else:
            part += _UNITS.get(word, 0) + _TENS.get(word, 0)
    return total + part


def _day(text: str) -> Day:
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        year, number, day = map(int, text.split("-"))
        return year, number, day
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    name = re.search(_MONTH, text, re.IGNORECASE)
    assert name is not None
    month = [month[:3].lower() for month in MONTHS].index(name[0][:3].casefold()) + 1
    years = [number for number in numbers if number > 31]
    days = [number for number in numbers if number <= 31]
    return (years[0] if years else None, month, days[0] if days else None)


def find_fact(value: Value, facts: Iterable[Fact]) -> tuple[Fact, bool] | None:
    """The fact whose value this is, and whether it is told in full; None: there is none."""
    for fact in facts:
        is_full = _says(value, fact)
        if is_full is not None:
            return fact, is_full
    return None


def _says(value: Value, fact: Fact) -> bool | None:
    """Whether a value is that of a fact in full, in part (False), or not at all (None)."""
    match fact.attribute.kind:
        case Kind.NUMBER:
            return True if value.number == int(fact.value) else None
        case Kind.ID:
            return True if value.text.upper() == fact.value else None
        case Kind.DATE:
            return _says_day(value, _day(fact.value))
        case _:
            if value.text == fact.value:
                return True
            names = fact.value.split()
            return None if value.text not in names else value.text == names[-1]


def _says_day(value: Value, day: Day) -> bool | None:
    told: Day = value.day or (value.number, None, None)
    if told == (None, None, None):
        return None
    if any(part not in (None, own) for part, own in zip(told, day, strict=True)):
        return None
    return told == day
