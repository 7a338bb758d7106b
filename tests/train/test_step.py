"""One step: accumulation, phases, clipping, and what a non-finite loss leaves untouched."""

from __future__ import annotations

import copy

import pytest
import torch
from toys import Gan, Regression

from selenite.errors import NonFiniteError
from selenite.train.step import train_step


def _weights(task: Regression) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in task.net.parameters()])


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (1,) * 8, (5, 3)])
def test_update_does_not_depend_on_the_split_into_micro_batches(sizes: tuple[int, ...]) -> None:
    whole = Regression(sizes=(8,), dropout=0)
    split = Regression(sizes=sizes, dropout=0)
    before = _weights(whole)
    for step in range(3):
        loss_whole = train_step(whole, step)["loss"]
        loss_split = train_step(split, step)["loss"]
        # float32 sums in another order: a few units in the last place of an O(1) loss
        assert loss_split == pytest.approx(loss_whole, rel=1e-5)
    change = (_weights(split) - _weights(whole)).norm() / (_weights(whole) - before).norm()
    # Adam divides by the root of the second moment, so relative rounding passes through unchanged.
    assert change < 1e-5


def test_step_equals_plain_torch() -> None:
    task = Regression(sizes=(8,), dropout=0, grad_clip=0.05)
    net = copy.deepcopy(task.net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    reference_data = Regression(sizes=(8,), dropout=0)
    for step in range(3):
        metrics = train_step(task, step)
        (x,) = reference_data.next_batch()
        optimizer.zero_grad()
        (net(x) - x.prod(1, keepdim=True)).square().mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        optimizer.step()
        assert metrics["grad_norm"] == pytest.approx(float(norm), rel=1e-6)
        assert metrics["grad_norm"] > 0.05, "the test must clip"
        assert metrics["lr"] == pytest.approx(1e-2 / (1 + step))
    for ours, theirs in zip(task.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_phases_update_their_own_parameters_in_turn() -> None:
    task = Gan()
    metrics = train_step(task, 0)
    assert task.updates == ["critic", "generator"]
    assert {"critic.loss", "generator.loss", "critic.lr", "generator.lr"} <= metrics.keys()
    assert metrics["generator.lr"] == pytest.approx(5e-3)

    # The critic's phase alone moves the critic by exactly what plain SGD does: the generator's
    # phase must not leak gradients into it, nor into the next step.
    reference = Gan()
    batch = reference.next_batch()
    loss = sum(reference.loss(reference.phases[0], x, batch) for x in batch)
    torch.as_tensor(loss).backward()
    reference.phases[0].optimizer.step()
    for ours, theirs in zip(task.critic.parameters(), reference.critic.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_non_finite_loss_names_micro_batch_and_parameters_and_updates_nothing() -> None:
    task = Regression(sizes=(3, 3, 3), dropout=0)
    train_step(task, 0)
    before = copy.deepcopy(task.net.state_dict())
    moments = copy.deepcopy(task.phases[0].optimizer.state_dict())
    task.on_batch = lambda rows_seen: None
    next_batch = task.next_batch

    def poisoned() -> list[torch.Tensor]:
        batch = next_batch()
        batch[1] = batch[1] * float("nan")
        return batch

    task.next_batch = poisoned  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match=r"step 8.*micro-batch 2 of 3 is nan.*net\.0\.weight"):
        train_step(task, 7)
    for name, value in task.net.state_dict().items():
        assert torch.equal(value, before[name]), name
    after = task.phases[0].optimizer.state_dict()
    for index, state in moments["state"].items():
        for name, value in state.items():
            assert torch.equal(value, after["state"][index][name]), name


def test_non_finite_gradient_of_finite_loss_is_caught() -> None:
    task = Regression(sizes=(4,), dropout=0)
    # sqrt has an infinite slope at zero: the loss is finite, its gradient is not.
    task.loss = lambda phase, x, batch: (
        (  # type: ignore[method-assign]
            task.net[0].weight * 0
        )
        .sum()
        .abs()
        .sqrt()
        + task.net(x).mean()
    )
    with pytest.raises(NonFiniteError, match=r"all 1 losses are finite.*net\.0\.weight"):
        train_step(task, 0)
