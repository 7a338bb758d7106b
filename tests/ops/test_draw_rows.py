"""The kernel that draws tokens for rows of logits, against the reference in torch."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selenite.errors import NonFiniteError
from selenite.ops import native, sampling
from selenite.ops.sampling import (
    Drawn,
    Row,
    draw_by_torch,
    draw_rows,
    sample_token,
    sampling_logits,
    uniform,
)
from selenite.types import SamplingParams

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason=f"no kernels here: {native.availability().reason}"
)

PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=0.7),
    SamplingParams(top_k=1),
    SamplingParams(top_k=50),
    SamplingParams(top_k=3000),
    SamplingParams(top_p=0.9),
    SamplingParams(top_p=0.3),
    SamplingParams(top_p=1e-9),
    SamplingParams(top_p=0.9999),
    SamplingParams(min_p=0.05),
    SamplingParams(min_p=1.0),
    SamplingParams(temperature=1.3, top_k=200, top_p=0.8, min_p=0.001),
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=1e-6),
    SamplingParams(temperature=1e6),
]


def randoms(vocab_size: int, seed: int, spread: float = 2.0) -> Tensor:
    return torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed)) * spread


def row(logits_V: Tensor, params: SamplingParams, position: int = 0) -> Row:
    own_V = None if params.logprobs is None else logits_V
    return Row(logits_V, params, 0, position, own_V)


def scored(params: SamplingParams, logprobs: int = 5) -> SamplingParams:
    return SamplingParams(
        **{
            name: getattr(params, name)
            for name in ("temperature", "top_k", "top_p", "min_p", "seed")
        },
        logprobs=logprobs,
    )


def check(logits_V: Tensor, params: SamplingParams, position: int = 0) -> None:
    """The kernel's token is the reference's, or the random number is as near to the border between
    the two as float32 rounds; the mass that the filters left is the same."""
    [drawn] = draw_rows([row(logits_V, scored(params), position)])
    expected = draw_by_torch(row(logits_V, scored(params), position))
    assert isinstance(drawn, Drawn)
    assert isinstance(expected, Drawn)
    if params.temperature == 0:
        assert drawn.token_id == expected.token_id
    elif drawn.token_id != expected.token_id:
        cumulative = sampling_logits(logits_V, params).softmax(0).double().numpy().cumsum()
        first, last = sorted((drawn.token_id, expected.token_id))
        number = uniform(params.seed, 0, position) * cumulative[-1]
        assert abs(cumulative[first] - number) < 1e-6
        assert abs(cumulative[last - 1] - number) < 1e-6
        return
    # The log-sum-exp is rounded to float32.
    tolerance = 1e-6 * max(4.0, float(logits_V[logits_V.isfinite()].abs().max()))
    scale = 1 / params.temperature if params.temperature else 1.0
    assert drawn.logprob == pytest.approx(expected.logprob, abs=tolerance)
    bound = tolerance * max(scale, 1.0)
    assert drawn.sampled_logprob == pytest.approx(expected.sampled_logprob, abs=bound)
    values = [value for _, value in drawn.top]
    assert values == pytest.approx([value for _, value in expected.top], abs=tolerance)
    ids = [token for token, _ in drawn.top]
    ordered = logits_V.float().sort(descending=True, stable=True).indices
    assert ids == ordered[: len(ids)].tolist()
    assert len(ids) == min(5, len(logits_V))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", [1, 2, 63, 64, 65, 4999])
def test_is_the_reference(dtype: torch.dtype, vocab_size: int) -> None:
    for seed, params in enumerate(PARAMS):
        for spread in (0.1, 2.0, 6.0):
            check(randoms(vocab_size, seed, spread).to(dtype), params, position=seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("params", PARAMS)
def test_is_the_reference_in_a_large_vocabulary(params: SamplingParams, dtype: torch.dtype) -> None:
    """Here borders lie in ranges of thousands of tokens."""
    for seed, spread in enumerate((0.01, 1.0, 3.0)):
        check(randoms(49_157, seed, spread).to(dtype), params, position=seed)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 9999),
    vocab_size=st.sampled_from([1, 5, 64, 200, 3000]),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 5, 60, 900, 10**30]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 1e-6]),
    min_p=st.sampled_from([0.0, 0.02, 0.5]),
    levels=st.sampled_from([0, 1, 3]),
    masked=st.sampled_from([0.0, 0.5, 0.99]),
)
def test_filters_together_over_ties_and_masks(
    seed: int,
    vocab_size: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    levels: int,
    masked: float,
) -> None:
    """Logits of few values tie at every border; those of masked tokens are -infinity."""
    logits_V = randoms(vocab_size, seed)
    if levels:
        logits_V = logits_V.sign() * (logits_V.abs() * levels / 4).floor()
    random_V = torch.rand(vocab_size, generator=torch.Generator().manual_seed(seed + 1))
    random_V[seed % vocab_size] = 1.0  # one remains
    logits_V = logits_V.masked_fill(random_V < masked, -torch.inf)
    params = SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed
    )
    if top_p < 1 and levels and temperature:
        # Where equal shares add up to top_p itself, rounding decides; not what is tested here.
        kept_V = sampling_logits(logits_V, SamplingParams(
            temperature=temperature, top_k=top_k, min_p=min_p))  # fmt: skip
        shares_V = kept_V.softmax(0).double().sort(descending=True).values
        if (shares_V.cumsum(0) - top_p).abs().min() < 1e-5:
            return
    check(logits_V, params)


@pytest.mark.parametrize("params", [SamplingParams(top_k=700), SamplingParams(top_p=0.25001)])
@pytest.mark.parametrize("vocab_size", [2000, 49_152])
def test_of_equal_logits_lower_ids_stay(params: SamplingParams, vocab_size: int) -> None:
    logits_V = torch.zeros(vocab_size)
    kept = params.top_k or math.ceil(vocab_size * params.top_p)
    drawn = draw_rows([row(logits_V, params, position) for position in range(400)])
    for position, token in enumerate(drawn):
        assert isinstance(token, Drawn)
        assert token.token_id == int(uniform(0, 0, position) * kept)


def test_a_token_that_alone_is_allowed() -> None:
    for params in PARAMS:
        for vocab_size in (1, 70, 5000):
            logits_V = torch.full((vocab_size,), -torch.inf)
            logits_V[vocab_size // 2] = -3.0
            assert sample_token(logits_V, params, 0, 1) == vocab_size // 2


def test_a_far_outlier_leaves_the_filters_exact() -> None:
    """All other logits are in one bin then."""
    logits_V = randoms(5000, 1)
    logits_V[17] = -1e30
    for params in PARAMS:
        if params.temperature >= 0.5:
            check(logits_V, params)


def steps(dtype: torch.dtype) -> list[Row]:
    rows = []
    for i, params in enumerate([*PARAMS, *map(scored, PARAMS)]):
        own_V = randoms(3001, i, 3.0).to(dtype)
        adjusted_V = own_V.float() + 0.25 if i % 3 == 0 else own_V
        rows.append(Row(adjusted_V, params, i, 7, None if params.logprobs is None else own_V))
    return rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_depends_on_neither_threads_nor_neighbours(dtype: torch.dtype) -> None:
    rows = steps(dtype)
    alone = [draw_rows([row])[0] for row in rows]
    threads = torch.get_num_threads()
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            assert draw_rows(rows) == alone
            assert draw_rows(rows[::-1]) == alone[::-1]
    finally:
        torch.set_num_threads(threads)


def test_own_distribution_is_that_of_the_unadjusted_logits() -> None:
    own_V = randoms(300, 2)
    adjusted_V = own_V.clone()
    adjusted_V[:200] = -torch.inf
    params = SamplingParams(temperature=0.8, logprobs=3)
    [drawn] = draw_rows([Row(adjusted_V, params, 0, 0, own_V)])
    assert isinstance(drawn, Drawn)
    own = own_V.log_softmax(0)
    sampled = (adjusted_V / 0.8).log_softmax(0)
    assert drawn.token_id >= 200
    assert drawn.logprob == pytest.approx(float(own[drawn.token_id]), abs=2e-6)
    assert drawn.sampled_logprob == pytest.approx(float(sampled[drawn.token_id]), abs=2e-6)
    assert [token for token, _ in drawn.top] == own.topk(3).indices.tolist()


@pytest.mark.parametrize("logprobs", [None, 2])
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_fails_alone(
    bad: float, temperature: float, logprobs: int | None
) -> None:
    params = SamplingParams(temperature=temperature, logprobs=logprobs, top_k=5, top_p=0.9)
    good_V = randoms(100, 0)
    bad_V = good_V.clone()
    bad_V[:] = bad if bad < 0 else bad_V
    bad_V[41] = bad
    first, failed, last = draw_rows([row(x_V, params, 5) for x_V in (good_V, bad_V, good_V)])
    assert isinstance(first, Drawn)
    assert first == last
    assert isinstance(failed, NonFiniteError)
    assert f"position 5 is {bad}" in str(failed)


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
    logits_V = torch.linspace(-1.5, 1.5, 8)[torch.randperm(8, generator=torch.manual_seed(1))]
    expected = sampling_logits(logits_V, params).softmax(0) * 4000
    drawn = draw_rows([row(logits_V, params, position) for position in range(4000)])
    counts = Counter(token.token_id for token in drawn if isinstance(token, Drawn))
    assert set(counts) == set(expected.nonzero()[:, 0].tolist())
    chi_square = sum((counts[i] - expected[i].item()) ** 2 / expected[i].item() for i in counts)
    assert chi_square < 25  # 7 degrees of freedom at most: probability below 0.001 by chance


def test_rows_that_are_not_contiguous() -> None:
    logits_VB = randoms(80 * 3, 3).view(80, 3)
    params = SamplingParams(top_k=9, logprobs=4)
    strided = draw_rows([row(logits_V, params) for logits_V in logits_VB.T])
    assert strided == draw_rows([row(x_V, params) for x_V in logits_VB.T.contiguous()])


def test_other_dtypes_are_drawn_in_torch_whatever_is_beside_them() -> None:
    half_V = randoms(90, 4).half()
    params = SamplingParams(top_p=0.9)
    [alone] = draw_rows([row(half_V, params)])
    assert draw_rows([row(half_V.float(), params), row(half_V, params)])[1] == alone
    assert alone == sampling.draw_by_torch(row(half_V, params))


def test_number_is_numpys() -> None:
    """numpy's own generator is what the number is defined by."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        seed, sample, position = (int(rng.integers(0, top)) for top in (2**63, 1000, 10**6))
        seed = seed * 2 + sample % 2
        philox = np.random.Philox(key=seed, counter=[0, position, sample, 0])
        assert uniform(seed, sample, position) == np.random.Generator(philox).random()
