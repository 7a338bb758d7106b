"""From comparisons of two to a reward for each: the share of comparisons that an attempt wins.

Letters: ``G`` attempts of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

import numpy as np

_ALL_PAIRS = 6  # attempts up to which each is compared with each other
_NEIGHBOURS = 2  # beyond, each is compared with so many on either side of it in a drawn circle


@dataclass(frozen=True)
class Comparison:
    """Two attempts, looked at in both orders."""

    left: int
    right: int
    left_first: float  # probability that ``left`` is better, where it is shown first
    left_second: float  # the same, where it is shown second

    @property
    def is_consistent(self) -> bool:
        """Whether the order made no difference."""
        return (self.left_first > 0.5) == (self.left_second > 0.5)

    @property
    def gain(self) -> float:
        """What ``left`` wins: 1, 0, or 0.5 where the order decided."""
        return float(self.left_first > 0.5) if self.is_consistent else 0.5


def tie(left: int, right: int) -> Comparison:
    """A comparison that nobody wins: each loses where it is shown first."""
    return Comparison(left, right, 0.0, 1.0)


def pairings(count: int, rng: Random) -> list[tuple[int, int]]:
    """Who is compared with whom: everyone with everyone, or with four others."""
    if count <= _ALL_PAIRS:
        return list(combinations(range(count), 2))
    circle = rng.sample(range(count), count)
    return [
        (circle[i], circle[(i + step) % count])
        for step in range(1, _NEIGHBOURS + 1)
        for i in range(count)
    ]


def win_rates(count: int, comparisons: Sequence[Comparison]) -> np.ndarray:
    """Float64 ``[G]``, 0 to 1: wins and half of the ties by comparisons; 0.5 without any."""
    won_G, seen_G = np.zeros(count), np.zeros(count)
    for one in comparisons:
        won_G[one.left] += one.gain
        won_G[one.right] += 1 - one.gain
        seen_G[[one.left, one.right]] += 1
    return np.divide(won_G, seen_G, out=np.full(count, 0.5), where=seen_G > 0)


@dataclass(frozen=True)
class LengthBias:
    """How much more an attempt wins for being longer, within its group."""

    slope: float  # win rate by the logarithm of the length
    deviation: float  # standard error of the slope

    @property
    def is_significant(self) -> bool:
        """Beyond two standard errors."""
        return abs(self.slope) > 2 * self.deviation


def length_bias(
    rates: Sequence[np.ndarray], lengths: Sequence[np.ndarray]
) -> tuple[LengthBias, list[np.ndarray]]:
    """The bias of a batch of groups, by least squares on differences from each group's mean; and
    the win rates without it, if it is significant, which stay within 0 to 1.

    Args:
        rates: float64 ``[G]`` of each group.
        lengths: ``[G]``, in tokens, 1 at least.
    """
    logs = [np.log(np.maximum(lengths_G, 1)) for lengths_G in lengths]
    logs = [logs_G - logs_G.mean() for logs_G in logs]
    x = np.concatenate(logs) if logs else np.zeros(0)
    y = np.concatenate([r - r.mean() for r in rates]) if rates else np.zeros(0)
    spread, free = float(x @ x), len(x) - len(logs) - 1
    if spread < 1e-9 or free < 1:
        return LengthBias(0.0, float("inf")), list(rates)
    slope = float(x @ y) / spread
    residual = y - slope * x
    bias = LengthBias(slope, float(np.sqrt(residual @ residual / free / spread)))
    if not bias.is_significant:
        return bias, list(rates)
    return bias, [
        np.clip(rates_G - slope * logs_G, 0, 1) for rates_G, logs_G in zip(rates, logs, strict=True)
    ]
