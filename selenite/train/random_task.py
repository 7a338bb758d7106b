"""A pre-training task on random tokens in memory: a config's own step before its data exist.

Documents have random lengths, as real ones do: attention groups them by length, and what it holds
depends on that. Read by ``memory.py``, which counts the step's bytes, by ``memory_measure.py``,
which runs it, and by ``benchmarks/trainees.py``, which gives all documents one length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from selenite.data.corpus import INDEX_DTYPE, TokenCorpus, TokenShard
from selenite.data.loader import Loader, LoaderConfig
from selenite.model.transformer import Transformer
from selenite.optim.schedule import Schedule
from selenite.train.pretrain_config import PretrainConfig
from selenite.train.pretrain_task import PretrainTask


@dataclass(frozen=True)
class _RandomCorpus:
    """What a training step reads of a ``TokenCorpus``."""

    train: TokenShard
    tokenizer_fingerprint: str = "random tokens"


def random_task(
    config: PretrainConfig, model: Transformer, lengths: Sequence[int] | None = None
) -> PretrainTask:
    """The task of ``config`` on ``model``, with the config's own loader; ``close`` it after use.

    ``lengths`` are those of the documents; None: random ones, enough for two steps.
    """
    train = config.train
    shard = random_shard(config, lengths)
    sizes = LoaderConfig(
        tokens_per_microbatch=train.micro_batch_tokens, seq_len=train.seq_len, seed=train.seed
    )
    return PretrainTask(
        model,
        [cast(TokenCorpus, _RandomCorpus(shard))],
        Loader(shard, sizes),
        config.optim,
        Schedule(config.schedule, train.num_steps),
        train,
        config.lora,
    )


def random_shard(config: PretrainConfig, lengths: Sequence[int] | None = None) -> TokenShard:
    """Random tokens in documents of ``lengths``, or of 2 to ``2 * train.seq_len`` tokens."""
    train, vocab_size = config.train, config.model.vocab_size
    generator = np.random.Generator(np.random.Philox(key=train.seed))
    if lengths is None:
        lengths = _random_lengths(train.seq_len, 2 * train.batch_tokens, generator)
    index = np.zeros(len(lengths), dtype=INDEX_DTYPE)
    index["length"] = lengths
    index["start"] = np.cumsum(lengths) - lengths
    index["num_bytes"] = lengths
    tokens = generator.integers(0, vocab_size, size=sum(lengths), dtype=np.uint32)
    token_bytes_V = np.ones(vocab_size, dtype=np.int32)
    return TokenShard("train", tokens, index, token_bytes_V, sha256="random tokens")


def _random_lengths(seq_len: int, num_tokens: int, generator: np.random.Generator) -> list[int]:
    lengths: list[int] = []
    while sum(lengths) < num_tokens:
        lengths.append(int(generator.integers(2, 2 * seq_len + 1)))
    return lengths
