"""The text of one completion while its tokens arrive: parsed, and cut at a stop string.

Where there are stop strings, the engine asks token by token whether to end
(``engine.request.Request.stops``), and this runs on its thread; elsewhere on the reader's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from selenite.chat.detokenizer import Detokenizer
from selenite.chat.events import ContentDelta, Event
from selenite.chat.tokenizer import Tokenizer
from selenite.serve.stop_strings import StopStrings


class Parser(Protocol):
    """``chat.reply_parser.ReplyParser``, or ``PlainText``."""

    @property
    def held_content(self) -> str: ...
    def feed_ids(self, ids: Iterable[int]) -> list[Event]: ...
    def finish(self) -> list[Event]: ...


class PlainText:
    """Reads all ids as content and passes over special tokens: for completions without a chat."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._special = frozenset(tokenizer.special_tokens.values())
        self.held_content = ""  # nothing is

    def feed_ids(self, ids: Iterable[int]) -> list[Event]:
        """The text that is certain with these ids."""
        pieces = [
            self._detokenizer.flush() if id in self._special else self._detokenizer.push(id)
            for id in ids
        ]
        return _content("".join(pieces))

    def finish(self) -> list[Event]:
        """What is left."""
        return _content(self._detokenizer.flush())


class ChoiceText:
    """Tokens in, events out.

    Args:
        parser: of the reply; its content alone is searched for stop strings.
        stop: stop strings.
        include_stop: whether the stop string itself is part of the text.
        hidden: tokens that are no part of the text, such as ``stop_token_ids``.
        min_tokens: no stop string counts before so many tokens.
    """

    def __init__(
        self,
        parser: Parser,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        hidden: frozenset[int] = frozenset(),
        min_tokens: int = 0,
    ) -> None:
        self._parser = parser
        self._stops = StopStrings(stop, include_stop)
        self._hidden = hidden
        self._min_tokens = min_tokens
        self._num_tokens = 0
        self._events: list[Event] = []
        self.hook: Callable[[int], bool] | None = self.push if stop else None
        """For ``Request.stops``; None: the tokens are pushed by whoever reads the events."""

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text."""
        return self._stops.found

    def push(self, token: int) -> bool:
        """The next sampled token; whether the completion ends with it."""
        self._num_tokens += 1
        if token not in self._hidden:
            self._take(self._parser.feed_ids([token]))
            held = self._parser.held_content
            if self._num_tokens > self._min_tokens and self._stops.is_completed_by(held):
                self._take(_content(held))
        return self._stops.found is not None

    def finish(self) -> None:
        """No token follows."""
        self._take(self._parser.finish())
        self._events += _content(self._stops.flush())

    def events(self) -> list[Event]:
        """What has come about since the last call."""
        events = self._events.copy()
        self._events.clear()
        return events

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            if self._stops.found is not None:
                return
            if isinstance(event, ContentDelta):
                text = event.text
                if self._num_tokens > self._min_tokens:
                    text = self._stops.push(text)
                self._events += _content(text)
            else:
                self._events += _content(self._stops.flush())
                self._events.append(event)


def _content(text: str) -> list[Event]:
    return [ContentDelta(text)] if text else []
