"""Micro-batches for training and evaluation, from one corpus or a weighted mixture.

The order is one global sequence of micro-batches; rank r of W takes every W-th. What is saved to
resume is how far each corpus was read, in tokens, so a run may go on with another number of
ranks, micro-batch size or ``seq_len``. Packing is in ``packing.py``, the choice among corpora in
``mixture.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from pydantic import Field

from selenite.config import Config
from selenite.data.corpus import TokenShard
from selenite.data.mixture import Mixture
from selenite.data.packing import MicroBatch, PackedStream
from selenite.data.prefetch import Prefetcher
from selenite.errors import CheckpointError, ConfigError


class LoaderConfig(Config):
    """Size and order of micro-batches."""

    tokens_per_microbatch: int = Field(default=4096, ge=1)
    seq_len: int = Field(default=1024, ge=1)  # the most tokens that attend to each other
    seed: int = Field(default=0, ge=0, lt=2**64)
    prefetch: int = Field(default=2, ge=1)  # micro-batches that the worker keeps ready


class Loader:
    """Endless iterator over the training micro-batches of one rank.

    ``shards`` is one shard or, with ``weights``, several. Use as a context manager or call
    ``close``; errors in the worker are raised by ``next``.
    """

    def __init__(
        self,
        shards: TokenShard | Sequence[TokenShard],
        config: LoaderConfig,
        *,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        shards = [shards] if isinstance(shards, TokenShard) else list(shards)
        weights = [1.0] * len(shards) if weights is None else weights
        if len(weights) != len(shards):
            raise ConfigError(
                f"{len(weights)} weights for {len(shards)} corpora: give one for each"
            )
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank={rank}: must be in [0, world_size={world_size})")
        self._config = config
        self._rank, self._world_size = rank, world_size
        self._mixture = Mixture(weights, config.seed)
        self._streams = [PackedStream(shard, config.seq_len, config.seed) for shard in shards]
        self._drawn = 0  # micro-batches of all ranks that were consumed
        self._positions = [0] * len(shards)  # tokens of each corpus that they took
        self._worker: Prefetcher[tuple[MicroBatch, int, list[int]]] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MicroBatch:
        if self._worker is None:
            self._worker = Prefetcher(self._produce(), self._config.prefetch)
        batch, self._drawn, self._positions = self._worker.get()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """What was consumed so far (never what was merely prefetched), as plain JSON values."""
        return {
            "seed": self._config.seed,
            "corpora": [stream.shard.sha256 for stream in self._streams],
            "drawn": self._drawn,
            "positions": list(self._positions),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on right after the micro-batch that was consumed last when ``state`` was taken.

        Raises ``CheckpointError`` when the state is of another corpus or seed.
        """
        for key, own in self.state_dict().items():
            if key not in state:
                raise CheckpointError(f"the loader's state has no {key!r}; it is incomplete")
            if key in ("seed", "corpora") and state[key] != own:
                raise CheckpointError(
                    f"the loader's state has {key}={state[key]}, this run has {own}; resume with "
                    "the data and seed that the run began with, or start a new run"
                )
        self.close()
        self._drawn = int(state["drawn"])
        self._positions = [int(position) for position in state["positions"]]

    def close(self) -> None:
        """Ends the worker; iteration may go on afterwards where it was."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _produce(self) -> Iterator[tuple[MicroBatch, int, list[int]]]:
        """This rank's micro-batches, each with the state after it. Runs in the worker."""
        drawn, positions = self._drawn, list(self._positions)
        num_tokens = self._config.tokens_per_microbatch
        while True:
            for rank in range(self._world_size):
                corpus = self._mixture.choose(drawn + rank)
                if rank == self._rank:
                    mine = self._streams[corpus], positions[corpus]
                positions[corpus] += num_tokens
            drawn += self._world_size
            stream, position = mine
            yield stream.read(position, num_tokens), drawn, list(positions)


def evaluation_batches(
    shard: TokenShard, tokens_per_microbatch: int, seq_len: int, max_tokens: int | None = None
) -> Iterator[MicroBatch]:
    """The same micro-batches at each call: the head of the shard, each token once.

    At most ``max_tokens`` tokens; the last micro-batch may be shorter. ``num_bytes`` is exact, so
    bits per byte = -sum(log2 p) / sum(num_bytes). Without ``max_tokens`` all held-out text is
    read, which makes scores of different tokenizers comparable byte for byte.
    """
    stream = PackedStream(shard, seq_len, shuffle=False)
    total = shard.num_tokens if max_tokens is None else min(max_tokens, shard.num_tokens)
    for position in range(0, total, tokens_per_microbatch):
        yield stream.read(position, min(tokens_per_microbatch, total - position))
