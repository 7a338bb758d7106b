"""A model's reply as events while it is written: content, reasoning, tool calls, faults.

One parser for streams and whole replies, fed with token ids, or with text where there are no ids.
Whatever the pieces, the events add up to the same reply. With ids, a marker that is a special
token of the vocabulary counts only as that token; text that looks like it is text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from selenite.chat.call_format import CallReader, find_marker
from selenite.chat.call_ids import CallIds
from selenite.chat.detokenizer import Detokenizer
from selenite.chat.events import (
    ContentDelta,
    Event,
    Malformed,
    MalformedReason,
    ReasoningDelta,
    Reply,
    collect,
)
from selenite.chat.profile import ChatProfile
from selenite.chat.tokenizer import Tokenizer


class _State(Enum):
    CONTENT = "content"
    REASONING = "reasoning"
    CALLS = "calls"


class ReplyParser:
    """Parses one reply.

    ``tokenizer``: of the ids that will be fed; None: text will be. ``call_ids``: of the
    conversation so far; it is copied. ``in_reasoning``: the prompt has opened the reasoning
    section. ``tools_offered=False``: text that looks like a call is text (special tokens still
    count).
    """

    def __init__(
        self,
        profile: ChatProfile,
        tokenizer: Tokenizer | None = None,
        *,
        call_ids: CallIds | None = None,
        in_reasoning: bool = False,
        tools_offered: bool = True,
    ) -> None:
        if tokenizer is not None:
            profile.check_vocabulary(tokenizer)
        special = tokenizer.special_tokens if tokenizer else {}
        self._names = {id: name for name, id in special.items()}
        self._stop = set(profile.stop_ids(tokenizer)) if tokenizer else set()
        self._detokenizer = Detokenizer(tokenizer) if tokenizer else None
        self._calls, self._reasoning = profile.calls, profile.reasoning
        markers = profile.calls.markers if profile.calls else ()
        if tokenizer is not None and profile.calls and profile.calls.tokens:
            markers = ()  # tokens alone count
        self._text_markers = [m for m in markers if m not in special] if tools_offered else []
        self._text_openers = [m for m in self._text_markers if m in self._openers]
        begin, end = (self._reasoning.begin, self._reasoning.end) if self._reasoning else ("", "")
        self._text_begin = [begin] if begin and begin not in special else []
        self._text_end = [end] if end and end not in special else []
        self._ids = call_ids.copy() if call_ids else CallIds()
        self._reader: CallReader | None = None
        self._num_started = 0
        self._buffer = ""  # text not taken yet: it may begin a marker
        self._over = False
        self._out: list[Event] = []
        self._begin_reply(in_reasoning)

    @property
    def in_reasoning(self) -> bool:
        """The reasoning section is open."""
        return self._state is _State.REASONING

    @property
    def in_call(self) -> bool:
        """A section of calls, or a call, is open."""
        return self._state is _State.CALLS

    @property
    def held_content(self) -> str:
        """Padding at the end of the content so far, which counts if more content follows it."""
        return "" if self.in_reasoning else "".join(self._held)

    def feed_ids(self, ids: Iterable[int]) -> list[Event]:
        """The next sampled ids, an end token included if one was sampled."""
        assert self._detokenizer is not None, "a parser without a tokenizer reads text"
        assert not self._over, "fed after finish()"
        for id in ids:
            if id in self._names:
                self._buffer += self._detokenizer.flush()
                self._drain(final=True)
                self._token(id)
            else:
                self._buffer += self._detokenizer.push(id)
        self._drain(final=False)
        return self._hand_out()

    def feed_text(self, text: str) -> list[Event]:
        """The next piece of text, without end tokens."""
        assert self._detokenizer is None, "a parser with a tokenizer reads ids"
        assert not self._over, "fed after finish()"
        self._buffer += text
        self._drain(final=False)
        return self._hand_out()

    def finish(self) -> list[Event]:
        """The reply is over; nothing can be fed any more."""
        assert not self._over, "finish() twice"
        if self._detokenizer is not None:
            self._buffer += self._detokenizer.flush()
        self._end_reply()
        self._over = True
        return self._hand_out()

    def _hand_out(self) -> list[Event]:
        events = self._out.copy()
        self._out.clear()  # the reader of calls writes into the same list
        return events

    @property
    def _openers(self) -> Sequence[str]:
        return self._calls.openers if self._calls else ()

    def _begin_reply(self, in_reasoning: bool) -> None:
        self._state = _State.REASONING if in_reasoning else _State.CONTENT
        self._fresh = not in_reasoning  # only padding so far: a reasoning section may begin
        self._any_content = False
        self._after_calls = False  # calls were read, and nothing since
        self._held: list[str] = []  # padding that counts if more text follows it
        self._skipped = self._padding if in_reasoning else ""  # characters to pass over

    @property
    def _padding(self) -> str:
        """Of the reasoning markers."""
        return self._reasoning.padding if self._reasoning else ""

    def _end_reply(self) -> None:
        self._drain(final=True)
        if self._reader is not None:
            self._reader.end()
            self._calls_over(self._reader)
        self._release(self._calls.padding if self._calls and self._after_calls else "")

    def _drain(self, final: bool) -> None:
        """Takes from the buffer what it can."""
        while self._buffer:
            if self._reader is not None:
                taken = self._reader.text(self._buffer, final)
            else:
                taken = self._text(final)
            self._buffer = self._buffer[taken:]
            if self._reader is not None and self._reader.done:
                self._calls_over(self._reader)
            elif not taken:
                break

    def _text(self, final: bool) -> int:
        """Content or reasoning up to the next marker; returns how much was taken."""
        if self._state is _State.REASONING:
            ends = self._calls is not None and self._calls.ends_reasoning
            markers = [*self._text_end, *(self._text_openers if ends else ())]
        else:
            markers = [*self._text_openers, *(self._text_begin if self._fresh else ())]
        place, marker = find_marker(self._buffer, markers)
        if marker in self._text_begin:
            before = "".join(self._held) + self._buffer[:place]
            if before.strip(self._padding):
                self._fresh = False  # text stands before it, so it opens nothing
                return self._text(final)
        if final and not marker:
            place = len(self._buffer)
        self._write(self._buffer[:place])
        if marker:
            self._marker(marker)
        return place + len(marker or "")

    def _token(self, id: int) -> None:
        name = self._names[id]
        if id in self._stop:
            self._end_reply()
            self._begin_reply(in_reasoning=False)
        elif self._reader is not None:
            self._reader.marker(name)
            if self._reader.done:
                self._calls_over(self._reader)
        else:
            self._marker(name)

    def _marker(self, name: str) -> None:
        """A marker outside of calls."""
        if name in self._openers:
            self._open_calls(name)
        elif self._reasoning and name == self._reasoning.begin and not self.in_reasoning:
            self._release(self._padding)
            self._turn_to(_State.REASONING, self._padding)
        elif self._reasoning and name == self._reasoning.end and self.in_reasoning:
            self._release(self._padding)
            self._turn_to(_State.CONTENT, self._padding)
        else:
            detail = f"{name} means nothing here"
            self._out.append(Malformed(None, MalformedReason.STRAY_TOKEN, detail, name))

    def _open_calls(self, opener: str) -> None:
        assert self._calls is not None, f"{opener} without a format of calls"
        self._release(self._padding if self.in_reasoning else self._calls.padding)
        self._turn_to(_State.CALLS, "")
        self._reader = self._calls.reader(
            opener, self._text_markers, self._ids, self._num_started, self._out
        )

    def _calls_over(self, reader: CallReader) -> None:
        assert self._calls is not None, "a reader of no format"
        self._num_started = reader.next_index
        self._reader = None
        # Between two pieces of content, padding parts them.
        self._turn_to(_State.CONTENT, "" if self._any_content else self._calls.padding)
        self._after_calls = True

    def _turn_to(self, state: _State, skipped: str) -> None:
        self._state, self._skipped, self._fresh = state, skipped, False

    def _write(self, text: str) -> None:
        """Text of the open section; padding at its end waits for what follows."""
        text = text.lstrip(self._skipped) if self._skipped else text
        if not text:
            return
        self._skipped = ""
        padding = self._padding
        if not self.in_reasoning and self._calls:
            padding += self._calls.padding
        certain = text.rstrip(padding) if padding else text
        if certain:
            self._emit("".join(self._held) + certain)
            self._held.clear()
        self._held.append(text[len(certain) :])

    def _release(self, dropped: str) -> None:
        """Gives out padding that was held back, but for ``dropped`` at its end."""
        held = "".join(self._held)
        self._held.clear()
        self._emit(held.rstrip(dropped) if dropped else held)

    def _emit(self, text: str) -> None:
        if not text:
            return
        self._fresh = self._after_calls = False
        if self.in_reasoning:
            self._out.append(ReasoningDelta(text))
        else:
            self._any_content = True
            self._out.append(ContentDelta(text))


def parse_reply(
    profile: ChatProfile, reply: str | Sequence[int], tokenizer: Tokenizer | None = None
) -> Reply:
    """A whole reply at once, by the same parser: ids with their tokenizer, or text."""
    parser = ReplyParser(profile, tokenizer)
    fed = parser.feed_text(reply) if isinstance(reply, str) else parser.feed_ids(reply)
    return collect([*fed, *parser.finish()])
