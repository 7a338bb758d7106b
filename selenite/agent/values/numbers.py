"""Counts, measures, money and lengths of time."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from selenite.agent.values.kind import Kind, Value, distinct, is_integer, is_number, unreadable

_ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = _ONES + [
    tens if ones == 0 else f"{tens}-{_ONES[ones]}" for tens in _TENS for ones in range(10)
]
"""0 to 99 in words."""
_BY_WORD = {word: number for number, word in enumerate(WORDS)}
_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹"}
_NAMES = {
    "USD": "dollars",
    "EUR": "euros",
    "GBP": "pounds",
    "JPY": "yen",
    "INR": "rupees",
    "CHF": "francs",
}


@dataclass(frozen=True)
class Count(Kind):
    """A whole number of something."""

    least: int
    most: int
    unit: str = ""  # plural; "": none

    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "integer", "minimum": self.least}
        if self.unit:
            found["description"] = f"In {self.unit}."
        return found

    def accepts(self, value: Value) -> bool:
        return is_integer(value) and value >= self.least

    def canonical(self, value: Value) -> Value:
        return int(value)

    def draw(self, rng: random.Random, today: date) -> Value:
        # Small numbers are asked for more often than large ones.
        return min(rng.randint(self.least, self.most) for _ in range(2))

    def forms(self, value: Value, today: date) -> list[str]:
        numbers = [str(value), f"{value:,}"]
        if 0 <= value < len(WORDS):
            numbers.append(WORDS[value])
        units = [f"{number} {self.unit}" for number in numbers if self.unit]
        return distinct(numbers + units)

    def read(self, text: str, today: date) -> Value:
        number = text.removesuffix(f" {self.unit}") if self.unit else text
        if number in _BY_WORD:
            return _BY_WORD[number]
        if not re.fullmatch(r"-?\d[\d,]*", number):
            raise unreadable(text, "count")
        return int(number.replace(",", ""))


@dataclass(frozen=True)
class Measure(Kind):
    """A number with decimals, such as a weight."""

    least: float
    most: float
    places: int = 1
    unit: str = ""

    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "number"}
        if self.unit:
            found["description"] = f"In {self.unit}."
        return found

    def accepts(self, value: Value) -> bool:
        return is_number(value)

    def canonical(self, value: Value) -> Value:
        return float(value) + 0.0  # -0.0 is 0.0

    def draw(self, rng: random.Random, today: date) -> Value:
        return round(rng.uniform(self.least, self.most), self.places)

    def forms(self, value: Value, today: date) -> list[str]:
        plain = f"{value:.{self.places}f}"
        short = plain.rstrip("0").rstrip(".") if "." in plain else plain
        numbers = [plain, short]
        return distinct(numbers + [f"{number} {self.unit}" for number in numbers if self.unit])

    def read(self, text: str, today: date) -> Value:
        number = text.removesuffix(f" {self.unit}") if self.unit else text
        if not re.fullmatch(r"-?\d+(\.\d+)?", number):
            raise unreadable(text, "measure")
        return float(number)


@dataclass(frozen=True)
class Money(Kind):
    """An amount in one currency, with two decimals."""

    least: float
    most: float
    currency: str = "USD"

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": 0, "description": f"Amount in {self.currency}."}

    def accepts(self, value: Value) -> bool:
        return is_number(value) and value >= 0

    def canonical(self, value: Value) -> Value:
        return float(value) + 0.0  # -0.0 is 0.0

    def draw(self, rng: random.Random, today: date) -> Value:
        amount = rng.uniform(self.least, self.most)
        return round(amount, rng.choice((0, 0, 1, 2)))

    def forms(self, value: Value, today: date) -> list[str]:
        numbers = [f"{value:.2f}", f"{value:,.2f}"]
        if value == int(value):
            numbers += [f"{value:.0f}", f"{value:,.0f}"]
        symbol, name = _SYMBOLS.get(self.currency), _NAMES.get(self.currency)
        found = []
        for number in numbers:
            if symbol:
                found.append(f"{symbol}{number}")
            found += [f"{number} {self.currency}", f"{self.currency} {number}"]
            if name:
                found.append(f"{number} {name}")
        return distinct(found)

    def read(self, text: str, today: date) -> Value:
        symbol, name = _SYMBOLS.get(self.currency, ""), _NAMES.get(self.currency, "")
        number = text
        for mark in filter(None, (symbol, name, self.currency)):
            number = number.replace(mark, "")
        number = number.strip()
        if number == text or not re.fullmatch(r"\d[\d,]*(\.\d+)?", number):
            raise unreadable(text, f"amount in {self.currency}")
        return float(number.replace(",", ""))


@dataclass(frozen=True)
class Span(Kind):
    """A length of time in whole minutes."""

    least: int = 15
    most: int = 240
    step: int = 15

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": 1, "description": "In minutes."}

    def accepts(self, value: Value) -> bool:
        return is_integer(value) and value >= 1

    def canonical(self, value: Value) -> Value:
        return int(value)

    def draw(self, rng: random.Random, today: date) -> Value:
        return rng.randrange(self.least, self.most + 1, self.step)

    def forms(self, value: Value, today: date) -> list[str]:
        hours, minutes = divmod(value, 60)
        found = [f"{value} minutes", f"{value} min"]
        if hours and not minutes:
            unit = "hour" if hours == 1 else "hours"
            found += [f"{hours} {unit}", *([f"{WORDS[hours]} {unit}"] if hours < 100 else [])]
        elif hours:
            found.append(f"{hours} h {minutes} min")
        return found

    def read(self, text: str, today: date) -> Value:
        if found := re.fullmatch(r"(\d+) min(?:utes)?", text):
            return int(found[1])
        if found := re.fullmatch(r"(\d+) h (\d+) min", text):
            return 60 * int(found[1]) + int(found[2])
        if found := re.fullmatch(r"([\w-]+) hours?", text):
            if found[1].isdigit():
                return 60 * int(found[1])
            if found[1] in _BY_WORD:
                return 60 * _BY_WORD[found[1]]
        raise unreadable(text, "length of time")
