"""Pieces: runs of tokens that attend to nothing outside, and are never cut.

``PieceLoader`` (``piece_loader.py``) packs them. They come from conversations (``chat_stream.py``)
and from plain text. A stream is endless, and the piece at a position follows from (source, seed,
position) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from selenite.data.corpus import TokenShard
from selenite.data.packing import PackedStream


@dataclass(frozen=True)
class Piece:
    """Tokens with their targets: the next token where it is learnt, else ``IGNORED``."""

    tokens_T: np.ndarray  # int64
    targets_T: np.ndarray  # int64
    positions_T: np.ndarray  # int64, from 0 in what attends to itself alone
    document_T: np.ndarray
    """int32, from 0, rising. A document whose positions do not begin at 0 goes on from the last one
    whose do: it attends to that and to itself."""
    num_bytes: int  # UTF-8 bytes that the targets stand for
    left_out: int = 0  # rows that were to be in it and found no room


def num_shared(ids: Sequence[Sequence[int]], first_trained: Sequence[int]) -> int:
    """How many ids all conversations begin with alike, none of which is learnt and after which each
    goes on; ``first_trained`` are the places of the first learnt ids."""
    most = min(map(len, ids)) - 1
    alike = next((i for i in range(most) if len({own[i] for own in ids}) > 1), most)
    # The id before the first learnt one predicts it, which others do not.
    return max(0, min(alike, *(first - 1 for first in first_trained)))


def branched(rows: Sequence[np.ndarray], shared: int) -> np.ndarray:
    """Of arrays by token one: the first one's ``shared`` entries, then of each what follows them.

    With ``shared`` 0 they just follow each other. The order of a piece that branches.
    """
    return np.concatenate([*([rows[0][:shared]] if shared else []), *(r[shared:] for r in rows)])


def branched_places(lengths: Sequence[int], shared: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and documents of such a piece."""
    positions_T = branched([np.arange(length) for length in lengths], shared)
    own = [*([shared] if shared else []), *(length - shared for length in lengths)]
    return positions_T, np.repeat(np.arange(len(own), dtype=np.int32), own)


class PieceStream(Protocol):
    """Endless pieces by position."""

    def read(self, position: int) -> Piece | None:
        """None: what is there is too long, and left out."""
        ...


class TextStream:
    """Plain text in windows of ``window`` tokens; all of them are learnt."""

    def __init__(self, shard: TokenShard, window: int, seed: int = 0, shuffle: bool = True) -> None:
        self._stream = PackedStream(shard, window, seed, shuffle)
        self._window = window

    def read(self, position: int) -> Piece:
        batch = self._stream.read(position * self._window, self._window)
        return Piece(
            batch.tokens_T, batch.targets_T, batch.positions_T, batch.document_T, batch.num_bytes
        )
