"""Conversations as pieces: whole, with a loss on the assistant's words alone, tools drawn anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selenite.chat.profile import K2
from selenite.chat.tokenizer import Tokenizer
from selenite.data.chat_rows import ChatRow, read_chat_rows
from selenite.data.chat_stream import ChatStream
from selenite.data.piece_loader import PieceLoader, held_out_batches, pack
from selenite.data.pieces import Piece
from selenite.errors import CheckpointError, DataError
from selenite.types import IGNORED

SAYINGS = ["Please tell me the weather in Rome.", "It rains.", "Call a taxi to 5 Elm Road, now."]


def tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def line(number: int, **changes: Any) -> dict[str, Any]:
    """A conversation of one user and one assistant with a wrong turn that is mended."""
    call = {"name": "get_weather", "arguments": json.dumps({"city": f"City {number}"})}
    known: dict[str, Any] = {
        "messages": [
            {
                "role": "user",
                "content": f"Weather in city {number}, please. " + "It rains. " * number,
            },
            {"role": "assistant", "content": "WRONG", "weight": 0},
            {"role": "user", "content": "No."},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "functions.get_weather:0", "function": call}],
            },
        ],
        "tools": [tool(name) for name in ("get_weather", "other", "third", "fourth")],
    }
    return known | changes


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(SAYINGS * 20, 400)


@pytest.fixture
def rows(tmp_path: Path) -> list[ChatRow]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(line(n))}\n" for n in range(12)))
    return read_chat_rows([str(path)])


def learnt(piece: Piece, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(piece.targets_T[piece.targets_T != IGNORED].tolist())


def test_only_the_assistants_words_are_learnt(rows: list[ChatRow], tokenizer: Tokenizer) -> None:
    stream = ChatStream(rows, tokenizer, K2, 4096, shuffle=False)
    for number in range(12):
        piece = stream.read(number)
        assert piece is not None
        text = learnt(piece, tokenizer)
        assert text == (
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
            f'<|tool_call_argument_begin|>{{"city": "City {number}"}}<|tool_call_end|>'
            "<|tool_calls_section_end|><|im_end|>"
        )
        assert piece.num_bytes == len(f'functions.get_weather:0{{"city": "City {number}"}}')
        # Every target is the token that comes next.
        is_on = piece.targets_T != IGNORED
        assert (piece.targets_T[:-1][is_on[:-1]] == piece.tokens_T[1:][is_on[:-1]]).all()
        assert not is_on[-1]


def test_tools_are_drawn_anew_and_the_needed_one_stays(
    rows: list[ChatRow], tokenizer: Tokenizer
) -> None:
    stream = ChatStream(rows, tokenizer, K2, 4096, seed=3, unused_tools=3)
    seen = set()
    for position in range(240):
        piece = stream.read(position)
        assert piece is not None
        text = tokenizer.decode(piece.tokens_T.tolist())
        names = [n for n in ("get_weather", "other", "third", "fourth") if f'"{n}"' in text]
        assert "get_weather" in names
        seen.add(tuple(sorted(names, key=lambda name: text.index(f'"{name}"'))))
    assert {len(names) for names in seen} == {1, 2, 3, 4}
    assert len(seen) > 12  # orders, too
    again = ChatStream(rows, tokenizer, K2, 4096, seed=3, unused_tools=3)
    one, other = stream.read(77), again.read(77)
    assert one is not None
    assert other is not None
    assert (one.tokens_T == other.tokens_T).all()


def test_each_epoch_has_every_row_once_in_its_own_order(
    rows: list[ChatRow], tokenizer: Tokenizer
) -> None:
    stream = ChatStream(rows, tokenizer, K2, 4096)
    epochs = []
    for epoch in range(3):
        pieces = [stream.read(12 * epoch + i) for i in range(12)]
        epochs.append([learnt(piece, tokenizer) for piece in pieces if piece is not None])
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1
    assert len({tuple(epoch) for epoch in epochs}) == 3


def loader_of(rows: list[ChatRow], tokenizer: Tokenizer, size: int = 4096) -> PieceLoader:
    streams = [
        ChatStream(rows[:6], tokenizer, K2, size),
        ChatStream(rows[6:], tokenizer, K2, size, seed=1, unused_tools=2),
    ]
    return PieceLoader(streams, [3.0, 1.0], size, ["first", "second"])


def test_pieces_are_packed_whole_and_by_weight(rows: list[ChatRow], tokenizer: Tokenizer) -> None:
    loader = loader_of(rows, tokenizer)
    filled = []
    for _ in range(60):
        batch = next(loader)
        assert len(batch.tokens_T) <= 4096
        assert len(batch.tokens_T) % 64 == 0
        starts = np.flatnonzero(batch.positions_T == 0)
        assert (np.diff(batch.document_T, prepend=-1)[starts] == 1).all()
        filled.append(len(batch.tokens_T) / 4096)
        for number in range(batch.document_T[-1] + 1):
            own = batch.document_T == number
            assert (batch.positions_T[own] == np.arange(own.sum())).all()
            text = tokenizer.decode(batch.tokens_T[own].tolist())
            is_filling = not batch.tokens_T[own].any()
            assert is_filling or text.endswith("<|im_end|>"), text[-40:]
    first, second = loader.tokens
    loader.close()
    assert np.mean(filled) > 0.9
    assert first / (first + second) == pytest.approx(0.75, abs=0.07)  # 64 pieces are drawn and wait


def test_a_loader_goes_on_where_it_was(rows: list[ChatRow], tokenizer: Tokenizer) -> None:
    whole = loader_of(rows, tokenizer)
    expected = [next(whole).tokens_T for _ in range(30)]
    begun = loader_of(rows, tokenizer)
    for _ in range(17):
        next(begun)
    state = json.loads(json.dumps(begun.state_dict()))
    begun.close()
    resumed = loader_of(rows, tokenizer)
    resumed.load_state_dict(state)
    for tokens_T in expected[17:]:
        assert (next(resumed).tokens_T == tokens_T).all()
    assert resumed.tokens == whole.tokens
    assert resumed.state_dict() == whole.state_dict()
    whole.close()
    resumed.close()
    other = PieceLoader([ChatStream(rows, tokenizer, K2, 1000)], [1.0], 1000, ["first"])
    with pytest.raises(CheckpointError, match="other data"):
        other.load_state_dict(state)


def test_what_is_too_long_is_left_out_and_counted(
    rows: list[ChatRow], tokenizer: Tokenizer
) -> None:
    lengths = []
    for number in range(12):
        piece = ChatStream(rows, tokenizer, K2, 4096, shuffle=False).read(number)
        assert piece is not None
        lengths.append(len(piece.tokens_T))
    limit = sorted(lengths)[5]
    stream = ChatStream(rows, tokenizer, K2, limit, shuffle=False)
    assert [stream.read(n) is not None for n in range(12)] == [n <= limit for n in lengths]
    loader = PieceLoader([stream], [1.0], limit, ["only"])
    for _ in range(20):
        next(loader)
    assert loader.too_long[0] > 5
    loader.close()
    hopeless = PieceLoader([ChatStream(rows, tokenizer, K2, 10)], [1.0], 10, ["only"])
    with pytest.raises(DataError, match=r"pieces in a row are too long; raise train\.seq_len"):
        next(hopeless)


def test_held_out_batches_have_every_piece_once(rows: list[ChatRow], tokenizer: Tokenizer) -> None:
    stream = ChatStream(rows, tokenizer, K2, 4096, shuffle=False)
    batches = held_out_batches(stream, 12, 900, 10**6)
    pieces = [stream.read(n) for n in range(12)]
    together = pack([piece for piece in pieces if piece is not None])
    assert (np.concatenate([b.tokens_T for b in batches]) == together.tokens_T).all()
    assert all(len(batch.tokens_T) <= 900 for batch in batches)
    few = held_out_batches(stream, 12, 900, 700)
    assert sum(len(batch.tokens_T) for batch in few) <= 700


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": 3}, "no conversation in OpenAI's form"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "no turn of the assistant"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "no turn of the assistant"),
        ({"messages": [{"role": "assistant", "content": "x", "weight": "0"}]}, "weight '0' is"),
        ({"messages": [{"role": "assistant", "content": "\ud800"}]}, "half of a surrogate pair"),
        ({"needed": "get_weather"}, "needed must be a list of names"),
        ({"tools": [tool("get_weather")] * 2}, "two tools of one name"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "role 'robot' is none of"),
        ({"messages": [{"role": "user", "content": ["Hi"]}]}, "content must be a text, not list"),
        ({"messages": [{"content": "Hi"}]}, "'role' is missing"),
        ({"needed": ["nobody"]}, "nobody: called or needed, but not among the tools"),
        ({"tools": []}, "get_weather: called or needed, but not among the tools"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(line(1))}\n\n{json.dumps(line(2, **changes))}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_chat_rows([str(path)])
    assert str(caught.value).startswith(f"{path}, line 3: ")


def test_broken_arguments_are_refused(tmp_path: Path) -> None:
    row = line(1)
    for arguments, message in (('{"a": ', "Expecting value"), ("[1]", "must be an object")):
        row["messages"][3]["tool_calls"][0]["function"]["arguments"] = arguments
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps(row))
        with pytest.raises(DataError, match=message):
            read_chat_rows([str(path)])


def test_ids_become_those_that_serving_gives(tmp_path: Path) -> None:
    row = line(1)
    call = row["messages"][3]["tool_calls"][0] | {"id": "call_abc"}
    row["messages"][3]["tool_calls"] = [call]
    row["messages"] += [
        {"role": "tool", "content": "{}", "tool_call_id": "call_abc"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": call["function"]}]},
        {"role": "tool", "content": "{}"},
        {"role": "assistant", "content": "Done."},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    (read,) = read_chat_rows([str(path)])
    ids = [call.id for message in read.messages for call in message.tool_calls]
    assert ids == ["functions.get_weather:0", "functions.get_weather:1"]
    assert [m.tool_call_id for m in read.messages if m.role == "tool"] == ids


def test_what_is_held_out_depends_on_what_a_row_says(tmp_path: Path) -> None:
    row = line(3)
    texts = [json.dumps(row), json.dumps(row) + "\n", json.dumps(row, indent=None) + "\r\n"]
    texts.append(json.dumps(dict(reversed(row.items()))))
    keys = set()
    for text in texts:
        (tmp_path / "rows.jsonl").write_bytes(text.encode())
        keys |= {found.key for found in read_chat_rows([str(tmp_path / "rows.jsonl")])}
    assert len(keys) == 1


@pytest.fixture
def grouped(tmp_path: Path) -> list[ChatRow]:
    """Twelve rows, of two groups and of none."""
    path = tmp_path / "grouped.jsonl"
    lines = [line(n) | ({} if n > 9 else {"group": f"g{n % 2}"}) for n in range(12)]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in lines))
    return read_chat_rows([str(path)])


def whole(piece: Piece) -> list[tuple[list[int], list[int]]]:
    """Ids and targets of each conversation of a piece, with what they begin with alike."""
    parts = [piece.document_T == n for n in range(piece.document_T[-1] + 1)]
    if len(parts) == 1:
        return [(piece.tokens_T.tolist(), piece.targets_T.tolist())]
    first, *others = parts
    assert (piece.targets_T[first] == IGNORED).all()
    found = []
    for own in others:
        positions = np.append(piece.positions_T[first], piece.positions_T[own])
        assert (positions == np.arange(len(positions))).all()
        ids = np.append(piece.tokens_T[first], piece.tokens_T[own])
        found.append((ids.tolist(), np.append(piece.targets_T[first], piece.targets_T[own])))
    return [(ids, list(targets)) for ids, targets in found]


def test_rows_that_are_read_together_are_the_rows_themselves(
    grouped: list[ChatRow], tokenizer: Tokenizer
) -> None:
    """With the needed tool alone all orders of tools are one, so that ids can be compared."""
    alone = ChatStream(grouped, tokenizer, K2, 4096, unused_tools=0)
    pieces = [alone.read(position) for position in range(12)]
    expected = sorted(whole(piece)[0] for piece in pieces if piece is not None)
    stream = ChatStream(
        grouped, tokenizer, K2, 4096, unused_tools=0, together=3, piece_tokens=100_000
    )
    orders = set()
    for epoch in range(3):  # of 2 + 2 + 2 pieces
        read = [stream.read(6 * epoch + place) for place in range(6)]
        known = [piece for piece in read if piece is not None]
        assert sorted(piece.document_T[-1] + 1 for piece in known) == [1, 1, 3, 3, 4, 4]
        assert sorted(each for piece in known for each in whole(piece)) == expected
        assert sum(piece.num_bytes for piece in known) == sum(p.num_bytes for p in pieces if p)
        orders.add(tuple(learnt(piece, tokenizer) for piece in known))
    assert len(orders) == 3
    assert sum(len(piece.tokens_T) for piece in known) < sum(len(ids) for ids, _ in expected)


def test_rows_together_get_tools_of_each_other(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        line(n) | {"group": "g", "tools": [tool("get_weather"), tool(f"own_{n}")]} for n in range(3)
    ]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in lines))
    stream = ChatStream(
        read_chat_rows([str(path)]), tokenizer, K2, 4096, unused_tools=9, together=3,
        piece_tokens=100_000,
    )  # fmt: skip
    texts = [
        tokenizer.decode(piece.tokens_T.tolist()) for p in range(40) if (piece := stream.read(p))
    ]
    assert all(text.count('"get_weather"') == 1 for text in texts)
    assert {sum(f'"own_{n}"' in text for n in range(3)) for text in texts} == {0, 1, 2, 3}


def test_rows_that_find_no_room_are_counted(grouped: list[ChatRow], tokenizer: Tokenizer) -> None:
    lone = ChatStream(grouped, tokenizer, K2, 4096, unused_tools=0).read(0)
    assert lone is not None
    most = len(lone.tokens_T) + 120
    stream = ChatStream(grouped, tokenizer, K2, most, unused_tools=0, together=5, piece_tokens=most)
    pieces = [piece for position in range(4) if (piece := stream.read(position))]
    assert len(pieces) == 4  # an epoch: two groups of five, and two rows of none
    assert all(len(piece.tokens_T) <= most for piece in pieces)
    assert {len(whole(piece)) for piece in pieces} == {1, 2}
    assert sum(len(whole(piece)) + piece.left_out for piece in pieces) == 12
    loader = PieceLoader([stream], [1.0], most, ["rows"])
    next(loader)  # of 64 waiting pieces, 16 epochs and more
    loader.close()
    assert loader.too_long[0] >= 16 * sum(piece.left_out for piece in pieces)


def test_unused_tools_make_room_for_rows(grouped: list[ChatRow], tokenizer: Tokenizer) -> None:
    bare = ChatStream(grouped, tokenizer, K2, 4096, unused_tools=0, together=5, piece_tokens=9999)
    most = max(len(piece.tokens_T) for p in range(4) if (piece := bare.read(p)))
    stream = ChatStream(grouped, tokenizer, K2, most, unused_tools=3, together=5, piece_tokens=most)
    pieces = [piece for position in range(40) if (piece := stream.read(position))]
    assert not any(piece.left_out for piece in pieces)
