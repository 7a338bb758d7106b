"""Events of OpenAI's streams as pieces, in the dialects of several servers."""

from __future__ import annotations

import json

import pytest

from selenite.client.pieces import CallPiece, Piece, Usage, parse_piece


@pytest.mark.parametrize(
    ("event", "piece"),
    [
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, Piece()),
        ({"choices": [{"delta": {"content": None, "reasoning_content": "hm"}}]},
         Piece(reasoning="hm")),
        ({"choices": [{"delta": {"reasoning": "hm"}}]}, Piece(reasoning="hm")),
        ({"choices": [{"text": "plain", "finish_reason": None}]}, Piece(content="plain")),
        ({"choices": [{"text": "", "finish_reason": "length"}]}, Piece(finish_reason="length")),
        ({"choices": [{"delta": {"tool_calls": [{"index": 1, "function": {"arguments": "{"}}]}}]},
         Piece(calls=(CallPiece(1, arguments="{"),))),
        ({"choices": [{"delta": {"tool_calls": [{"id": "f:0", "function": {"name": "f"}}]}}]},
         Piece(calls=(CallPiece(0, id="f:0", name="f"),))),
        ({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
         Piece(usage=Usage(5, 2))),
        ({"choices": [{"delta": {"content": "x"}}],
          "usage": {"prompt_tokens": 5, "completion_tokens": 2,
                    "prompt_tokens_details": {"cached_tokens": 4}}},
         Piece(content="x", usage=Usage(5, 2, 4))),
        ({"choices": [{"delta": {"content": "x"}}], "usage": None}, Piece(content="x")),
        ({"error": {"message": "broke", "code": 500}}, Piece(error="broke")),
        ({"error": "broke"}, Piece(error="broke")),
    ],
)  # fmt: skip
def test_events(event: dict, piece: Piece) -> None:
    assert parse_piece(json.dumps(event)) == piece


@pytest.mark.parametrize("data", ["", "{", "[]", "7", '{"choices": 3}', '{"usage": {}}'])
def test_what_is_no_event(data: str) -> None:
    with pytest.raises(ValueError, match="not an event of a completion"):
        parse_piece(data)
