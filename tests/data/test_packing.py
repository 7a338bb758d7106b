"""Packing against brute force: every token once an epoch, targets, masks, positions, bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.data.packing import PackedStream
from selenite.errors import ConfigError, DataError
from selenite.types import IGNORED

lengths = st.lists(st.integers(2, 30), min_size=1, max_size=12)
seq_lens = st.integers(1, 20)


def _document_of(shard) -> np.ndarray:
    return np.repeat(np.arange(shard.num_documents), shard.index["length"])


@given(lengths=lengths, seq_len=seq_lens, num_tokens=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_every_token_is_read_once_in_an_epoch(make_shard, lengths, seq_len, num_tokens, seed):
    shard = make_shard(lengths)
    stream = PackedStream(shard, seq_len, seed)
    epochs = 2
    total = epochs * shard.num_tokens
    batches = [
        stream.read(start, min(num_tokens, total - start)) for start in range(0, total, num_tokens)
    ]
    tokens = np.concatenate([batch.tokens_T for batch in batches])
    targets = np.concatenate([batch.targets_T for batch in batches])
    for epoch in range(epochs):
        part = slice(epoch * shard.num_tokens, (epoch + 1) * shard.num_tokens)
        assert sorted(tokens[part]) == list(range(shard.num_tokens))
        # Each token but the first of each document is a target once.
        wanted = set(range(shard.num_tokens)) - set(shard.index["start"].tolist())
        trained = targets[part][targets[part] != IGNORED]
        assert sorted(trained) == sorted(wanted)
    # Bytes by document, the residual of each included, whatever the cuts.
    assert sum(batch.num_bytes for batch in batches) == epochs * shard.num_bytes


@given(
    lengths=lengths, seq_len=seq_lens, num_tokens=st.integers(1, 40), position=st.integers(0, 300)
)
@settings(max_examples=200, deadline=None)
def test_pieces_targets_and_positions(make_shard, lengths, seq_len, num_tokens, position):
    shard = make_shard(lengths)
    batch = PackedStream(shard, seq_len, seed=3).read(position, num_tokens)
    document_of = _document_of(shard)
    last_of = (shard.index["start"] + shard.index["length"] - 1)[document_of[batch.tokens_T]]
    expected = np.where(batch.tokens_T == last_of, IGNORED, batch.tokens_T + 1)
    np.testing.assert_array_equal(batch.targets_T, expected)
    assert len(batch.tokens_T) == num_tokens
    pieces = np.split(np.arange(num_tokens), np.flatnonzero(np.diff(batch.document_T)) + 1)
    assert [int(batch.document_T[piece[0]]) for piece in pieces] == list(range(len(pieces)))
    for number, piece in enumerate(pieces):
        np.testing.assert_array_equal(batch.positions_T[piece], np.arange(len(piece)))
        assert len(piece) <= seq_len
        assert len(set(document_of[batch.tokens_T[piece]])) == 1
        np.testing.assert_array_equal(np.diff(batch.tokens_T[piece]), 1)
        # A piece ends only where its document, the limit or the micro-batch does.
        last = piece[-1]
        ended = batch.targets_T[last] == IGNORED
        assert ended or len(piece) == seq_len or number == len(pieces) - 1


@given(lengths=lengths, cut=st.integers(1, 39), position=st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_a_window_is_its_two_halves(make_shard, lengths, cut, position):
    """Tokens, targets and bytes do not depend on where micro-batches are cut."""
    stream = PackedStream(make_shard(lengths), seq_len=7, seed=1)
    whole, left = stream.read(position, 40), stream.read(position, cut)
    right = stream.read(position + cut, 40 - cut)
    np.testing.assert_array_equal(whole.tokens_T, np.append(left.tokens_T, right.tokens_T))
    np.testing.assert_array_equal(whole.targets_T, np.append(left.targets_T, right.targets_T))
    assert whole.num_bytes == left.num_bytes + right.num_bytes


def test_the_picture_in_the_docstring(make_shard):
    shard = make_shard([6, 4, 9])
    batch = PackedStream(shard, seq_len=4, shuffle=False).read(0, 8)
    assert batch.tokens_T.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert batch.targets_T.tolist() == [1, 2, 3, 4, 5, -1, 7, 8]
    assert batch.positions_T.tolist() == [0, 1, 2, 3, 0, 1, 0, 1]
    assert batch.document_T.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_epochs_and_seeds_have_orders_of_their_own(make_shard):
    shard = make_shard([3] * 50)
    first, again, other = (PackedStream(shard, 8, seed) for seed in (0, 0, 1))
    epoch = [first.read(number * 150, 150).tokens_T.tolist() for number in range(2)]
    assert epoch[0] == again.read(0, 150).tokens_T.tolist()
    assert epoch[0] != epoch[1]
    assert epoch[0] != other.read(0, 150).tokens_T.tolist()
    assert epoch[0] != sorted(epoch[0])


def test_impossible_settings_are_refused(make_shard):
    with pytest.raises(ConfigError, match="seq_len=0"):
        PackedStream(make_shard([4]), seq_len=0)
    with pytest.raises(DataError, match="holds no tokens"):
        PackedStream(make_shard([]), seq_len=4)
