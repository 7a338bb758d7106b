"""Server-sent events out of bytes that arrive in any pieces (WHATWG HTML, section 9.2.6).

Only ``data`` is used by the servers we speak to; comments (keep-alive) and other fields are
passed over.
"""

from __future__ import annotations

import re

DONE = "[DONE]"
"""The data of the last event, in OpenAI's protocol."""

_LINE_END = re.compile(rb"\r\n|\n|\r")


class SseParser:
    """Feed it bytes, get the data of each event that they complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, received: bytes) -> list[str]:
        """The events that end within ``received``."""
        text = self._rest + received
        # A carriage return at the end may be the first half of a line end.
        held = b"\r" if text.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(text[: len(text) - len(held)])
        self._rest = rest + held
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: bytes) -> str | None:
        if not line:
            event, self._data = "\n".join(self._data), []
            return event or None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode(errors="replace"))
        return None
