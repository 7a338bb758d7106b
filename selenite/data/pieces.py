"""Pieces: runs of tokens that attend to nothing outside, and are never cut.

``PieceLoader`` (``piece_loader.py``) packs them. They come from conversations (``chat_stream.py``)
and from plain text. A stream is endless, and the piece at a position follows from (source, seed,
position) alone.
"""

from __future__ import annotations

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
