"""Objectives against closed forms: REINFORCE, the tilted policy, and each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from selenite.rl.advantage import Baseline, advantages, is_degenerate, standardised
from selenite.rl.objective import (
    Counts,
    DapoConfig,
    GrpoConfig,
    GspoConfig,
    K2Config,
    K25Config,
    Objective,
    Scored,
)

BASELINES: tuple[Baseline, ...] = ("mean", "loo", "exact")
OBJECTIVES: list[Any] = [K2Config(), GrpoConfig(), DapoConfig(), GspoConfig(), K25Config()]
LENGTHS = (3, 7, 1, 5)


def make_scored(
    seed: int = 0, distance: float = 0.0, engine: float = 0.0, dtype: torch.dtype = torch.float64
) -> tuple[Scored, Counts]:
    """Two groups of two rollouts, each ``distance`` nats a token away from the old policy."""
    generator = torch.Generator().manual_seed(seed)
    num_tokens = sum(LENGTHS)
    old_T = -torch.rand(num_tokens, generator=generator, dtype=dtype) - 0.1
    noise_T = torch.randn(num_tokens, generator=generator, dtype=dtype)
    scored = Scored(
        logprobs_T=(old_T + distance * noise_T).requires_grad_(),
        old_logprobs_T=old_T,
        engine_logprobs_T=old_T + engine,
        rollout_T=torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS)),
        advantages_R=torch.tensor([0.5, -0.5, 0.25, -0.25], dtype=dtype),
        weights_R=torch.full((4,), 0.25, dtype=dtype),
    )
    return scored, Counts(num_tokens, 4)


def gradient(objective: Any, scored: Scored, counts: Counts) -> Tensor:
    loss, _ = objective.loss(scored, counts)
    (found,) = torch.autograd.grad(loss, scored.logprobs_T)
    return found


@pytest.mark.parametrize("tau", [0.03, 1.0, 30.0])
def test_k2_begins_with_the_gradient_of_reinforce_whatever_tau_is(tau: float) -> None:
    scored, counts = make_scored()
    mean_length = counts.num_tokens / counts.num_rollouts
    expected_T = -(scored.weights_R * scored.advantages_R)[scored.rollout_T] / mean_length
    found_T = gradient(K2Config(tau=tau), scored, counts)
    torch.testing.assert_close(found_T, expected_T, rtol=1e-6, atol=1e-12)


def test_k2_pulls_no_more_where_the_log_ratio_is_the_advantage_over_tau() -> None:
    scored, counts = make_scored()
    lengths_R = torch.tensor(LENGTHS, dtype=torch.float64)
    wanted_R = scored.advantages_R / 0.2
    there = Scored(
        (scored.old_logprobs_T + (wanted_R / lengths_R)[scored.rollout_T]).requires_grad_(),
        *(scored.old_logprobs_T, scored.engine_logprobs_T, scored.rollout_T),
        *(scored.advantages_R, scored.weights_R),
    )
    loss, metrics = K2Config(tau=0.2).loss(there, counts)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    assert float(metrics["rho"]) == pytest.approx(float(metrics["rho_wanted"]))


# Six answers, the two right ones with a probability of 0.2 together: a group of ten, in which each
# answer stands as often as the old policy draws it.
ANSWERS = [0, 1, 2, 2, 3, 3, 4, 4, 5, 5]
OLD_6 = torch.tensor([0.1, 0.1, 0.2, 0.2, 0.2, 0.2], dtype=torch.float64).log()


def optimum(tau: float, baseline: Baseline) -> tuple[float, float]:
    """The probability of a right answer, and the residual that is left, mean square."""
    rewards_G = np.array([float(answer < 2) for answer in ANSWERS])
    answers_T = torch.tensor(ANSWERS)
    advantages_R = torch.from_numpy(advantages(rewards_G, baseline, tau))
    logits_6 = OLD_6.clone().requires_grad_()
    objective = K2Config(tau=tau)

    def loss() -> Tensor:
        scored = Scored(
            logits_6.log_softmax(0)[answers_T],
            *(OLD_6[answers_T], OLD_6[answers_T], torch.arange(10), advantages_R),
            torch.full((10,), 0.1, dtype=torch.float64),
        )
        return objective.loss(scored, Counts(10, 10))[0]

    optimizer = torch.optim.LBFGS(
        [logits_6], max_iter=400, line_search_fn="strong_wolfe", tolerance_change=1e-14
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    right = logits_6.detach().softmax(0)[:2].sum()
    return float(right), 2 * tau * float(loss().detach())


@pytest.mark.parametrize(
    ("tau", "exact", "by_mean", "residual"),
    [
        (3.0, 0.259, 0.258, 0.0008),
        (1.0, 0.405, 0.383, 0.0074),
        (0.3, 0.875, 0.660, 0.042),
        (0.1, 1.000, 0.908, 0.084),
    ],
)
def test_the_optimum_of_k2_is_the_tilted_policy_and_the_mean_stops_before(
    tau: float, exact: float, by_mean: float, residual: float
) -> None:
    tilted = 0.2 * math.exp(1 / tau) / (0.2 * math.exp(1 / tau) + 0.8)
    found, nothing = optimum(tau, "exact")
    assert found == pytest.approx(tilted, abs=5e-3)
    assert found == pytest.approx(exact, abs=5e-3)
    assert nothing == pytest.approx(0, abs=1e-3)
    found, rest = optimum(tau, "mean")
    assert found == pytest.approx(by_mean, abs=5e-3)
    assert rest == pytest.approx(residual, rel=0.1)


def test_baselines() -> None:
    rewards_G = np.array([1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(advantages(rewards_G, "mean", 1.0), [0.75, -0.25, -0.25, -0.25])
    np.testing.assert_allclose(advantages(rewards_G, "loo", 1.0), [1.0, -1 / 3, -1 / 3, -1 / 3])
    # As tau grows, exact becomes the mean; below it lies higher.
    np.testing.assert_allclose(
        advantages(rewards_G, "exact", 1e6), advantages(rewards_G, "mean", 1.0), atol=1e-6
    )
    for tau in (1e-4, 0.1, 1.0):  # the first overflows without care
        log_mean = 1 + tau * math.log((1 + 3 * math.exp(-1 / tau)) / 4)
        np.testing.assert_allclose(advantages(rewards_G, "exact", tau), rewards_G - log_mean)
        assert (advantages(rewards_G, "exact", tau) < advantages(rewards_G, "mean", tau)).all()
    deviation = np.array([1.0, 0, 0, 0]).std()
    np.testing.assert_allclose(
        standardised(advantages(rewards_G, "mean", 1.0), rewards_G)[0], 0.75 / deviation, rtol=1e-5
    )


def test_a_group_without_differences_teaches_nothing() -> None:
    assert is_degenerate(np.array([0.5, 0.5, 0.5]))
    assert is_degenerate(np.array([1.0]))
    assert not is_degenerate(np.array([0.5, 0.5, 0.6]))
    for baseline in BASELINES:
        found = advantages(np.array([0.5, 0.5]), baseline, 0.1)
        np.testing.assert_allclose(found, 0, atol=1e-12)
    np.testing.assert_allclose(standardised(np.zeros(3), np.ones(3)), 0)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
def test_a_batch_in_two_micro_batches_is_the_batch(objective: Any) -> None:
    scored, counts = make_scored(distance=0.3, engine=0.1)
    whole, metrics = objective.loss(scored, counts)
    parts = []
    for rollouts in ((0, 1), (2, 3)):
        rows = torch.isin(scored.rollout_T, torch.tensor(rollouts))
        part = Scored(
            *(scored.logprobs_T[rows], scored.old_logprobs_T[rows]),
            *(scored.engine_logprobs_T[rows], scored.rollout_T[rows] - rollouts[0]),
            *(scored.advantages_R[list(rollouts)], scored.weights_R[list(rollouts)]),
        )
        parts.append(objective.loss(part, counts))
    torch.testing.assert_close(sum(loss for loss, _ in parts), whole)
    for name, value in metrics.items():
        torch.testing.assert_close(sum(found[name] for _, found in parts), value)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
def test_the_gradient_is_the_loss_by_finite_differences(objective: Any) -> None:
    # Seed 3: no token within a step of a clipping bound.
    scored, counts = make_scored(seed=3, distance=0.05)

    def loss(logprobs_T: Tensor) -> Tensor:
        moved = Scored(
            *(logprobs_T, scored.old_logprobs_T, scored.engine_logprobs_T),
            *(scored.rollout_T, scored.advantages_R, scored.weights_R),
        )
        value: Tensor = objective.loss(moved, counts)[0]
        return value

    assert torch.autograd.gradcheck(loss, (scored.logprobs_T.detach().requires_grad_(),))


def test_grpo_and_dapo_at_the_old_policy_differ_in_how_tokens_count() -> None:
    scored, counts = make_scored()
    advantages_T = scored.advantages_R[scored.rollout_T]
    lengths_T = torch.tensor(LENGTHS, dtype=torch.float64)[scored.rollout_T]
    torch.testing.assert_close(
        gradient(GrpoConfig(), scored, counts), -advantages_T * 0.25 / lengths_T
    )
    torch.testing.assert_close(
        gradient(DapoConfig(), scored, counts), -advantages_T / counts.num_tokens
    )
    torch.testing.assert_close(
        gradient(GspoConfig(), scored, counts), -advantages_T * 0.25 / lengths_T
    )
    torch.testing.assert_close(
        gradient(K25Config(), scored, counts), -advantages_T / counts.num_tokens
    )


def test_clipping_holds_what_has_gone_far_enough_and_not_what_must_come_back() -> None:
    scored, counts = make_scored()
    for direction, grows in ((1.0, True), (-1.0, False)):
        moved = Scored(
            (scored.old_logprobs_T + direction).detach().requires_grad_(),
            *(scored.old_logprobs_T, scored.engine_logprobs_T, scored.rollout_T),
            *(scored.advantages_R, scored.weights_R),
        )
        is_good_T = moved.advantages_R[moved.rollout_T] > 0
        for objective in (GrpoConfig(), DapoConfig(), GspoConfig()):
            found_T = gradient(objective, moved, counts)
            assert (found_T[is_good_T] == 0).all() == grows
            assert (found_T[~is_good_T] == 0).all() != grows
        # K2.5 holds both.
        by_k25_T = gradient(K25Config(tau=1e-9), moved, counts)
        torch.testing.assert_close(by_k25_T, torch.zeros_like(by_k25_T), atol=1e-9, rtol=0)


def test_a_token_that_the_engine_thought_less_likely_weighs_more_up_to_a_bound() -> None:
    for gap, weight in ((0.0, 1.0), (-0.5, math.exp(0.5)), (-5.0, 2.0), (0.5, math.exp(-0.5))):
        scored, counts = make_scored(engine=gap)
        plain, _ = make_scored()
        for cls in (GrpoConfig, DapoConfig, GspoConfig):
            torch.testing.assert_close(
                gradient(cls(engine_ratio=2.0), scored, counts),
                weight * gradient(cls(engine_ratio=None), plain, counts),
            )
        for regression in (K2Config(), K25Config()):  # holds under any sampling distribution
            torch.testing.assert_close(
                gradient(regression, scored, counts), gradient(regression, plain, counts)
            )


def test_objectives_are_told_apart_by_their_kind() -> None:
    adapter = TypeAdapter[Any](Objective)
    for objective in OBJECTIVES:
        assert adapter.validate_python({"kind": objective.kind}) == objective
