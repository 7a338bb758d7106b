"""Where sentences end. Those of a text, joined, are the text."""

from __future__ import annotations

import re

_END = re.compile(
    r"""(?<![.!?…])(?P<mark>[.!?…]+)["'”’»)\]*_`]*\s+   # then a space
      | [。！？]+[」』”）]*\s*                # or none, in scripts without
    """,
    re.VERBOSE,
)
_NO_END = re.compile(
    r"mr|mrs|ms|dr|prof|st|no|nos|vs|cf|al|fig|figs|eq|eqs|sec|ch|vol|pp|ca|approx|inc|ltd|co|corp"
    r"|dept|gen|col|sgt|rev|hon|jr|sr|e\.g|i\.e|etc|a\.m|p\.m|u\.s|u\.k|ph\.d|resp|ed|eds"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|z\.b|d\.h|bzw|usw",
    re.IGNORECASE,
)
_LAST_WORD = re.compile(r"[^\W\d_](?:[\w.]*[^\W_])?$")


def sentences_of(text: str) -> list[str]:
    """The sentences of a paragraph, each with the space that follows it."""
    found, begin = [], 0
    for end in _END.finditer(text):
        if end.end() < len(text) and (end["mark"] is None or _ends(text, end)):
            found.append(text[begin : end.end()])
            begin = end.end()
    if begin < len(text):
        found.append(text[begin:])
    return found


def _ends(text: str, end: re.Match[str]) -> bool:
    """Whether a sentence ends here: not behind an abbreviation, nor before a small letter."""
    if text[end.end()].islower():
        return False
    if end["mark"] != ".":
        return True
    word = _LAST_WORD.search(text, max(0, end.start() - 20), end.start())
    if word is None:
        return True
    is_initial = len(word[0]) == 1 and word[0].isupper() and word[0] != "I"
    return not is_initial and not _NO_END.fullmatch(word[0])
