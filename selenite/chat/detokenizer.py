"""Token ids to text one id at a time, with no character cut in two.

``Tokenizer.decode`` of a few ids at the end is enough to know what an id adds: UTF-8 finds its
place again after at most three bytes, and ids before the window change nothing after it.
"""

from __future__ import annotations

from selenite.chat.tokenizer import Tokenizer

_WINDOW = 8  # ids kept; a character has at most 4 bytes, and an id at least one
_REPLACEMENT = "\ufffd"


class Detokenizer:
    """The text of a stream of ids; equal to decoding them all at once for byte-level vocabularies.

    Special tokens are not for it: its user looks at them first and calls ``flush``.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._given = 0  # characters of the window's text that were returned

    def push(self, id: int) -> str:
        """The text that is certain with this id; "" while a character is incomplete."""
        self._window.append(id)
        text = _certain(self._tokenizer.decode(self._window))
        piece = text[self._given :]
        self._given = len(text)
        if len(self._window) == 2 * _WINDOW:
            del self._window[:_WINDOW]
            self._given = len(_certain(self._tokenizer.decode(self._window)))
        return piece

    def flush(self) -> str:
        """What is left, incomplete characters as U+FFFD; begins anew."""
        piece = self._tokenizer.decode(self._window)[self._given :] if self._window else ""
        self._window, self._given = [], 0
        return piece


def _certain(text: str) -> str:
    """Without the replacement characters at the end that further bytes may mend."""
    end = len(text)
    while end > max(0, len(text) - 3) and text[end - 1] == _REPLACEMENT:
        end -= 1
    return text[:end]
