"""Stop strings in a text that is still being written.

Text is given out once it cannot be the beginning of a stop string any more, so nothing after the
end of the completion ever leaves, however the text is cut into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Finds the stop string that is complete first; of those complete at once, the longest.

    ``include``: the stop string itself is given out too.
    """

    def __init__(self, strings: Sequence[str], include: bool = False) -> None:
        assert all(strings), strings
        self._strings = tuple(strings)
        self._include = include
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """The text that is certain with this piece; "" from the stop string on."""
        if self.found is not None:
            return ""
        self._held += text
        matches = [
            (place + len(string), -len(string), string)
            for string in self._strings
            if (place := self._held.find(string)) >= 0
        ]
        if matches:
            end, _, self.found = min(matches)
            return self._take(end if self._include else end - len(self.found))
        return self._take(len(self._held) - self._longest_beginning())

    def is_completed_by(self, text: str) -> bool:
        """Whether a stop string would be found with this piece, which is not taken."""
        return self.found is None and any(s in self._held + text for s in self._strings)

    def flush(self) -> str:
        """What was held back: no stop string follows."""
        return self._take(len(self._held)) if self.found is None else ""

    def _take(self, count: int) -> str:
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _longest_beginning(self) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        longest = max(map(len, self._strings), default=1) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            if any(string.startswith(self._held[-count:]) for string in self._strings):
                return count
        return 0
