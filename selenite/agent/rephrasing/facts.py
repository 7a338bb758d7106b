"""What a text states that code can check: code, quotations, dates, numbers, names.

``facts_of`` is strict, it lists what must be in a rewrite; ``Evidence`` is lenient, it says
whether a text has a fact in any of its forms. Both together give recall and precision
(``fidelity.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property

from selenite.agent.rephrasing.blocks import BlockKind, blocks_of
from selenite.agent.rephrasing.names import names_in, plain, words_in
from selenite.agent.rephrasing.numerals import (
    dates_in,
    numbers_in,
    numbers_in_words,
    parts_of,
    telling_numbers_in,
)


class FactKind(StrEnum):
    """What a fact is."""

    CODE = "code"  # blocks, inline code, addresses, identifiers
    QUOTES = "quotes"
    DATES = "dates"
    NUMBERS = "numbers"
    NAMES = "names"


Facts = Mapping[FactKind, frozenset[str]]

_FENCE_LINES = re.compile(r"^\s*(?:`{3,}|~{3,}).*$\n?", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)(`+)(?!`)((?:(?!\n\s*\n).){1,300}?)(?<!`)\1(?!`)", re.DOTALL)
_ADDRESS = re.compile(
    r"(?:https?|ftp|file)://[^\s<>)\]\"'`]+[^\s<>)\]\"'`.,;:!?]|(?<![\w.+-])[\w.+-]{1,64}@[\w-]+\.[\w.]+\w"
)
_IDENTIFIER = re.compile(
    r"(?<![\w.])(?:--?[a-z][\w-]+|[A-Za-z_]\w*(?:(?:\.|::)\w+){0,8}\(\)"
    r"|(?:\w+\.){0,8}\w*[^\W_]_\w+(?:\.\w+)*)"
)
_QUOTE = re.compile(
    r"“([^”]{2,400})”|„([^“”]{2,400})[“”]|«\s?([^»]{2,400}?)\s?»|(?<!\w)\"([^\"\s][^\"]{1,400})\"(?!\w)"
    r"|「([^」]{2,400})」"
)
_BLANK = re.compile(r"\n\s*\n")
_ENUMERATOR = re.compile(r"^[ \t]*(?:\d{1,3}|[a-z])[.)][ \t]+", re.MULTILINE)
_STRAIGHT = str.maketrans("“”„«»‘’", '"""""\'\'')


def facts_of(text: str, is_rewrite: bool = False) -> Facts:
    """The facts of a text. Of a rewrite, number words count too: they may be new."""
    quotes = frozenset(_flat(next(filter(None, m.groups()))) for m in _QUOTE.finditer(_prose(text)))
    code, rest = code_and_prose(text)
    dates, rest = dates_in(_ENUMERATOR.sub("", rest))
    return {
        FactKind.CODE: code,
        FactKind.QUOTES: quotes,
        FactKind.DATES: dates,
        FactKind.NUMBERS: telling_numbers_in(rest) if is_rewrite else numbers_in(rest),
        FactKind.NAMES: names_in(rest),
    }


class Evidence:
    """A text that may have facts."""

    def __init__(self, text: str) -> None:
        self._text = text

    def supports(self, kind: FactKind, fact: str) -> bool:
        """Whether the text has the fact, in whatever form."""
        match kind:
            case FactKind.CODE:
                return fact in self._lines if "\n" in fact else _flat(fact) in self._flat
            case FactKind.QUOTES:
                return fact in self._flat
            case FactKind.DATES:
                return fact in self._dates
            case FactKind.NUMBERS:
                return fact in self._numbers
        return plain(fact).casefold() in self._words

    @cached_property
    def _flat(self) -> str:
        return _flat(self._text)

    @cached_property
    def _lines(self) -> str:
        return _lines(self._text)

    @cached_property
    def _words(self) -> frozenset[str]:
        return words_in(self._text)

    @cached_property
    def _dates(self) -> frozenset[str]:
        found, _ = dates_in(self._text)
        return frozenset().union(*map(parts_of, found))

    @cached_property
    def _numbers(self) -> frozenset[str]:
        return numbers_in(self._text) | numbers_in_words(self._text)


def code_and_prose(text: str) -> tuple[frozenset[str], str]:
    """The code of a text, and the text without it."""
    found: set[str] = set()
    for block in blocks_of(text):
        if block.kind is BlockKind.VERBATIM:
            found.update(map(_lines, _BLANK.split(_FENCE_LINES.sub("\n\n", block.text))))

    def take(match: re.Match[str]) -> str:
        found.add(_flat(match[0] if match.lastindex is None else match[match.lastindex]))
        return " "

    prose = _prose(text)
    for pattern in (_INLINE, _ADDRESS, _IDENTIFIER):
        prose = pattern.sub(take, prose)
    return frozenset(found - {""}), prose


def _prose(text: str) -> str:
    """What is not in a block of code."""
    return "".join(b.text for b in blocks_of(text) if b.kind is not BlockKind.VERBATIM)


def _lines(text: str) -> str:
    """Lines without what is not seen: space at their ends, and blank ones."""
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


def _flat(text: str) -> str:
    """One line, with one kind of quotation marks."""
    return " ".join(text.translate(_STRAIGHT).split())
