"""Server-sent events: any cut of the bytes gives the same events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selenite.client.sse import SseParser

STREAM = (
    ": keep-alive\n\n"
    'data: {"a": "größe 🙂"}\n\n'
    "event: x\r\ndata:no space\r\nid: 7\r\n\r\n"
    "data: two\ndata: lines\n\n"
    "data\n\n"
    "\n\n"
    "data: last\r\r"
    "data: [DONE]\n\n"
).encode()
EVENTS = ['{"a": "größe 🙂"}', "no space", "two\nlines", "last", "[DONE]"]


def feed(parts: list[bytes]) -> list[str]:
    parser = SseParser()
    return [event for part in parts for event in parser.feed(part)]


def test_every_cut_in_two_and_every_byte_alone() -> None:
    for cut in range(len(STREAM) + 1):
        assert feed([STREAM[:cut], STREAM[cut:]]) == EVENTS
    assert feed([STREAM[i : i + 1] for i in range(len(STREAM))]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_random_cuts(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert feed([STREAM[a:b] for a, b in pairwise(edges)]) == EVENTS


@pytest.mark.parametrize("stream", [b"data: unfinished", b"data: unfinished\n", b": only\n\n"])
def test_an_event_ends_with_an_empty_line(stream: bytes) -> None:
    assert feed([stream]) == []
