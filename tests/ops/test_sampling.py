"""Sampling: filters against brute force, the distribution itself, and counter-based randomness."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from selenite.errors import NonFiniteError
from selenite.ops.sampling import (
    Purpose,
    penalized_logits,
    sample_token,
    sampling_logits,
    uniform,
)
from selenite.types import SamplingParams


def brute_force_kept(logits: list[float], params: SamplingParams) -> set[int]:
    """Temperature, top-k, min-p, top-p, one after another, in Python floats."""
    scaled = [x / params.temperature for x in logits]
    kept = sorted(range(len(scaled)), key=lambda i: (-scaled[i], i))
    if params.top_k:
        kept = kept[: params.top_k]
    weights = {i: math.exp(scaled[i] - scaled[kept[0]]) for i in kept}
    kept = [i for i in kept if weights[i] >= params.min_p]
    total = sum(weights[i] for i in kept)
    nucleus: list[int] = []
    mass = 0.0
    for i in kept:
        if params.top_p < 1 and mass >= params.top_p:  # 1 keeps all, whatever the sum rounds to
            break
        nucleus.append(i)
        mass += weights[i] / total
    return set(nucleus)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 999),
    st.sampled_from([0.3, 1.0, 1.7]),
    st.sampled_from([0, 1, 5, 30, 500]),
    st.sampled_from([1.0, 0.9, 0.3, 1e-6]),
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)
def test_filters(seed: int, temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    logits = torch.randn(30, generator=torch.Generator().manual_seed(seed)) * 2
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    filtered = sampling_logits(logits, params)
    kept = set(filtered.isfinite().nonzero()[:, 0].tolist())
    assert kept == brute_force_kept(logits.tolist(), params)
    ids = sorted(kept)
    assert torch.equal(filtered[ids], (logits / temperature)[ids])


def test_ties_at_the_border_keep_the_lower_id() -> None:
    logits = torch.tensor([1.0, 3.0, 1.0, 3.0, 1.0])
    kept = sampling_logits(logits, SamplingParams(top_k=3)).isfinite()
    assert kept.tolist() == [True, True, False, True, False]
    kept = sampling_logits(torch.zeros(4), SamplingParams(top_p=0.5)).isfinite()
    assert kept.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=11),
        SamplingParams(seed=12, temperature=0.7, top_k=5),
        SamplingParams(seed=13, top_p=0.8, min_p=0.05),
    ],
)
def test_distribution(params: SamplingParams) -> None:
    """Chi-square of 4,000 draws; with a fixed seed it either always passes or never does."""
    logits = torch.linspace(-1.5, 1.5, 8)[torch.randperm(8, generator=torch.manual_seed(1))]
    expected = sampling_logits(logits, params).softmax(0) * 4000
    counts = Counter(sample_token(logits, params, sample=0, position=i) for i in range(4000))
    assert set(counts) == set(expected.nonzero()[:, 0].tolist())
    chi_square = sum((counts[i] - expected[i].item()) ** 2 / expected[i].item() for i in counts)
    assert chi_square < 25  # 7 degrees of freedom at most: probability below 0.001 by chance


def test_samples_of_a_position_are_distributed_too() -> None:
    """The same over sample numbers, and over seeds: no counter is a constant."""
    for draws in (
        [uniform(5, sample, 3) for sample in range(2000)],
        [uniform(seed, 0, 3) for seed in range(2000)],
    ):
        assert abs(np.mean(draws) - 0.5) < 0.03  # 4 standard errors of 2,000 uniform numbers
        assert abs(np.std(draws) - math.sqrt(1 / 12)) < 0.02
        assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.1
        assert 0 <= min(draws) <= max(draws) < 1


def test_number_is_a_function_of_its_counter_alone() -> None:
    grid = [(seed, sample, pos) for seed in (0, 1, 2**64 - 1) for sample in range(3)
            for pos in range(5)]  # fmt: skip
    forward = {key: uniform(*key) for key in grid}
    backward = {key: uniform(*key) for key in reversed(grid)}
    assert forward == backward
    assert len(set(forward.values())) == len(grid)


def test_number_is_pinned() -> None:
    """Recorded runs are replayed by seed: a change of generator must be seen."""
    philox = np.random.Philox(key=7, counter=[0, 5, 2, int(Purpose.SAMPLE)])
    word = int(philox.random_raw())
    assert uniform(7, 2, 5) == (word >> 11) * 2.0**-53
    assert uniform(7, 2, 5) == 0.015694984907741794


def test_inverse_of_the_cumulative_distribution_in_id_order() -> None:
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()
    params = SamplingParams(seed=21)
    for position in range(200):
        number = uniform(21, 0, position)
        expected = int(np.searchsorted([0.1, 0.5, 0.8, 1.0], number, side="right"))
        assert sample_token(logits, params, 0, position) == expected


def test_greedy_takes_the_lowest_id_of_the_largest() -> None:
    logits = torch.zeros(4000)
    logits[[7, 8, 3999]] = 2.0
    assert sample_token(logits, SamplingParams(temperature=0), 0, 0) == 7
    assert sample_token(logits.bfloat16(), SamplingParams(temperature=0), 0, 0) == 7


@pytest.mark.parametrize("params", [SamplingParams(top_k=1), SamplingParams(top_p=1e-9)])
def test_narrowest_filters_are_greedy(params: SamplingParams) -> None:
    logits = torch.randn(60, generator=torch.Generator().manual_seed(4))
    assert {sample_token(logits, params, 0, i) for i in range(20)} == {int(logits.argmax())}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_that_diverged_is_an_error(temperature: float, bad: float) -> None:
    logits = torch.zeros(10)
    logits[3] = bad
    with pytest.raises(NonFiniteError, match="position 5"):
        sample_token(logits, SamplingParams(temperature=temperature), 0, 5)


def test_tokens_masked_by_minus_infinity_are_never_drawn() -> None:
    logits = torch.zeros(10)
    logits[[0, 9]] = -math.inf
    drawn = {sample_token(logits, SamplingParams(seed=1), 0, i) for i in range(200)}
    assert drawn == set(range(1, 9))


def test_bfloat16_logits_are_filtered_in_float32() -> None:
    logits = torch.randn(20, generator=torch.Generator().manual_seed(5)).bfloat16()
    params = SamplingParams(temperature=0.9, top_p=0.7)
    assert_close(sampling_logits(logits, params), sampling_logits(logits.float(), params))


def test_biases_are_added_to_their_tokens() -> None:
    """Also where a token stands there twice."""
    logits_V = torch.tensor([0.5, 1.0, -2.0])
    params = SamplingParams(logit_bias=((1, 2.0), (2, 0.25), (1, -0.5)))
    assert_close(penalized_logits(logits_V, params, (), ()), torch.tensor([0.5, 2.5, -1.75]))
    assert_close(logits_V, torch.tensor([0.5, 1.0, -2.0]))
