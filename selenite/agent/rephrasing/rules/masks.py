"""What no rule may touch stands behind a sign while words change: code, quotations, addresses."""

from __future__ import annotations

import re

_FIRST = 0xF0000  # private use: no language has these
_LAST = 0xFFFFD
_SPARED = re.compile(
    r"(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\s*\n)(?s:.)){1,300}?(?<!`)(?P=ticks)(?!`)(?:_+)?"
    r"|!?\[[^\]\n]{0,200}\](?:\([^)\s]{0,400}\)|\[[^\]\n]{0,200}\])"  # links
    r"|(?:https?|ftp|file)://[^\s<>)\]\"'`]+[^\s<>)\]\"'`.,;:!?]"
    r"|<[^<>\s][^<>\n]{0,80}>|\$[^$\s][^$\n]{0,120}\$|\{[^{}\n]{0,200}\}"
    r"|“[^”]{0,400}”|„[^“”]{0,400}[“”]|«[^»]{0,400}»|「[^」]{0,400}」"
    r"|(?<!\w)\"[^\"\s][^\"]{0,400}\"(?!\w)"
    r"|\*\*[^*\n]{1,200}\*\*|(?<![\w*])\*[^*\s][^*\n]{0,200}\*(?!\w)"  # emphasis
    r"|[\U000f0000-\U000ffffd]"
)


class Masks:
    """The signs of one passage."""

    def __init__(self) -> None:
        self._spared: list[str] = []

    def hide(self, text: str) -> str:
        """The text with one sign for each part that is spared."""
        return _SPARED.sub(self._take, text)

    def show(self, text: str) -> str:
        """The text as it was meant."""
        return re.sub(f"[{chr(_FIRST)}-{chr(_LAST)}]", self._give, text)

    def _take(self, match: re.Match[str]) -> str:
        assert _FIRST + len(self._spared) <= _LAST, len(self._spared)
        self._spared.append(" ".join(match[0].split()) if "\n" in match[0] else match[0])
        return chr(_FIRST + len(self._spared) - 1)

    def _give(self, match: re.Match[str]) -> str:
        return self._spared[ord(match[0]) - _FIRST]
