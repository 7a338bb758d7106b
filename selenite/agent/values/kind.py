"""What a field of a record may hold.

A ``Kind`` draws values, describes them as JSON schema, says them as people do and reads them back:
``read`` of each of ``forms`` is the value again. Values are JSON, and ``canonical`` ones that are
equal have equal JSON; those that are drawn or read are.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from selenite.errors import DataError

Value = Any  # JSON: str, int, float, bool, list or dict


@dataclass(frozen=True)
class Kind(ABC):
    """One kind of value. ``today`` is the world's, for what is said relative to it."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """JSON schema of the values; a new one each time."""

    @abstractmethod
    def accepts(self, value: Value) -> bool:
        """Whether ``schema`` accepts a value."""

    def canonical(self, value: Value) -> Value:
        """An accepted value in the one form in which records hold it: 3.0 is 3 where a count is
        due, 20260105 is 2026-01-05 where a day is."""
        return value

    @abstractmethod
    def draw(self, rng: random.Random, today: date) -> Value:
        """A value."""

    @abstractmethod
    def forms(self, value: Value, today: date) -> list[str]:
        """Ways to say a value, the plainest first; all different."""

    @abstractmethod
    def read(self, text: str, today: date) -> Value:
        """The value of one of the ``forms``. Raises ``DataError`` for any other text."""

    def say(self, value: Value, rng: random.Random, today: date) -> str:
        """The value in words."""
        return rng.choice(self.forms(value, today))


def spoken(name: str) -> str:
    """A name as people say it."""
    return name.replace("_", " ")


def joined(items: Sequence[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


LARGEST = 2**53
"""Beyond, whole numbers are not the same to every reader of JSON."""


def is_number(value: Value) -> bool:
    """What JSON schema calls a number, if every reader of JSON reads the same; in Python True,
    Infinity and NaN are some, too."""
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_one and -LARGEST <= value <= LARGEST


def is_integer(value: Value) -> bool:
    """What JSON schema calls an integer: 3.0 is one."""
    return is_number(value) and value == int(value)


def is_text(value: Value) -> bool:
    """A string that has a UTF-8; half of a surrogate pair has none."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def unreadable(text: str, kind: str) -> DataError:
    """The error of a text that is none of a kind's forms."""
    return DataError(f"{text!r} is no {kind}; it must be one of the forms that the kind says")


def distinct(forms: list[str]) -> list[str]:
    """Each form once, in order."""
    return list(dict.fromkeys(forms))
