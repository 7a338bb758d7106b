"""How sure is a score: intervals of shares and of differences, and what n trials say of k.

Wilson's interval (E. B. Wilson, 1927) for a share of independent items; a bootstrap over items for
the difference of two agents on the same items; McNemar's exact test for the same with right and
wrong alone; pass^k as in tau-bench (arXiv 2406.12045, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_Z = 1.959963984540054  # of 95 percent
_ROUNDS = 10_000


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share; of nothing at all, everything from 0 to 1."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = right / total, _Z * _Z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean of values from 0 to 1: Wilson's where all are 0 or 1, else a
    bootstrap's."""
    if all(value in (0, 1) for value in values):
        return wilson(round(sum(values)), len(values))
    _, low, high = bootstrap_difference([0.0] * len(values), values)
    return low, high


def bootstrap_difference(
    first: Sequence[float], second: Sequence[float], seed: int = 0
) -> tuple[float, float, float]:
    """Mean difference of the second to the first on the same items, and its 95 % interval."""
    assert len(first) == len(second) > 0
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    generator = np.random.Generator(np.random.Philox(key=seed))
    drawn = generator.integers(0, len(difference), size=(_ROUNDS, len(difference)))
    means = difference[drawn].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Probability of a disagreement at least as uneven if both agents were equally good."""
    assert len(first) == len(second)
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    total, fewer = only_first + only_second, min(only_first, only_second)
    if total == 0:
        return 1.0
    tail = sum(math.comb(total, k) for k in range(fewer + 1)) / 2**total
    return min(1.0, 2 * tail)


def pass_hat_k(successes: Sequence[int], trials: int, k: int) -> float:
    """pass^k: the chance that k trials of a task, drawn from its own, all succeed; the mean over
    tasks. ``successes`` are each task's among ``trials``."""
    if not 1 <= k <= trials:
        raise ValueError(f"k={k}: must be from 1 to trials={trials}")
    whole = math.comb(trials, k)
    return sum(math.comb(count, k) for count in successes) / (whole * len(successes))
