"""Texts: free ones, ids, and one of some options."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from selenite.agent.values.kind import Kind, Value, distinct, is_text, spoken, unreadable
from selenite.agent.values.words import SORTS

_FORMATS = {"email": "email", "url": "uri"}  # of JSON schema
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"))


def _unquoted(text: str) -> str:
    for first, last in _QUOTES:
        if len(text) > 2 and text.startswith(first) and text.endswith(last):
            return text[1:-1]
    return text


@dataclass(frozen=True)
class Text(Kind):
    """A text of one sort, such as a person's name (``words.SORTS``)."""

    sort: str

    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "string"}
        if self.sort in _FORMATS:
            found["format"] = _FORMATS[self.sort]
        return found

    def accepts(self, value: Value) -> bool:
        return is_text(value)

    def draw(self, rng: random.Random, today: date) -> Value:
        return SORTS[self.sort](rng)

    def forms(self, value: Value, today: date) -> list[str]:
        return [value, *(f"{first}{value}{last}" for first, last in _QUOTES)]

    def read(self, text: str, today: date) -> Value:
        if not text:
            raise unreadable(text, self.sort)
        return _unquoted(text)


@dataclass(frozen=True)
class Identifier(Kind):
    """The id of a record: the entity's prefix and a number."""

    prefix: str
    digits: int = 4

    def of(self, number: int) -> str:
        """The id with a number."""
        return f"{self.prefix}-{number:0{self.digits}d}"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.prefix}-[0-9]{{{self.digits}}}$"}

    def accepts(self, value: Value) -> bool:
        pattern = rf"{self.prefix}-[0-9]{{{self.digits}}}"
        return isinstance(value, str) and re.fullmatch(pattern, value) is not None

    def draw(self, rng: random.Random, today: date) -> Value:
        return self.of(rng.randint(1, 10**self.digits - 1))

    def forms(self, value: Value, today: date) -> list[str]:
        number = value.rpartition("-")[2]
        return [value, value.lower(), f"{self.prefix} {number}", f"{self.prefix}{number}"]

    def read(self, text: str, today: date) -> Value:
        found = re.fullmatch(rf"{self.prefix}[- ]?(\d{{{self.digits}}})", text, re.IGNORECASE)
        if found is None:
            raise unreadable(text, f"id of the form {self.of(1)}")
        return self.of(int(found[1]))


@dataclass(frozen=True)
class Reference(Identifier):
    """The id of a record of another entity."""

    entity: str = ""


@dataclass(frozen=True)
class Choice(Kind):
    """One of some options, which are words joined by underscores."""

    options: tuple[str, ...]

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.options)}

    def accepts(self, value: Value) -> bool:
        return isinstance(value, str) and value in self.options

    def draw(self, rng: random.Random, today: date) -> Value:
        return rng.choice(self.options)

    def forms(self, value: Value, today: date) -> list[str]:
        words = spoken(value)
        return distinct([words, words.capitalize(), value, f'"{words}"'])

    def read(self, text: str, today: date) -> Value:
        said = _unquoted(text).lower().replace(" ", "_")
        for option in self.options:
            if option.lower() == said:
                return option
        raise unreadable(text, f"option of {', '.join(self.options)}")


@dataclass(frozen=True)
class Flag(Kind):
    """Yes or no."""

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def accepts(self, value: Value) -> bool:
        return isinstance(value, bool)

    def draw(self, rng: random.Random, today: date) -> Value:
        return rng.random() < 0.5

    def forms(self, value: Value, today: date) -> list[str]:
        return ["yes", "on", "true"] if value else ["no", "off", "false"]

    def read(self, text: str, today: date) -> Value:
        for value in (True, False):
            if text.lower() in self.forms(value, today):
                return value
        raise unreadable(text, "yes or no")
