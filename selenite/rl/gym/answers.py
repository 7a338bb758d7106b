"""Exact answers: numbers, polynomials, solutions and intervals, read without evaluating anything.

Each ``…Answer`` judges a text. What is read is bounded in length, digits, exponents and depth, so
that no text takes time. All arithmetic is of fractions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from selenite.rl.gym.environment import Check

_DIGITS = 40  # of a number, at most
_EXPONENT = 30  # of ten
_POWER = 12  # of a variable, of one product's factors together
_TOKENS = 80  # of an expression
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+|(?=\.))(?:\.[0-9]+)?"
    r"(?:e[+-]?[0-9]{1,2})?(?:/[0-9]+)?",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]+)?)|([a-z])|(\*\*|[-+*/^()]))")


class AnswerError(Exception):
    """A text is no answer of the kind."""


@dataclass(frozen=True)
class NumberAnswer:
    """One number. ``unit``: may stand after it, or before it as currencies do; no other may."""

    value: Fraction
    unit: str = ""

    def __call__(self, text: str) -> Check:
        """Judges a text."""
        plain = _plain(text)
        if self.unit:
            lowered, unit = plain.lower(), self.unit.lower()
            if lowered.endswith(unit):
                plain = plain[: -len(unit)].strip()
            elif lowered.startswith(unit):
                plain = plain[len(unit) :].strip()
        try:
            return _verdict(number(plain) == self.value, f"it is {self.value}")
        except AnswerError as error:
            return Check("answer", 0.0, str(error))


@dataclass(frozen=True)
class PolynomialAnswer:
    """A polynomial in one variable, multiplied out and with like terms together."""

    coefficients: Mapping[int, Fraction]  # by power; none is 0
    variable: str = "x"

    def __call__(self, text: str) -> Check:
        """Judges a text; the right value in another form is not an answer."""
        plain = _plain(text)
        try:
            found = polynomial(plain, self.variable)
        except AnswerError as error:
            return Check("answer", 0.0, str(error))
        if found != dict(self.coefficients):
            return Check("answer", 0.0, "another polynomial")
        is_simple = "(" not in plain and _num_terms(plain) == max(1, len(self.coefficients))
        return _verdict(is_simple, "right, but not simplified")


@dataclass(frozen=True)
class RootsAnswer:
    """All solutions of an equation, in any order: ``2, -3``, ``x = 2 or x = -3``."""

    values: frozenset[Fraction]
    variable: str = "x"

    def __call__(self, text: str) -> Check:
        """Judges a text."""
        parts = re.split(r",|;|\bor\b|\band\b", _plain(text).strip("{} "))
        try:
            found = [number(_without_name(part, self.variable)) for part in parts]
        except AnswerError as error:
            return Check("answer", 0.0, str(error))
        if len(set(found)) != len(found):
            return Check("answer", 0.0, "a solution is given twice")
        return _verdict(set(found) == self.values, f"{len(self.values)} others are")


@dataclass(frozen=True)
class IntervalAnswer:
    """A half line: ``x < 2``, ``2 > x``, ``(-inf, 2)``."""

    bound: Fraction
    is_below: bool  # numbers below the bound
    is_closed: bool  # the bound itself, too
    variable: str = "x"

    def __call__(self, text: str) -> Check:
        """Judges a text."""
        try:
            found = half_line(_plain(text), self.variable)
        except AnswerError as error:
            return Check("answer", 0.0, str(error))
        wanted = (self.bound, self.is_below, self.is_closed)
        return _verdict(found == wanted, "another set of numbers")


def number(text: str) -> Fraction:
    """``12``, ``1,200``, ``-0.5``, ``3/4``, ``2.5e3``; raises ``AnswerError`` for all else."""
    text = text.strip().replace("−", "-")
    if _NUMBER.fullmatch(text) is None or not any(map(str.isdecimal, text)):
        raise AnswerError(f"{text[:40]!r} is no number")
    if sum(map(str.isdecimal, text)) > _DIGITS:
        raise AnswerError(f"a number of over {_DIGITS} digits")
    above, _, below = text.replace(",", "").partition("/")
    mantissa, _, exponent = above.lower().partition("e")
    if exponent and abs(int(exponent)) > _EXPONENT:
        raise AnswerError(f"an exponent beyond {_EXPONENT}")
    if below and int(below) == 0:
        raise AnswerError("divided by 0")
    value = Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
    return value / int(below) if below else value


def polynomial(text: str, variable: str) -> dict[int, Fraction]:
    """Coefficients by power of sums, differences and products; raises ``AnswerError``."""
    reader = _Reader(tokens(text), variable)
    found = reader.sum(0)
    if reader.rest:
        raise AnswerError(f"{reader.rest[0]!r} is not understood")
    return {power: value for power, value in found.items() if value}


def half_line(text: str, variable: str) -> tuple[Fraction, bool, bool]:
    """Its bound, whether numbers lie below it, and whether it belongs to them."""
    text = text.replace("≤", "<=").replace("≥", ">=").replace("∞", "inf")
    text = text.replace("infinity", "inf").replace("−", "-")
    interval = re.fullmatch(r"([(\[])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([)\]])", text)
    if interval is not None:
        left, low, high, right = interval.groups()
        if low in ("-inf",) and left == "(":
            return number(high), True, right == "]"
        if high in ("inf", "+inf") and right == ")":
            return number(low), False, left == "["
        raise AnswerError("an interval without an infinite side")
    relation = re.fullmatch(r"([^<>=]+?)\s*(<=|>=|<|>)\s*([^<>=]+)", text)
    if relation is None:
        raise AnswerError(f"{text[:40]!r} is no inequality")
    left, sign, right = (part.strip() for part in relation.groups())
    if left == variable:
        return number(right), sign[0] == "<", sign.endswith("=")
    if right == variable:
        return number(left), sign[0] == ">", sign.endswith("=")
    raise AnswerError(f"{variable} does not stand alone on a side")


class _Reader:
    """Reads tokens by the usual precedence. A polynomial is a table of coefficients by power."""

    def __init__(self, tokens: list[str], variable: str) -> None:
        self.rest = tokens
        self._variable = variable

    def sum(self, depth: int) -> dict[int, Fraction]:
        """Terms with signs between them."""
        if depth > 8:
            raise AnswerError("parentheses in parentheses, too deep")
        total = dict[int, Fraction]()
        sign = self._sign(1)
        while True:
            for power, value in self._product(depth).items():
                total[power] = total.get(power, Fraction(0)) + sign * value
            if not self.rest or self.rest[0] not in "+-":
                return total
            sign = self._sign(1)

    def _sign(self, sign: int) -> int:
        while self.rest and self.rest[0] in ("+", "-"):
            sign = -sign if self.rest.pop(0) == "-" else sign
        return sign

    def _product(self, depth: int) -> dict[int, Fraction]:
        total = self._power(depth)
        while self.rest and self.rest[0] not in ("+", "-", ")"):
            divides = self.rest[0] == "/"
            if self.rest[0] in ("*", "/"):
                self.rest.pop(0)
            factor = self._power(depth)
            if divides:
                if set(factor) - {0} or not factor.get(0):
                    raise AnswerError("divided by something other than a number")
                factor = {0: 1 / factor[0]}
            total = _times(total, factor)
        return total

    def _power(self, depth: int) -> dict[int, Fraction]:
        base = self._atom(depth)
        if not self.rest or self.rest[0] not in ("^", "**"):
            return base
        self.rest.pop(0)
        if not self.rest or not self.rest[0].isdecimal() or int(self.rest[0]) > _POWER:
            raise AnswerError(f"a power that is no number up to {_POWER}")
        total = {0: Fraction(1)}
        for _ in range(int(self.rest.pop(0))):
            total = _times(total, base)
        return total

    def _atom(self, depth: int) -> dict[int, Fraction]:
        if not self.rest:
            raise AnswerError("it ends too early")
        token = self.rest.pop(0)
        if token == "(":
            inner = self.sum(depth + 1)
            if not self.rest or self.rest.pop(0) != ")":
                raise AnswerError("a parenthesis is not closed")
            return inner
        if token == self._variable:
            return {1: Fraction(1)}
        return {0: number(token)}


def _times(left: Mapping[int, Fraction], right: Mapping[int, Fraction]) -> dict[int, Fraction]:
    total = dict[int, Fraction]()
    for p, a in left.items():
        for q, b in right.items():
            if p + q > _POWER:
                raise AnswerError(f"a power beyond {_POWER}")
            total[p + q] = total.get(p + q, Fraction(0)) + a * b
            if total[p + q].numerator.bit_length() + total[p + q].denominator.bit_length() > 512:
                raise AnswerError("numbers that are too large")
    return total


def tokens(text: str) -> list[str]:
    """Numbers, letters and signs of an expression; raises ``AnswerError``."""
    text = text.lower().replace("−", "-").replace("·", "*").replace("²", "^2").replace("³", "^3")
    found, place = list[str](), 0
    text = text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise AnswerError(f"{text[place : place + 10]!r} is not understood")
        found.append(next(filter(None, match.groups())))
        place = match.end()
        if len(found) > _TOKENS:
            raise AnswerError(f"an expression of over {_TOKENS} signs")
    return found


def _num_terms(text: str) -> int:
    """Signs that stand after something else than a sign part two terms."""
    read = tokens(text)
    return 1 + sum(b in "+-" and a not in "+-" for a, b in pairwise(read))


def _plain(text: str) -> str:
    """Without what Markdown and TeX put around, and a full stop."""
    text = text.strip().strip("$`* ")
    return text[:-1].rstrip("$`* ") if text.endswith(".") else text


def _without_name(text: str, variable: str) -> str:
    name, sign, value = text.partition("=")
    return value if sign and name.strip().lower() == variable else text


def _verdict(is_right: bool, reason: str) -> Check:
    return Check("answer", 1.0) if is_right else Check("answer", 0.0, reason)
