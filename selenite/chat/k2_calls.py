"""Kimi K2's tool calls: special tokens around ids and JSON (Moonshot's tool_call_guidance.md).

    <|tool_calls_section_begin|> CALL CALL ... <|tool_calls_section_end|>
    CALL = <|tool_call_begin|>functions.NAME:IDX<|tool_call_argument_begin|>{...}<|tool_call_end|>

Read more widely than written: the section tokens may be missing, a call may be ended by the next
one, and text without tokens may spell the section in the singular.
"""

from __future__ import annotations

from collections.abc import Collection

from selenite.chat.call_format import (
    CallFormat,
    CallReader,
    CallTag,
    begins_marker,
    find_marker,
    marker_at_start,
)
from selenite.chat.call_ids import CallIds, name_in_id
from selenite.chat.events import Event, Malformed, MalformedReason
from selenite.chat.json_scanner import JsonScanner

SECTION_BEGIN = "<|tool_calls_section_begin|>"
SECTION_END = "<|tool_calls_section_end|>"
CALL_BEGIN = "<|tool_call_begin|>"
ARGUMENT_BEGIN = "<|tool_call_argument_begin|>"
CALL_END = "<|tool_call_end|>"
_SECTION_BEGINS = (SECTION_BEGIN, "<|tool_call_section_begin|>")
_SECTION_ENDS = (SECTION_END, "<|tool_call_section_end|>")


class K2Format(CallFormat):
    """See the head of the file."""

    name = "k2"
    openers = (*_SECTION_BEGINS, CALL_BEGIN)
    markers = (*_SECTION_BEGINS, *_SECTION_ENDS, CALL_BEGIN, ARGUMENT_BEGIN, CALL_END)
    tokens = (SECTION_BEGIN, SECTION_END, CALL_BEGIN, ARGUMENT_BEGIN, CALL_END)
    trigger = CALL_BEGIN
    section = (SECTION_BEGIN, SECTION_END)
    padding = ""
    ends_reasoning = True

    def tag(self, tool_name: str) -> CallTag:
        return CallTag(
            f"{CALL_BEGIN}functions.{tool_name}:", "[0-9]{1,4}", ARGUMENT_BEGIN, CALL_END
        )

    def reader(
        self,
        opener: str,
        text_markers: Collection[str],
        ids: CallIds,
        next_index: int,
        out: list[Event],
    ) -> CallReader:
        return _K2Reader(opener, text_markers, ids, next_index, out)


class _K2Reader(CallReader):
    def __init__(
        self,
        opener: str,
        text_markers: Collection[str],
        ids: CallIds,
        next_index: int,
        out: list[Event],
    ) -> None:
        super().__init__(ids, next_index, out)
        self._text_markers = text_markers
        self._section = "" if opener == CALL_BEGIN else opener
        self._state = "between"
        self._stray = ""  # text between calls
        self._empty = True  # nothing was called, or tried, in this section
        if opener == CALL_BEGIN:
            self._begin_call()

    def _piece(self, text: str, final: bool) -> int:
        if self._state == "arguments" and not self._fault:
            return self._arguments_piece(text, final)
        place, marker = find_marker(text, self._text_markers)
        if marker and not place:
            self.marker(marker)
            return len(marker)
        if final and not marker:
            place = len(text)
        self._take(text[:place])
        return place

    def _take(self, text: str) -> None:
        if self._state == "between":
            self._stray += text
            return
        self._raw += text
        if self._state == "id":
            self._id += text

    def _arguments_piece(self, text: str, final: bool) -> int:
        taken = self._scanner.feed(text)
        if not taken and self._scanner.complete:
            taken = len(text) - len(text.lstrip(" \t\r\n"))
        if taken:
            self._raw += text[:taken]
            self._written(text[:taken])
            return taken
        marker = marker_at_start(text, self._text_markers)
        if marker:
            self.marker(marker)
            return len(marker)
        if not final and begins_marker(text, self._text_markers):
            return 0
        if self._scanner.complete:
            self._fail(MalformedReason.INVALID_JSON, "text after the object of arguments")
        elif not self._scanner.started:
            self._fail(MalformedReason.NOT_AN_OBJECT, f"arguments: {self._scanner.fault}")
        else:
            self._fail(MalformedReason.INVALID_JSON, f"arguments: {self._scanner.fault}")
        return self._piece(text, final)

    def _written(self, text: str) -> None:
        """More of the arguments; the call starts with their opening brace."""
        if self._index is None:
            self._lead += text
            if not self._scanner.started:
                return
            name = name_in_id(self._id)
            assert name is not None, f"the id {self._id!r} was not checked"
            self._start(name, self._id)
            text = self._lead
        self._arguments(text)

    def marker(self, name: str) -> None:
        if self._state == "between":
            self._marker_between(name)
            return
        if self._state == "id" and name == ARGUMENT_BEGIN:
            self._raw += name
            self._state = "arguments"
            if name_in_id(self._id) is None:
                self._fail(MalformedReason.BAD_ID, f"the id {self._id!r} is not functions.NAME:IDX")
        elif name == CALL_END:
            self._raw += name
            self._end_call()
            self.done = not self._section
        elif name == CALL_BEGIN:
            self._end_call()
            self._begin_call()
        elif name in _SECTION_ENDS:
            self._end_call()
            self.done = True
        else:
            self._raw += name
            self._fail(MalformedReason.STRAY_TOKEN, f"{name} inside a call")

    def _marker_between(self, name: str) -> None:
        self._end_stray()
        if name == CALL_BEGIN:
            self._begin_call()
        elif name in _SECTION_ENDS:
            if self._empty:
                self._raw = self._section + name
                self._malformed(MalformedReason.EMPTY_SECTION, "a section without calls")
            self.done = True
        else:
            detail = f"{name} between calls"
            self._out.append(Malformed(None, MalformedReason.STRAY_TOKEN, detail, name))

    def end(self) -> None:
        if self._state != "between":
            self._end_call(truncated=True)
        self._end_stray()
        if self._empty:
            self._raw = self._section
            self._malformed(MalformedReason.TRUNCATED, "the reply ends before the first call")
        self.done = True

    def _begin_call(self) -> None:
        self._empty = False
        self._state = "id"
        self._raw = CALL_BEGIN
        self._id = ""
        self._lead = ""  # written before the opening brace
        self._scanner = JsonScanner()
        self._fault: tuple[MalformedReason, str] | None = None

    def _fail(self, reason: MalformedReason, detail: str) -> None:
        """The first fault of a call counts; the event waits for all of its text."""
        self._fault = self._fault or (reason, detail)

    def _end_call(self, truncated: bool = False) -> None:
        if truncated:
            reason, detail = MalformedReason.TRUNCATED, "the reply ends inside the call"
        elif self._state == "id" or not self._lead.strip():
            reason, detail = MalformedReason.NO_ARGUMENTS, "no arguments, not even {}"
        else:
            reason, detail = MalformedReason.INVALID_JSON, "the object of arguments is not closed"
        if self._fault or not self._scanner.complete:
            self._malformed(*(self._fault or (reason, detail)))
        else:
            self._finished()
        self._state = "between"

    def _end_stray(self) -> None:
        if self._stray.strip():
            detail = "text between calls"
            self._out.append(Malformed(None, MalformedReason.STRAY_TEXT, detail, self._stray))
            self._empty = False
        self._stray = ""
