"""Pieces: runs of tokens that attend to each other alone, and are never cut.

``PieceLoader`` (``piece_loader.py``) packs them; here is where they come from: conversations, as
the model's template writes them, and windows of plain text. A stream is endless, and the piece at
a position follows from (source, seed, position) alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from selenite.chat.profile import ChatProfile
from selenite.chat.supervision import supervise
from selenite.chat.tokenizer import Tokenizer
from selenite.data.chat_rows import ChatRow
from selenite.data.corpus import TokenShard
from selenite.data.packing import PackedStream
from selenite.errors import ConversationError, DataError, TokenizerError
from selenite.types import IGNORED, ToolSpec


@dataclass(frozen=True)
class Piece:
    """Tokens with their targets: the next token where it is learnt, else ``IGNORED``."""

    tokens_T: np.ndarray  # int64
    targets_T: np.ndarray  # int64
    positions_T: np.ndarray  # int64; 0 begins what attends to itself alone
    num_bytes: int  # UTF-8 bytes that the targets stand for


class PieceStream(Protocol):
    """Endless pieces by position."""

    def read(self, position: int) -> Piece | None:
        """None: what is there is too long, and left out."""
        ...


class ChatStream:
    """Conversations in the order of each epoch, which is a new one where ``shuffle`` is true.

    ``unused_tools`` is how many tools that a row does not need it may have at most. Each time the
    row is read it gets from none to so many of its own, few more often than many, and all of its
    tools in a new order: otherwise their places would be learnt. A row that has tools is never
    without any. None: all, in the row's order.
    """

    def __init__(
        self,
        rows: Sequence[ChatRow],
        tokenizer: Tokenizer,
        profile: ChatProfile,
        seq_len: int,
        seed: int = 0,
        unused_tools: int | None = None,
        shuffle: bool = True,
    ) -> None:
        assert rows
        self._rows = rows
        self._tokenizer, self._profile = tokenizer, profile
        self._token_bytes_V = tokenizer.token_bytes()
        self._seq_len, self._seed = seq_len, seed
        self._unused_tools, self._shuffle = unused_tools, shuffle
        self._order = lru_cache(maxsize=2)(self._make_order)

    def read(self, position: int) -> Piece | None:
        """Raises ``DataError``, with the row's file and line, where the template refuses it."""
        epoch, place = divmod(position, len(self._rows))
        row = self._rows[int(self._order(epoch)[place])]
        tools = list(row.tools)
        if self._unused_tools is not None:
            tools = self._offered(row, random.Random(f"{self._seed}/tools/{position}"))
        try:
            found = supervise(self._tokenizer, row.messages, tools, row.untrained, self._profile)
        except (TokenizerError, ConversationError) as error:
            raise DataError(f"{row.place}: {error}") from error
        if len(found.ids) > self._seq_len:
            return None
        ids = np.array(found.ids, dtype=np.int64)
        is_learnt = np.array([*found.is_trained[1:], False])
        targets_T = np.where(is_learnt, np.append(ids[1:], IGNORED), IGNORED)
        num_bytes = int(self._token_bytes_V[targets_T[is_learnt]].sum())
        return Piece(ids, targets_T, np.arange(len(ids)), num_bytes)

    def _offered(self, row: ChatRow, rng: random.Random) -> list[ToolSpec]:
        needed = [tool for tool in row.tools if tool.name in row.needed]
        others = [tool for tool in row.tools if tool.name not in row.needed]
        most = min(self._unused_tools or 0, len(others))
        # The cube of a uniform number: half of the rows get an eighth of the most, or fewer.
        offered = needed + rng.sample(others, int(rng.random() ** 3 * (most + 1)))
        if not offered and others:
            offered = [rng.choice(others)]
        rng.shuffle(offered)
        return offered

    def _make_order(self, epoch: int) -> np.ndarray:
        numbers = np.arange(len(self._rows))
        if not self._shuffle:
            return numbers
        bits = np.random.Philox(key=self._seed, counter=[0, 0, 0, epoch])
        return np.random.Generator(bits).permutation(numbers)


class TextStream:
    """Plain text in windows of ``window`` tokens; all of them are learnt."""

    def __init__(self, shard: TokenShard, window: int, seed: int = 0, shuffle: bool = True) -> None:
        self._stream = PackedStream(shard, window, seed, shuffle)
        self._window = window

    def read(self, position: int) -> Piece:
        batch = self._stream.read(position * self._window, self._window)
        return Piece(batch.tokens_T, batch.targets_T, batch.positions_T, batch.num_bytes)
