"""Names in a text: words with a capital that no sentence, title or quotation explains.

Scripts without capitals have none. Part of the facts (``facts.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from selenite.agent.rephrasing.blocks import LIST_MARK, BlockKind, blocks_of, lines_of
from selenite.agent.rephrasing.language import language_of
from selenite.agent.rephrasing.sentences import sentences_of

WORD = re.compile(r"[^\W_](?:[\w+#]|[-'’.&](?=[^\W_]))*")
_POSSESSIVE = re.compile(r"['’]s?$")
# After these a capital is due.
_FIRST = re.compile(r"[:;–—(\[\"“„«‘'•*>/|=]\s*$|(?:^|\s)-\s*$|\.\.\.\s*$")
_LEAST_TITLE = 0.6  # of the words of a line with capitals, from which on it is a title
_NO_NAMES = frozenset({"I", "OK", "A"})


def words_in(text: str) -> frozenset[str]:
    """The words of a text without regard to capitals, and the parts of those with hyphens."""
    found: set[str] = set()
    for match in WORD.finditer(text):
        word = plain(match[0]).casefold()
        found.add(word)
        found.update(re.split(r"[-'’.]", word))
    return frozenset(found)


def small_words_in(text: str) -> frozenset[str]:
    """Words that a text writes with a small letter."""
    return frozenset(match[0] for match in WORD.finditer(text) if match[0][0].islower())


def plain(word: str) -> str:
    """A word without the ``'s`` of possession."""
    return word if word.isalnum() else _POSSESSIVE.sub("", word)


def is_coined(word: str) -> bool:
    """NASA, OpenAI, H200: no plain word is written so."""
    if word.isalpha() and word[1:].islower():
        return False
    if word.isupper() and word.isalpha():
        return len(word) >= 2 and word not in _NO_NAMES
    has_digit = any(c.isdigit() for c in word) and word[0].isalpha()
    has_inner = any(c.isupper() for c in word[1:]) and any(c.islower() for c in word)
    return has_digit or has_inner


def names_in(text: str) -> frozenset[str]:
    """Words that must be names, wherever they stand in the text."""
    needs_two = language_of(text) == "de"  # every noun has a capital there
    found: set[str] = set()
    for sentence in _sentences(text):
        words = [(match, plain(match[0])) for match in WORD.finditer(sentence)]
        if _is_title(sentence, [word for _, word in words]):
            continue
        previous = ""
        for place, (match, word) in enumerate(words):
            start = match.start()
            begins = place == 0 or bool(_FIRST.search(sentence, max(0, start - 6), start))
            has_company = bool(previous) and sentence.endswith(f"{previous} ", 0, start)
            if is_coined(word) or (
                word[0].isupper()
                and word not in _NO_NAMES
                and not word.startswith(("I'", "I’"))
                and not begins
                and (has_company or not needs_two)
            ):
                found.add(word)
            previous = word if word[0].isupper() and not begins else ""
    return frozenset(found)


def _sentences(text: str) -> Iterator[str]:
    for block in blocks_of(text):
        if block.kind is BlockKind.PROSE:
            yield from map(str.strip, sentences_of(block.text))
        elif block.kind is BlockKind.LIST:
            for line in lines_of(block.text):
                yield from map(str.strip, sentences_of(LIST_MARK.sub("", line, count=1)))


def _is_title(sentence: str, words: list[str]) -> bool:
    long = [word for word in words if len(word) > 3 and word[0].isalpha()]
    if sentence.isupper() and len(words) > 2:
        return True
    if len(long) < 2 or sentence.endswith((".", "!", "?", ":", ";", ",")):
        return False
    return sum(word[0].isupper() for word in long) >= _LEAST_TITLE * len(long)
