"""Tool calls as JSON between tags: Hermes, Qwen, SmolLM2 and many others.

    <tool_call> {"name": NAME, "arguments": {...}} </tool_call>

A tag may hold a list of such objects (SmolLM2's form). Members may come in any order, and further
ones are passed over. The tags are plain text in most vocabularies; inside a JSON string they are
part of the string. A call that is complete needs no closing tag at the end of a reply.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from selenite.chat.call_format import (
    CallFormat,
    CallReader,
    CallTag,
    begins_marker,
    find_marker,
    marker_at_start,
)
from selenite.chat.call_ids import CallIds, is_tool_name
from selenite.chat.events import Event, MalformedReason
from selenite.chat.json_scanner import JsonScanner, Member

BEGIN = "<tool_call>"
END = "</tool_call>"
_SPACE = " \t\r\n"


class HermesFormat(CallFormat):
    """See the head of the file."""

    name = "hermes"
    openers = (BEGIN,)
    markers = (BEGIN, END)
    tokens = ()
    trigger = BEGIN
    section = None
    padding = _SPACE
    ends_reasoning = False  # one thinks about tags without calling

    def tag(self, tool_name: str) -> CallTag:
        begin = f'{BEGIN}\n{{"name": {json.dumps(tool_name, ensure_ascii=False)}, "arguments": '
        return CallTag(begin, "", "", f"}}\n{END}")

    def reader(
        self,
        opener: str,
        text_markers: Collection[str],
        ids: CallIds,
        next_index: int,
        out: list[Event],
    ) -> CallReader:
        return _HermesReader(text_markers, ids, next_index, out)


class _HermesReader(CallReader):
    def __init__(
        self, text_markers: Collection[str], ids: CallIds, next_index: int, out: list[Event]
    ) -> None:
        super().__init__(ids, next_index, out)
        self._text_markers = text_markers
        self._open_tag()

    def _open_tag(self) -> None:
        self._raw = BEGIN
        self._in_list = False
        self._empty = True  # no object was begun
        self._state = "open"
        self._fault: tuple[MalformedReason, str] | None = None

    def _piece(self, text: str, final: bool) -> int:
        if self._fault:
            place, marker = find_marker(text, self._text_markers)
            if marker and not place:
                self.marker(marker)
                return len(marker)
            place = len(text) if final and not marker else place
            self._raw += text[:place]
            return place
        taken = self._object_piece(text) if self._state == "object" else self._outside(text)
        if taken:
            return taken
        marker = marker_at_start(text, self._text_markers)
        if marker:
            self.marker(marker)
            return len(marker)
        if not final and begins_marker(text, self._text_markers):
            return 0
        self._fault = self._fault or self._unexpected(text[0])
        return self._piece(text, final)

    def _outside(self, text: str) -> int:
        """Space and the list around the objects."""
        char = text[0]
        if self._state in ("open", "item") and char == "{":
            self._begin_object()
            return self._object_piece(text)
        if self._state == "open" and char == "[":
            self._in_list, self._state = True, "item"
        elif self._state == "listed" and char == ",":
            self._state = "item"
        elif char == "]" and (self._state == "listed" or (self._in_list and self._empty)):
            self._state = "closed"
        elif char not in _SPACE:
            return 0
        self._raw += char
        return 1

    def _unexpected(self, char: str) -> tuple[MalformedReason, str]:
        if self._state in ("open", "item"):
            return MalformedReason.NOT_AN_OBJECT, f"a call begins with {char!r}, not with an object"
        if self._state == "object":
            return MalformedReason.INVALID_JSON, f"the call: {self._scanner.fault}"
        return MalformedReason.INVALID_JSON, "text after the call"

    def _begin_object(self) -> None:
        self._empty = False
        self._state = "object"
        self._scanner = JsonScanner()
        self._num_keys = 0  # members whose key was looked at
        self._name: str | None = None
        self._name_member: Member | None = None
        self._arguments_member: Member | None = None
        self._sent = 0

    def _object_piece(self, text: str) -> int:
        taken = self._scanner.feed(text)
        self._raw += text[:taken]
        # Also where nothing was taken: the next character may have ended a number.
        self._fault = self._look_at_members()
        if not self._fault and self._scanner.complete:
            self._fault = self._missing()
            if not self._fault:
                self._state = "closed"
                if self._in_list:
                    self._finished()
                    self._state = "listed"
        return taken

    def _look_at_members(self) -> tuple[MalformedReason, str] | None:
        """Follows "name" and "arguments" as far as they are written, in the order of writing."""
        for member in self._scanner.members[self._num_keys :]:
            fault = self._look_at_values()  # of the members before this one
            if fault:
                return fault
            self._num_keys += 1
            key = self._scanner.key(member)
            if key == "name":
                if self._name_member:
                    return MalformedReason.BAD_NAME, '"name" stands there twice'
                self._name_member = member
            elif key == "arguments":
                if self._arguments_member:
                    return MalformedReason.INVALID_JSON, '"arguments" stands there twice'
                self._arguments_member = member
        return self._look_at_values()

    def _look_at_values(self) -> tuple[MalformedReason, str] | None:
        member, text = self._name_member, self._scanner.text
        if self._name is None and member and member.end >= 0:
            name = json.loads(text[member.start : member.end])
            if not isinstance(name, str) or not is_tool_name(name):
                return MalformedReason.BAD_NAME, f'"name" is {json.dumps(name)}, no tool\'s name'
            self._name = name
        return self._send_arguments()

    def _send_arguments(self) -> tuple[MalformedReason, str] | None:
        member = self._arguments_member
        if member is None or member.start < 0:
            return None
        text = self._scanner.text
        if text[member.start] != "{":
            return MalformedReason.NOT_AN_OBJECT, f'"arguments" begins with {text[member.start]!r}'
        if self._name is None:
            return None
        if self._index is None:
            self._start(self._name, None)
            self._sent = member.start
        end = member.end if member.end >= 0 else len(text)
        self._arguments(text[self._sent : end])
        self._sent = end
        return None

    def _missing(self) -> tuple[MalformedReason, str] | None:
        if self._name is None:
            return MalformedReason.BAD_NAME, 'there is no "name"'
        if self._arguments_member is None:
            return MalformedReason.NO_ARGUMENTS, 'there are no "arguments", not even {}'
        return None

    def marker(self, name: str) -> None:
        if name == END:
            self._raw += name
            self._close(truncated=False)
            self.done = True
        elif name == BEGIN:
            self._close(truncated=False)
            self._open_tag()
        else:
            self._raw += name
            self._fault = self._fault or (
                MalformedReason.STRAY_TOKEN,
                f"{name} inside a call",
            )

    def end(self) -> None:
        self._close(truncated=True)
        self.done = True

    def _close(self, truncated: bool) -> None:
        if self._fault:
            self._malformed(*self._fault)
        elif self._state == "closed" and not self._empty:
            if not self._in_list:
                self._finished()
        elif truncated:
            self._raw = self._raw or f"{BEGIN}["  # after the finished calls of a list
            self._malformed(MalformedReason.TRUNCATED, "the reply ends inside the call")
        elif self._empty:
            self._malformed(MalformedReason.EMPTY_SECTION, "a tag without a call")
        else:
            self._raw = self._raw or f"{BEGIN}["
            self._malformed(MalformedReason.INVALID_JSON, "the call's object or list is not closed")
