"""Groups as pieces with one prompt: the loss is that of each rollout by itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.ops.logprobs import token_logprobs
from selenite.rl.batch import RolloutBatch, counts, rollout_batches, teachable
from selenite.rl.gym.environment import Check, Score
from selenite.rl.objective import K2Config, Scored
from selenite.rl.rollout import Rollout, Status
from selenite.train.inputs import to_inputs
from tests.fixtures.tiny import k2_config, tiny_model

TAU = 0.5


def make_rollout(
    task: int, number: int, reward: float, prompt: int = 40, status: Status = Status.DONE
) -> Rollout:
    """A prompt, a turn, what a tool said, and another turn."""
    rng = np.random.default_rng(100 * task + number)
    shared = np.random.default_rng(task).integers(0, 300, prompt)
    lengths = [int(n) for n in rng.integers(3, 20, 3)]
    own = rng.integers(0, 300, sum(lengths))
    sampled = np.repeat([False, True, False, True], [prompt, *lengths])
    logprobs = np.where(sampled, -rng.random(len(sampled)), np.nan).astype(np.float32)
    return Rollout(
        *("e", task, number, np.concatenate([shared, own]), sampled, logprobs, 1.0),
        *(np.where(sampled, 3, -1), status, "", Score((Check("a", max(0.0, reward)),)), reward),
        *((), {}),
    )


def make_groups(prompt: int = 40) -> list[list[Rollout]]:
    return [
        [make_rollout(task, number, float((task + number) % 3 == 0), prompt) for number in range(4)]
        for task in range(3)
    ]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model(k2_config(vocab_size=300, max_positions=512))


def loss_of_batch(model: Transformer, batch: RolloutBatch, total: object) -> Tensor:
    inputs = to_inputs(batch.packed, "cpu")
    output = model(inputs.tokens_T, inputs.context.positions_T, inputs.context)
    rows = torch.from_numpy(np.flatnonzero(batch.rollout_T >= 0))
    logprobs_T = token_logprobs(output.hidden_TD[rows], model.head_weight, inputs.targets_T[rows])
    engine_T = torch.from_numpy(batch.engine_logprobs_T)[rows]
    scored = Scored(
        *(logprobs_T, engine_T, engine_T, torch.from_numpy(batch.rollout_T)[rows]),
        *(torch.from_numpy(batch.advantages_R), torch.from_numpy(batch.weights_R)),
    )
    return K2Config(tau=TAU).loss(scored, total)[0]  # type: ignore[arg-type]


def loss_alone(model: Transformer, groups: list[list[Rollout]], num_tokens: int) -> Tensor:
    """The objective from its definition, each rollout in a pass of its own."""
    total = torch.zeros((), dtype=torch.float64)
    for rollouts in groups:
        mean = sum(rollout.reward for rollout in rollouts) / len(rollouts)
        for rollout in rollouts:
            ids_T = torch.from_numpy(rollout.token_ids_T)
            context = packed_context([len(ids_T)])
            hidden_TD = model(ids_T, context.positions_T, context).hidden_TD
            rows = torch.from_numpy(np.flatnonzero(rollout.is_sampled_T))
            logprobs_T = token_logprobs(hidden_TD[rows - 1], model.head_weight, ids_T[rows])
            rho = (logprobs_T - torch.from_numpy(rollout.engine_logprobs_T)[rows]).sum()
            residual = rollout.reward - mean - TAU * rho
            total = total + residual.square() / (2 * TAU) / (len(groups) * len(rollouts))
    return total * sum(map(len, groups)) / num_tokens


@pytest.mark.parametrize("num_tokens", [4096, 200, 90])
def test_packed_with_one_prompt_is_each_alone(model: Transformer, num_tokens: int) -> None:
    found, usage = teachable(make_groups(), K2Config(tau=TAU))
    assert usage.num_taught == usage.num_started == 12
    batches = rollout_batches(found, num_tokens)
    total = counts(found)
    assert total.num_rollouts == 12
    assert total.num_tokens == sum((batch.rollout_T >= 0).sum() for batch in batches)
    assert sum(batch.weights_R.sum() for batch in batches) == pytest.approx(1)
    parameters = list(model.parameters())
    packed = sum(loss_of_batch(model, batch, total) for batch in batches)
    alone = loss_alone(model, make_groups(), total.num_tokens)
    assert isinstance(packed, Tensor)
    assert packed.item() == pytest.approx(alone.item(), rel=1e-5)
    by_packed = torch.autograd.grad(packed, parameters, allow_unused=True)
    by_alone = torch.autograd.grad(alone, parameters, allow_unused=True)
    for a, b in zip(by_packed, by_alone, strict=True):
        if b is None:
            assert a is None
        else:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_a_prompt_is_there_once(model: Transformer) -> None:
    found, _ = teachable(make_groups(prompt=150), K2Config())
    (batch,) = rollout_batches(found, 4096)
    own = sum(len(r.token_ids_T) - 150 for group in found for r in group.rollouts)
    # The last token of the prompt predicts each rollout's first, so each has its own.
    needed = own + 3 * (149 + 4)
    assert needed <= len(batch.packed.tokens_T) < needed + 64
    # A group that finds no room is cut, and each part has the prompt.
    small = rollout_batches(found, 240)
    assert max(len(one.packed.tokens_T) for one in small) <= 256
    assert sum(len(one.advantages_R) for one in small) == 12


def test_what_others_wrote_has_no_loss(model: Transformer) -> None:
    groups = make_groups()
    found, _ = teachable(groups, K2Config())
    (batch,) = rollout_batches(found, 4096)
    rows = batch.packed.targets_T >= 0
    np.testing.assert_array_equal(rows, batch.rollout_T >= 0)
    np.testing.assert_array_equal(rows, ~np.isnan(batch.engine_logprobs_T))
    for place, rollout in enumerate(r for group in found for r in group.rollouts):
        own = batch.rollout_T == place
        np.testing.assert_array_equal(
            batch.packed.targets_T[own], rollout.token_ids_T[rollout.is_sampled_T]
        )
        np.testing.assert_array_equal(
            batch.engine_logprobs_T[own], rollout.engine_logprobs_T[rollout.is_sampled_T]
        )


def test_failures_and_groups_without_differences_are_left_out_and_counted() -> None:
    groups = make_groups()
    lost = dataclasses.replace(groups[0][1], status=Status.ENVIRONMENT, score=None)
    groups[0][1] = lost
    groups[1] = [dataclasses.replace(rollout, reward=1.0) for rollout in groups[1]]
    groups[2] = [
        dataclasses.replace(rollout, status=Status.TIMEOUT) if rollout.number else rollout
        for rollout in groups[2]
    ]
    found, usage = teachable(groups, K2Config())
    assert [len(group.rollouts) for group in found] == [3]
    assert lost.number not in [rollout.number for rollout in found[0].rollouts]
    assert found[0].advantages_R.sum() == pytest.approx(0)
    assert (usage.num_started, usage.num_failed) == (12, 4)
    assert usage.num_degenerate == 4 + 1  # the last of the third group has nobody to be compared to
    assert usage.num_taught == 3


def test_nothing_sampled_teaches_nothing(tmp_path: Path) -> None:
    rollout = make_rollout(0, 0, 1.0)
    silent = dataclasses.replace(rollout, is_sampled_T=np.zeros_like(rollout.is_sampled_T))
    found, usage = teachable([[silent, silent]], K2Config())
    assert not found
    assert usage.num_failed == 2
