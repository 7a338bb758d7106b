"""How a model family writes tool calls: the interface of a format and of its reader.

``K2Format`` (``k2_calls.py``) and ``HermesFormat`` (``hermes_calls.py``) implement it. How calls
and results look in the history is the chat template's business; here is how they are recognised in
a reply, and what a grammar engine needs to force them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from selenite.chat.call_ids import CallIds
from selenite.chat.events import (
    ArgumentsDelta,
    CallFinished,
    CallStarted,
    Event,
    Malformed,
    MalformedReason,
)


@dataclass(frozen=True)
class CallTag:
    """A call of one tool as a grammar sees it, special tokens by name.

    ``begin``, what ``index_pattern`` matches, ``arguments_begin``, an object of the tool's schema,
    ``end``. xgrammar: a tag of ``triggered_tags`` whose content is that sequence.
    """

    begin: str  # starts with the format's trigger
    index_pattern: str  # regular expression; "": nothing
    arguments_begin: str
    end: str


class CallReader(ABC):
    """Reads calls from an opening marker on until ``done``; the reply around them is not its own.

    Events are appended to ``out``. The text it is given may be cut anywhere.
    """

    def __init__(self, ids: CallIds, next_index: int, out: list[Event]) -> None:
        self.done = False
        self.next_index = next_index
        self._ids = ids
        self._out = out
        self._index: int | None = None  # of the call that has started
        self._raw = ""  # the call, or what was meant as one, as written

    @abstractmethod
    def marker(self, name: str) -> None:
        """A special token, or a marker found in the text: of this format, or any other."""

    @abstractmethod
    def end(self) -> None:
        """The reply is over, wherever the reader stands."""

    @abstractmethod
    def _piece(self, text: str, final: bool) -> int:
        """As ``text``, once; 0 if nothing more can be taken yet."""

    def text(self, text: str, final: bool) -> int:
        """Takes text from the start; returns how much.

        What is left may begin a marker, or belongs to what follows when ``done``. With ``final``
        a special token or the end follows, so that nothing is left back.
        """
        place = 0
        while place < len(text) and not self.done:
            taken = self._piece(text[place:], final)
            if not taken:
                break
            place += taken
        return place

    def _start(self, name: str, written_id: str | None) -> None:
        self._index = self.next_index
        self.next_index += 1
        id = self._ids.admit(name, written_id or "")
        written = None if written_id == id else written_id
        self._out.append(CallStarted(self._index, id, name, written))

    def _arguments(self, text: str) -> None:
        assert self._index is not None, f"arguments {text!r} of no call"
        if text:
            self._out.append(ArgumentsDelta(self._index, text))

    def _finished(self) -> None:
        assert self._index is not None, f"{self._raw!r} finished and never started"
        self._out.append(CallFinished(self._index))
        self._index, self._raw = None, ""

    def _malformed(self, reason: MalformedReason, detail: str) -> None:
        self._out.append(Malformed(self._index, reason, detail, self._raw))
        self._index, self._raw = None, ""


class CallFormat(ABC):
    """What one model family writes; stateless."""

    name: str
    openers: tuple[str, ...]  # markers that begin calls
    markers: tuple[str, ...]  # all of them, openers too
    tokens: tuple[str, ...]  # markers that must be special tokens, where ids are read
    trigger: str  # a grammar engine takes over when the model has written this
    section: tuple[str, str] | None  # stands around all calls of a turn; None: nothing does
    padding: str  # characters beside calls that are no content
    ends_reasoning: bool  # an opener in an unclosed reasoning section ends it

    @abstractmethod
    def tag(self, tool_name: str) -> CallTag:
        """The call of this tool, for a grammar."""

    @abstractmethod
    def reader(
        self,
        opener: str,
        text_markers: Collection[str],
        ids: CallIds,
        next_index: int,
        out: list[Event],
    ) -> CallReader:
        """Reads calls, after ``opener``; ``text_markers`` are those to be looked for in text."""


def find_marker(text: str, markers: Collection[str]) -> tuple[int, str | None]:
    """Place and name of the first marker in ``text``.

    Without one: the place from which the text may yet become one, or its end, and None.
    """
    found = [(place, name) for name in markers if (place := text.find(name)) >= 0]
    if found:
        return min(found)
    longest = max(map(len, markers), default=1) - 1
    for place in range(max(0, len(text) - longest), len(text)):
        if begins_marker(text[place:], markers):
            return place, None
    return len(text), None


def begins_marker(text: str, markers: Collection[str]) -> bool:
    """Whether ``text`` is the beginning of a marker and not all of it."""
    return any(name.startswith(text) and name != text for name in markers)


def marker_at_start(text: str, markers: Collection[str]) -> str | None:
    """The marker that ``text`` begins with; no marker begins with another."""
    return next((name for name in markers if text.startswith(name)), None)
