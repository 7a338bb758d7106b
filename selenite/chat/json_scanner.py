"""One JSON object (RFC 8259) recognised while its text arrives, in pieces of any size.

The readers of tool calls (``k2_calls.py``, ``hermes_calls.py``) need to know where an object ends,
whether a character stands inside a string, and where the members of the outermost object lie. The
scanner looks at each character once, keeps no tree, and never recurses.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

MAX_DEPTH = 128  # nesting; deeper text is refused, since its readers recurse

_SPACE = " \t\n\r"
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')  # what a string holds as itself
_DIGITS = "0123456789"
_HEX = frozenset("0123456789abcdefABCDEF")
# State of a number to the characters that continue it; after a state in _WHOLE it may end.
_NUMBER: dict[str, tuple[tuple[str, str], ...]] = {
    "minus": (("0", "zero"), ("123456789", "int")),
    "zero": ((".", "dot"), ("eE", "e")),
    "int": ((_DIGITS, "int"), (".", "dot"), ("eE", "e")),
    "dot": ((_DIGITS, "fraction"),),
    "fraction": ((_DIGITS, "fraction"), ("eE", "e")),
    "e": (("+-", "sign"), (_DIGITS, "exponent")),
    "sign": ((_DIGITS, "exponent"),),
    "exponent": ((_DIGITS, "exponent"),),
}
_WHOLE = ("zero", "int", "fraction", "exponent")
_LITERALS = {"t": "rue", "f": "alse", "n": "ull"}
_VALUE_BEGINS = frozenset('{["-' + _DIGITS + "".join(_LITERALS))
_CLOSING = {"{": "}", "[": "]"}


@dataclass
class Member:
    """A member of the outermost object: offsets into the scanner's ``text``."""

    key_start: int  # the quote before the key
    key_end: int  # one past the quote after it
    start: int = -1  # first character of the value; -1: not there yet
    end: int = -1  # one past its last; -1: not over yet


class JsonScanner:
    """Reads one JSON object; ``text`` is what it has taken so far.

    ``fault`` says why the next character cannot follow; ``feed`` tries it again, so that a reader
    can look whether something else begins there. After the closing brace (``complete``) nothing
    more is taken.
    """

    def __init__(self) -> None:
        self.text = ""
        self.complete = False
        self.fault: str | None = None
        self.members: list[Member] = []
        self._state = "start"
        self._stack: list[str] = []
        self._rest = ""  # of a literal or of a \u escape
        self._is_key = False
        self._key_start = 0
        self._news = False  # ``members`` has changed in this ``feed``
        self._at = 0  # place in ``text`` of the character in hand

    @property
    def in_string(self) -> bool:
        return self._state in ("string", "escape", "hex")

    @property
    def started(self) -> bool:
        """The opening brace was read."""
        return bool(self._stack) or self.complete

    def key(self, member: Member) -> str:
        """The key of a member, unescaped."""
        key: str = json.loads(self.text[member.key_start : member.key_end])
        return key

    def feed(self, text: str) -> int:
        """Takes characters from the start of ``text`` while they fit; returns how many.

        It returns early where something about ``members`` has changed, so that what a reader
        concludes from them takes effect at the same character however the text is cut.
        """
        self.fault = None
        self._news = False
        place, base = 0, len(self.text)
        while place < len(text) and not self.complete and self.fault is None:
            if self._state == "string":
                match = _PLAIN.match(text, place)
                assert match is not None
                place = match.end()
                if place == len(text):
                    break
            self._at = base + place
            if self._take(text[place]):
                place += 1
                if self._news:
                    break
            elif self.fault is None:  # the character after a number, looked at again
                continue
        self.text += text[:place]
        return place

    def _take(self, char: str) -> bool:
        """One character; False where it was not taken: a fault, or the end of a number."""
        if self._state in _NUMBER:
            return self._number(char)
        if self._state in ("string", "escape", "hex", "literal"):
            return self._inside(char)
        if char in _SPACE:
            return True
        return self._structure(char)

    def _structure(self, char: str) -> bool:
        state = self._state
        if state == "start":
            return self._open(char) if char == "{" else self._wrong(char, "an object")
        if state in ("key", "first key") and char == '"':
            self._is_key, self._key_start, self._state = True, self._at, "string"
            return True
        if state == "colon" and char == ":":
            self._state = "value"
            return True
        if state == "after" and char == ",":
            self._state = "key" if self._stack[-1] == "{" else "value"
            return True
        if state in ("after", "first key", "first item") and char == _CLOSING[self._stack[-1]]:
            self._stack.pop()
            if self._stack:
                self._value_over(self._at + 1)
            else:
                self.complete = True
            return True
        if state in ("value", "first item"):
            return self._value(char)
        expected = {
            "key": "a key",
            "first key": "a key or '}'",
            "colon": "':'",
            "after": f"',' or {_CLOSING[self._stack[-1]]!r}",
        }
        return self._wrong(char, expected[state])

    def _value(self, char: str) -> bool:
        if char not in _VALUE_BEGINS:
            return self._wrong(char, "a value")
        if len(self._stack) == 1:
            self.members[-1].start = self._at
            self._news = True
        if char in "{[":
            return self._open(char)
        if char == '"':
            self._is_key, self._state = False, "string"
        elif char in _LITERALS:
            self._rest, self._state = _LITERALS[char], "literal"
        elif char == "-":
            self._state = "minus"
        else:
            self._state = "zero" if char == "0" else "int"
        return True

    def _open(self, char: str) -> bool:
        if len(self._stack) == MAX_DEPTH:
            self.fault = f"nested deeper than {MAX_DEPTH} at character {self._at}"
            return False
        self._stack.append(char)
        self._state = "first key" if char == "{" else "first item"
        return True

    def _inside(self, char: str) -> bool:
        if self._state == "string":
            if char == '"':
                self._string_over()
            elif char == "\\":
                self._state = "escape"
            else:
                return self._wrong(char, "an escape in place of a control character")
        elif self._state == "escape":
            if char == "u":
                self._rest, self._state = "xxxx", "hex"
            elif char in '"\\/bfnrt':
                self._state = "string"
            else:
                return self._wrong(char, "an escape that JSON has")
        elif self._state == "hex":
            if char not in _HEX:
                return self._wrong(char, "four hexadecimal digits")
            self._rest = self._rest[1:]
            self._state = "hex" if self._rest else "string"
        else:
            if char != self._rest[0]:
                return self._wrong(char, "true, false or null")
            self._rest = self._rest[1:]
            if not self._rest:
                self._value_over(self._at + 1)
        return True

    def _string_over(self) -> None:
        if not self._is_key:
            self._value_over(self._at + 1)
            return
        self._state = "colon"
        if len(self._stack) == 1:
            self.members.append(Member(self._key_start, self._at + 1))
            self._news = True

    def _number(self, char: str) -> bool:
        for characters, state in _NUMBER[self._state]:
            if char in characters:
                self._state = state
                return True
        if self._state not in _WHOLE:
            return self._wrong(char, "a digit")
        self._value_over(self._at)
        return False

    def _value_over(self, end: int) -> None:
        self._state = "after"
        if len(self._stack) == 1:
            self.members[-1].end = end
            self._news = True

    def _wrong(self, char: str, expected: str) -> bool:
        self.fault = f"{char!r} at character {self._at}, where {expected} is expected"
        return False
