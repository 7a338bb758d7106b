"""Whole pieces to micro-batches of bounded size, from several streams by weight.

Pieces wait in a small buffer. A micro-batch takes the one that has waited longest, then each time
the longest that still fits; it is filled up to a multiple of 64 with tokens that nobody learns, so
that few sizes occur. The next piece comes from the stream whose share of the tokens so far is
farthest below its weight. So all follows from the streams' positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from selenite.data.packing import MicroBatch
from selenite.data.pieces import Piece, PieceStream
from selenite.data.prefetch import Prefetcher
from selenite.errors import CheckpointError, DataError
from selenite.types import IGNORED

_WAITING = 64  # pieces among which the next one is chosen
_PREFETCH = 4  # micro-batches that the worker keeps ready
_MULTIPLE = 64  # of tokens in a micro-batch: kernels are made for each size
_FRUITLESS = 1000  # pieces of a stream in a row that are too long


@dataclass
class _State:
    """Where the loader is. ``waiting`` are (stream, position) of pieces that were drawn."""

    positions: list[int]
    tokens: list[int]  # drawn from each stream
    read: list[int]  # of those, in micro-batches so far
    too_long: list[int]  # rows of each stream that were left out
    waiting: list[tuple[int, int]] = field(default_factory=list)

    def copy(self) -> _State:
        return _State(
            list(self.positions),
            list(self.tokens),
            list(self.read),
            list(self.too_long),
            list(self.waiting),
        )


class PieceLoader:
    """Endless micro-batches of at most ``num_tokens`` tokens, to the next multiple of 64. ``close``
    it after use.

    ``names`` are the streams'; a state of others is refused.
    """

    def __init__(
        self,
        streams: Sequence[PieceStream],
        weights: Sequence[float],
        num_tokens: int,
        names: Sequence[str],
    ) -> None:
        assert len(streams) == len(weights) == len(names)
        self._streams, self._num_tokens = streams, num_tokens
        self._weights = [weight / sum(weights) for weight in weights]
        self.names = list(names)
        zeros = [0] * len(streams)
        self._state = _State(list(zeros), list(zeros), list(zeros), list(zeros))
        self._worker: Prefetcher[tuple[MicroBatch, _State]] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MicroBatch:
        if self._worker is None:
            self._worker = Prefetcher(self._produce(), _PREFETCH)
        batch, self._state = self._worker.get()
        return batch

    @property
    def tokens(self) -> list[int]:
        """Of each stream in the micro-batches so far."""
        return list(self._state.read)

    @property
    def too_long(self) -> list[int]:
        """Rows of each stream that were left out so far; each counts once in an epoch."""
        return list(self._state.too_long)

    def state_dict(self) -> dict[str, Any]:
        """What was consumed so far, as JSON values."""
        state = self._state
        return {
            "streams": self.names,
            "positions": state.positions,
            "tokens": state.tokens,
            "read": state.read,
            "too_long": state.too_long,
            "waiting": [list(place) for place in state.waiting],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where ``state`` was taken; raises ``CheckpointError`` for other streams."""
        missing = self.state_dict().keys() - state.keys()
        if missing:
            raise CheckpointError(f"the loader's state has no {sorted(missing)[0]!r}")
        if state["streams"] != self.names:
            raise CheckpointError(
                "the loader's state is of other data; resume with the data that the run began "
                "with, or start a new run"
            )
        self.close()
        waiting = [(stream, position) for stream, position in state["waiting"]]
        self._state = _State(
            list(state["positions"]),
            list(state["tokens"]),
            list(state["read"]),
            list(state["too_long"]),
            waiting,
        )

    def close(self) -> None:
        """Ends the worker; iteration may go on afterwards where it was."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _produce(self) -> Iterator[tuple[MicroBatch, _State]]:
        """Runs in the worker."""
        state = self._state.copy()
        waiting = [self._known(stream, position) for stream, position in state.waiting]
        while True:
            while len(waiting) < _WAITING:
                stream, position, piece = self._draw(state)
                state.waiting.append((stream, position))
                waiting.append(piece)
            chosen = _choose([len(piece.tokens_T) for piece in waiting], self._num_tokens)
            batch = pack([waiting[i] for i in chosen], _MULTIPLE)
            for i in sorted(chosen, reverse=True):
                state.read[state.waiting[i][0]] += len(waiting[i].tokens_T)
                del waiting[i], state.waiting[i]
            yield batch, state.copy()

    def _known(self, stream: int, position: int) -> Piece:
        piece = self._streams[stream].read(position)
        assert piece is not None
        return piece

    def _draw(self, state: _State) -> tuple[int, int, Piece]:
        total = sum(state.tokens) + 1
        lack = [w - t / total for w, t in zip(self._weights, state.tokens, strict=True)]
        stream = int(np.argmax(lack))
        for _ in range(_FRUITLESS):
            position = state.positions[stream]
            state.positions[stream] += 1
            piece = self._streams[stream].read(position)
            if piece is not None and len(piece.tokens_T) <= self._num_tokens:
                state.tokens[stream] += len(piece.tokens_T)
                state.too_long[stream] += piece.left_out
                return stream, position, piece
            state.too_long[stream] += 1
        raise DataError(
            f"{self.names[stream]}: {_FRUITLESS} pieces in a row are too long; raise "
            "train.seq_len, or give shorter ones"
        )


def _choose(lengths: Sequence[int], num_tokens: int) -> list[int]:
    """The places of the pieces for one micro-batch."""
    chosen, room = [0], num_tokens - lengths[0]
    for i in sorted(range(1, len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[i] <= room:
            chosen.append(i)
            room -= lengths[i]
    return chosen


def pack(pieces: Sequence[Piece], multiple: int = 1) -> MicroBatch:
    """Pieces one after the other; filled up to a multiple of so many tokens."""
    tokens_T = np.concatenate([piece.tokens_T for piece in pieces])
    targets_T = np.concatenate([piece.targets_T for piece in pieces])
    positions_T = np.concatenate([piece.positions_T for piece in pieces])
    document_T = np.empty(0, dtype=np.int32)
    for piece in pieces:
        before = document_T[-1] + 1 if len(document_T) else 0
        document_T = np.append(document_T, piece.document_T + np.int32(before))
    fill = -len(tokens_T) % multiple
    if fill:
        tokens_T = np.append(tokens_T, np.zeros(fill, dtype=np.int64))
        targets_T = np.append(targets_T, np.full(fill, IGNORED))
        positions_T = np.append(positions_T, np.arange(fill))
        document_T = np.append(document_T, np.full(fill, document_T[-1] + 1, dtype=np.int32))
    num_bytes = sum(piece.num_bytes for piece in pieces)
    return MicroBatch(tokens_T, targets_T, positions_T, document_T, num_bytes)


def held_out_batches(
    stream: PieceStream, count: int, num_tokens: int, most: int
) -> list[MicroBatch]:
    """The first ``count`` pieces of a stream in micro-batches of at most ``num_tokens``, until
    ``most`` tokens are reached; pieces that are too long are left out."""
    batches: list[MicroBatch] = []
    pieces: list[Piece] = []
    held = total = 0
    for position in range(count):
        piece = stream.read(position)
        if piece is None or len(piece.tokens_T) > num_tokens:
            continue
        length = len(piece.tokens_T)
        if total + length > most and total:
            break
        if held + length > num_tokens:
            batches.append(pack(pieces))
            pieces, held = [], 0
        pieces.append(piece)
        held += length
        total += length
    return [*batches, pack(pieces)] if pieces else batches
