"""Documents to packed micro-batches: exactly T tokens, no padding, attention within documents.

The training stream of an epoch is all documents end to end in the epoch's order. A micro-batch
is the window of T tokens at some position of the endless stream epoch 0, epoch 1, ..., so it is a
pure function of (shard, seed, position): nothing but the position has to be saved to resume.

    stream   [BOS a b c d EOS][BOS e f EOS][BOS g ...      T = 8, seq_len = 4
    window   |BOS a b c|d EOS|BOS e|                       three pieces: 0 0 0 0 1 1 2 2
    target    a   b c d EOS -1 e   f    (-1: IGNORED)      a cut piece reads one token further

Read by ``loader.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from selenite.data.corpus import TokenShard
from selenite.errors import ConfigError, DataError
from selenite.types import IGNORED


@dataclass(frozen=True)
class MicroBatch:
    """One packed micro-batch. Written by the loader, read by the training step."""

    tokens_T: np.ndarray  # int64
    targets_T: np.ndarray  # int64: the next token of the document, or IGNORED
    positions_T: np.ndarray
    """int64; what does not begin at 0 goes on from the last piece that does."""
    document_T: np.ndarray  # int32: number of the piece in the micro-batch, from 0, rising
    num_bytes: int  # UTF-8 bytes that the targets stand for


@dataclass(frozen=True)
class _Order:
    """The documents of one epoch in the order in which they are read."""

    documents: np.ndarray  # document numbers
    ends: np.ndarray  # stream position after each


class PackedStream:
    """The endless stream of a shard's documents, read by position.

    ``shuffle`` permutes the documents anew in each epoch (Philox, key ``seed``, counter the
    epoch); without it every epoch has the order on disk.
    """

    def __init__(self, shard: TokenShard, seq_len: int, seed: int = 0, shuffle: bool = True):
        if seq_len < 1:
            raise ConfigError(f"seq_len={seq_len}: must be 1 or more")
        if shard.num_tokens == 0:
            raise DataError(
                f"the {shard.name} shard holds no tokens; add sources and prepare again"
            )
        self.shard = shard
        self._seq_len = seq_len
        self._seed = seed
        self._shuffle = shuffle
        # Two epochs meet in one micro-batch at most places; only very small shards have more.
        self._order = lru_cache(maxsize=2)(self._make_order)

    def read(self, position: int, num_tokens: int) -> MicroBatch:
        """The window of ``num_tokens`` tokens at stream position ``position`` (from 0)."""
        tokens_T = np.empty(num_tokens, dtype=np.int64)
        targets_T = np.empty(num_tokens, dtype=np.int64)
        positions_T = np.empty(num_tokens, dtype=np.int64)
        document_T = np.empty(num_tokens, dtype=np.int32)
        num_bytes, filled, pieces = 0, 0, 0
        while filled < num_tokens:
            document, offset = self._locate(position + filled)
            record = self.shard.index[document]
            count = min(num_tokens - filled, int(record["length"]) - offset)
            part = slice(filled, filled + count)
            tokens_T[part], targets_T[part], part_bytes = self._read_document(record, offset, count)
            within = np.arange(count)
            positions_T[part] = within % self._seq_len
            document_T[part] = pieces + within // self._seq_len
            pieces += -(-count // self._seq_len)
            num_bytes += part_bytes
            filled += count
        return MicroBatch(tokens_T, targets_T, positions_T, document_T, num_bytes)

    def _read_document(
        self, record: np.void, offset: int, count: int
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """``count`` tokens of a document from ``offset`` on, their targets, and those' bytes."""
        start, length = int(record["start"]) + offset, int(record["length"])
        ends = offset + count == length
        # One token further than the window, where the document has one.
        read = self.shard.tokens[start : start + count + (not ends)].astype(np.int64)
        num_bytes = int(self.shard.token_bytes_V[read[1:]].sum())
        if offset <= length - 2 < offset + count:  # EOS, the last target, is among these
            num_bytes += int(record["residual"])
        return read[:count], np.append(read[1:], [IGNORED] * ends), num_bytes

    def _locate(self, position: int) -> tuple[int, int]:
        """(document number, offset in it) at a stream position."""
        epoch, within = divmod(position, self.shard.num_tokens)
        order = self._order(epoch)
        place = int(np.searchsorted(order.ends, within, side="right"))
        document = int(order.documents[place])
        return document, within - int(order.ends[place]) + int(self.shard.index["length"][document])

    def _make_order(self, epoch: int) -> _Order:
        documents = np.arange(self.shard.num_documents)
        if self._shuffle:
            bits = np.random.Philox(key=self._seed, counter=[0, 0, 0, epoch])
            documents = np.random.Generator(bits).permutation(documents)
        return _Order(documents, np.cumsum(self.shard.index["length"][documents]))
