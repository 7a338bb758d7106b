"""From comparisons to rewards, by hand and by properties."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from selenite.rl.critic.ranking import Comparison, length_bias, pairings, tie, win_rates


def test_pairs_are_all_or_four_for_each() -> None:
    for count in range(7):
        assert len(set(pairings(count, Random(0)))) == count * (count - 1) // 2
    for count in range(7, 40):
        pairs = [frozenset(pair) for pair in pairings(count, Random(count))]
        assert len(set(pairs)) == len(pairs) == 2 * count
        assert all(len(pair) == 2 for pair in pairs)
        for i in range(count):
            assert sum(i in pair for pair in pairs) == 4


def test_a_strict_order_is_what_is_earned() -> None:
    quality = [0.3, 0.9, 0.1, 0.5]
    comparisons = [
        Comparison(a, b, float(quality[a] > quality[b]), float(quality[a] > quality[b]))
        for a, b in pairings(4, Random(1))
    ]
    assert win_rates(4, comparisons).tolist() == pytest.approx([1 / 3, 1, 0, 2 / 3])


def test_what_the_order_decides_is_a_tie() -> None:
    # A critic that always says "the first one".
    comparisons = [tie(a, b) for a, b in pairings(5, Random(2))]
    assert not any(one.is_consistent for one in comparisons)
    assert win_rates(5, comparisons).tolist() == [0.5] * 5
    assert win_rates(1, []).tolist() == [0.5]


def test_the_sum_of_rewards_is_half_of_all() -> None:
    rng = np.random.default_rng(3)
    for count in (2, 5, 8, 13):
        comparisons = [
            Comparison(a, b, float(rng.random()), float(rng.random()))
            for a, b in pairings(count, Random(count))
        ]
        assert win_rates(count, comparisons).sum() == pytest.approx(count / 2)


def test_length_bias_is_the_slope_of_least_squares() -> None:
    rng = np.random.default_rng(4)
    lengths = [rng.integers(5, 200, size=8) for _ in range(20)]
    clean = [rng.random(8) * 0.2 + 0.4 for _ in lengths]
    biased = [
        np.clip(r + 0.1 * (np.log(n) - np.log(n).mean()), 0, 1)
        for r, n in zip(clean, lengths, strict=True)
    ]
    bias, corrected = length_bias(biased, lengths)
    # The same by a dense solver, with an intercept for each group.
    x = np.concatenate([np.log(n) for n in lengths])[:, None]
    design = np.hstack([x, np.kron(np.eye(20), np.ones((8, 1)))])
    solved = np.linalg.lstsq(design, np.concatenate(biased), rcond=None)[0]
    assert bias.slope == pytest.approx(solved[0])
    assert bias.is_significant
    again, _ = length_bias(corrected, lengths)
    assert abs(again.slope) < 1e-9
    free, kept = length_bias(clean, lengths)
    assert not free.is_significant
    assert kept == clean


def test_without_differences_there_is_no_bias() -> None:
    for lengths in ([np.array([7, 7, 7])], [], [np.array([3])]):
        rates = [np.full(len(n), 0.5) for n in lengths]
        bias, kept = length_bias(rates, lengths)
        assert not bias.is_significant
        assert kept == rates
