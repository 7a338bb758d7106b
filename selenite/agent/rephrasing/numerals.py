"""Numbers and dates as values: ``1,000`` is ``1000``, ``1 May 2024`` is ``2024-05-01``.

English months and number words are read; of other languages the digits are. Part of the facts
(``facts.py``).
"""

from __future__ import annotations

import re
from decimal import Decimal

_MONTH_NAMES = (
    "January February March April May June July August September October November December"
)
_MONTHS = _MONTH_NAMES.split()
_MONTH = "|".join([*_MONTHS, *(f"{name[:3]}\\.?" for name in _MONTHS), "Sept\\.?"])
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_DATES = [
    re.compile(pattern)
    for pattern in (
        r"\b(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(?!\w)",
        rf"\b{_DAY}\s+(?:of\s+)?(?P<month>{_MONTH})(?:,?\s+(?P<year>\d{{4}}))?(?!\w)",
        rf"\b(?P<month>{_MONTH})\s+{_DAY}(?:,?\s+(?P<year>\d{{4}}))?(?![\w.,:]\d|\w)",
        rf"\b(?P<month>{_MONTH}),?\s+(?P<year>\d{{4}})(?!\w)",
    )
]
_NUMBER = re.compile(r"(?<![\w.])(?:(?<![\w)\]][-−])[-−])?(?:\d|\.\d)\d*(?:[.,:/]\d+)*")
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?$")
_PLAIN = re.compile(r"-?\d*\.?\d+$")
_UNIT_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TEN_NAMES = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS, _TENS = _UNIT_NAMES.split(), _TEN_NAMES.split()
_VALUES = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_WORD = re.compile(
    rf"\b(?:(?P<tens>{'|'.join(_TENS)})(?:-(?P<ones>{'|'.join(_UNITS[1:10])}))?"
    rf"|(?P<unit>{'|'.join(_UNITS)}))\b",
    re.IGNORECASE,
)
_LEAST_WORD = 3  # "one" and "two" are in every second sentence and say nothing


def dates_in(text: str) -> tuple[frozenset[str], str]:
    """The dates of a text (``2024-05-01``, ``2024-05``, ``--05-01``), and the text without them."""
    found: set[str] = set()

    def take(match: re.Match[str]) -> str:
        parts = match.groupdict()
        month, day, year = parts["month"], parts.get("day"), parts.get("year") or "-"
        number = int(month) if month.isdecimal() else _month(month)
        found.add(f"{year}-{number:02d}" + (f"-{int(day):02d}" if day else ""))
        return " "

    for pattern in _DATES:
        text = pattern.sub(take, text)
    return frozenset(found), text


def parts_of(date: str) -> frozenset[str]:
    """What a date states, itself included: the month of a year, and a day without its year."""
    year, month, day = date[:-6], date[-5:-3], date[-2:]
    if len(date) == len("2024-05"):
        return frozenset({date})
    return frozenset({date, f"--{month}-{day}", *([f"{year}-{month}"] if year != "-" else ())})


def numbers_in(text: str) -> frozenset[str]:
    """The numbers in digits."""
    return frozenset(_normal(match[0]) for match in _NUMBER.finditer(text))


def numbers_in_words(text: str, least: int = 0) -> frozenset[str]:
    """The numbers in words, from ``least`` on."""
    values = []
    for match in _WORD.finditer(text):
        first = match["unit"] or match["tens"]
        ones = match["ones"]
        values.append(_VALUES[first.lower()] + (_VALUES[ones.lower()] if ones else 0))
    return frozenset(str(value) for value in values if value >= least)


def telling_numbers_in(text: str) -> frozenset[str]:
    """Numbers in digits and in words that a text does not use in passing."""
    return numbers_in(text) | numbers_in_words(text, _LEAST_WORD)


def _month(name: str) -> int:
    return next(n for n, month in enumerate(_MONTHS, start=1) if month[:3] == name[:3])


def _normal(number: str) -> str:
    number = number.replace("−", "-")
    if _THOUSANDS.match(number):
        number = number.replace(",", "")
    if not _PLAIN.match(number):
        return "/".join(part.lstrip("0") or "0" for part in number.split("/"))
    value = Decimal(number).normalize()
    return f"{value:f}" if value else "0"
