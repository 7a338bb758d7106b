"""Intervals and tests against closed forms and against trying everything."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest

from selenite.eval.statistics import bootstrap_difference, mcnemar, pass_hat_k, wilson


@pytest.mark.parametrize(("right", "total"), [(0, 10), (80, 200), (199, 200), (7, 7), (1, 3)])
def test_wilsons_bounds_are_where_the_normal_test_just_rejects(right: int, total: int) -> None:
    """They solve |p - share| = z sqrt(p (1 - p) / n)."""
    for bound in wilson(right, total):
        if 0 < bound < 1:
            distance = abs(bound - right / total)
            assert distance == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / total))
    low, high = wilson(right, total)
    assert 0 <= low <= right / total <= high <= 1


def test_two_hundred_items_are_worth_seven_points() -> None:
    low, high = wilson(80, 200)
    assert (high - low) / 2 == pytest.approx(0.067, abs=0.002)
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_covers_ninety_five_percent() -> None:
    total, share = 40, 0.3
    covered = sum(
        math.comb(total, k) * share**k * (1 - share) ** (total - k)
        for k in range(total + 1)
        if wilson(k, total)[0] <= share <= wilson(k, total)[1]
    )
    assert 0.93 < covered < 0.97


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_pass_hat_k_is_what_trying_all_draws_gives(k: int) -> None:
    outcomes = [(1, 1, 0, 1), (0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 1)]
    tried = [
        sum(all(draw) for draw in combinations(task, k)) / math.comb(4, k) for task in outcomes
    ]
    assert pass_hat_k([sum(task) for task in outcomes], 4, k) == pytest.approx(np.mean(tried))


def test_pass_hat_k_refuses_more_than_there_were() -> None:
    with pytest.raises(ValueError, match="k=5: must be from 1 to trials=4"):
        pass_hat_k([1], 4, 5)


def test_mcnemar_is_what_trying_all_coins_gives() -> None:
    first = [True] * 5 + [False] * 2 + [True] * 9
    second = [False] * 5 + [True] * 2 + [True] * 9
    # Seven questions disagree; a fair coin for each is at least as uneven as 5 to 2 so often:
    uneven = sum(abs(2 * sum(coins) - 7) >= 3 for coins in product((0, 1), repeat=7)) / 2**7
    assert mcnemar(first, second) == pytest.approx(uneven)
    assert mcnemar(first, first) == 1.0


def test_the_bootstrap_finds_the_standard_error() -> None:
    generator = np.random.Generator(np.random.Philox(key=1))
    first, noise = generator.random(400), generator.normal(0.1, 0.5, 400)
    mean, low, high = bootstrap_difference(first.tolist(), (first + noise).tolist())
    assert mean == pytest.approx(noise.mean())
    error = noise.std() / 20
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)
