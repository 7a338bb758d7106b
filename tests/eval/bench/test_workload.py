"""Workloads: the same from the same seed, with the lengths, sharing and arrivals that they say."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import pytest

from selenite.errors import ConfigError
from selenite.eval.bench.workload import SHAREGPT_RANGE, arrivals, fixed, sharegpt_like


def test_fixed_lengths_and_a_shared_prefix() -> None:
    requests = fixed(3, input_len=10, output_len=4, prefix_len=6)
    assert {(r.input_len, r.output_len) for r in requests} == {(16, 4)}
    assert {r.blocks[0] for r in requests} == {(0, 6)}
    assert len({r.blocks[1][0] for r in requests}) == 3
    assert all(sum(length for _, length in r.blocks) == r.input_len for r in requests)
    assert all(len(r.blocks) == 1 for r in fixed(3, 10, 4))


def test_sharegpt_like_lengths() -> None:
    """Cutting the tail of a log-normal takes some of the mean; the median is the formula's."""
    requests = sharegpt_like(4000, seed=1)
    assert requests == sharegpt_like(4000, seed=1)
    assert requests != sharegpt_like(4000, seed=2)
    inputs = [r.input_len for r in requests]
    outputs = [r.output_len for r in requests]
    assert SHAREGPT_RANGE[0] <= min(inputs) < max(inputs) <= SHAREGPT_RANGE[1]
    assert statistics.median(inputs) == pytest.approx(161.31 * math.exp(-(1.2**2) / 2), rel=0.08)
    assert statistics.median(outputs) == pytest.approx(337.99 * math.exp(-(0.9**2) / 2), rel=0.08)
    assert 120 < statistics.mean(inputs) < 161.31
    assert 280 < statistics.mean(outputs) < 337.99
    scaled = sharegpt_like(4000, seed=1, scale=0.25)
    assert all(s.input_len == max(1, round(s.input_len)) for s in scaled)
    assert statistics.mean(r.input_len for r in scaled) == pytest.approx(
        statistics.mean(inputs) / 4, rel=0.02
    )


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 16.0])
def test_arrivals_have_the_rate_and_the_burstiness(burstiness: float) -> None:
    """Gaps of mean 1/rate, whose coefficient of variation is 1/sqrt(burstiness)."""
    times = arrivals(8001, rate=5.0, burstiness=burstiness, seed=0)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 0.0
    assert min(gaps) >= 0
    assert statistics.mean(gaps) == pytest.approx(0.2, rel=0.1)
    variation = statistics.stdev(gaps) / statistics.mean(gaps)
    assert variation == pytest.approx(burstiness**-0.5, rel=0.1)
    assert times == arrivals(8001, 5.0, burstiness, seed=0)
    assert times != arrivals(8001, 5.0, burstiness, seed=1)


def test_all_at_once() -> None:
    assert arrivals(3, math.inf, 1.0, 0) == (0.0, 0.0, 0.0)
    assert arrivals(1, 2.0, 1.0, 0) == (0.0,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: arrivals(3, 0.0, 1.0, 0), "--request-rate 0"),
        (lambda: arrivals(3, math.nan, 1.0, 0), "--request-rate nan"),
        (lambda: arrivals(3, 1.0, 0.0, 0), "--burstiness 0"),
        (lambda: arrivals(3, 1.0, math.inf, 0), "--burstiness inf"),
        (lambda: fixed(1, 0, 4), "lengths 0 and 4"),
        (lambda: fixed(1, 4, 4, -1), "--prefix-len -1"),
    ],
)
def test_values_out_of_range(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
