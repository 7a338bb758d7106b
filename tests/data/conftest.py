"""Shards in memory with chosen documents, and small corpora on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from selenite.data.corpus import INDEX_DTYPE, TokenShard


@pytest.fixture(scope="session")
def make_shard() -> Callable[..., TokenShard]:
    """Documents of the given lengths; token ids are their places, so each names itself.

    Token id i stands for i % 4 bytes, and each document for its number of bytes more
    (the residual), as with a tokenizer that normalises.
    """

    def build(lengths: Sequence[int], name: str = "train") -> TokenShard:
        tokens = np.arange(sum(lengths), dtype=np.uint32)
        token_bytes_V = (np.arange(len(tokens)) % 4).astype(np.int32)
        index = np.zeros(len(lengths), dtype=INDEX_DTYPE)
        start = 0
        for number, length in enumerate(lengths):
            targets = np.arange(start + 1, start + length)  # BOS is never a target
            num_bytes = int(token_bytes_V[targets].sum()) + number
            index[number] = (start, length, num_bytes, number)
            start += length
        sha256 = hashlib.sha256(tokens.tobytes() + name.encode()).hexdigest()
        return TokenShard(name, tokens, index, token_bytes_V, sha256)

    return build
