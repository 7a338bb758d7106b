"""Weighted mixtures of corpora: which corpus the next micro-batch comes from.

The choice for micro-batch i depends on (seed, i) alone. Micro-batches have equal size, so the
shares of tokens converge to the weights. Used by ``loader.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Discriminator, Field, Tag

from selenite.config import Config
from selenite.data.corpus import TokenCorpus
from selenite.data.prepare import DataConfig, Progress, prepare
from selenite.errors import ConfigError

_PURPOSE = 1  # counter word that keeps these draws apart from the shuffling of documents


class MixturePart(Config):
    """One corpus of a mixture."""

    weight: float = Field(gt=0)  # relative to the other parts
    data: DataConfig


class MixtureConfig(Config):
    """Corpora and their weights. All use the tokenizer of the first."""

    parts: tuple[MixturePart, ...] = Field(min_length=1)

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(part.weight for part in self.parts)


def _kind_of_data(value: Any) -> str:
    """A table with ``parts`` is meant as a mixture, whatever else is wrong with it."""
    is_mixture = isinstance(value, MixtureConfig) or (isinstance(value, dict) and "parts" in value)
    return "mixture" if is_mixture else "corpus"


CorpusOrMixture = Annotated[
    Annotated[DataConfig, Tag("corpus")] | Annotated[MixtureConfig, Tag("mixture")],
    Discriminator(_kind_of_data),
]


def prepare_mixture(
    config: MixtureConfig, cache_dir: str | Path, progress: Progress | None = None
) -> list[TokenCorpus]:
    """The corpora of the parts, in order, all tokenised alike; raises as ``prepare`` does."""
    first, *others = config.parts
    corpora = [prepare(first.data, cache_dir, progress)]
    for part in others:
        corpora.append(prepare(part.data, cache_dir, progress, corpora[0].tokenizer))
    return corpora


class Mixture:
    """Counter-based choice among ``len(weights)`` corpora."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        if not weights or not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ConfigError(f"weights={list(weights)}: each must be a positive number")
        self._ends = np.cumsum(np.asarray(weights, dtype=np.float64))
        self._seed = seed

    def choose(self, index: int) -> int:
        """The corpus of micro-batch ``index``."""
        bits = np.random.Philox(key=self._seed, counter=[0, 0, _PURPOSE, index])
        draw = np.random.Generator(bits).random() * self._ends[-1]
        place = int(np.searchsorted(self._ends, draw, side="right"))
        return min(place, len(self._ends) - 1)  # the product can round up to the total
