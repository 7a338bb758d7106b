"""One training step: loss, backward, check, clip, schedule, update.

Gradients are accumulated over the micro-batches of a batch. Each micro-batch's loss is already a
share of the batch's (``Task.loss``), so 1 x 8 and 4 x 2 micro-batches give the same update.
Nothing is updated with a loss or gradient that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from selenite.errors import NonFiniteError
from selenite.train.task import Phase, Task

MicroBatchT = TypeVar("MicroBatchT")


def train_step(task: Task[MicroBatchT], step: int) -> dict[str, float]:
    """Runs step number ``step`` (finished steps before it) and returns its metrics.

    ``loss``, ``grad_norm`` (before clipping) and ``lr`` (the largest of the groups) of each phase
    and what the task reports; with more than one phase the names are ``{phase}.loss`` and so on.
    Raises ``NonFiniteError``.
    """
    batch = task.next_batch()
    metrics: dict[str, float] = {}
    for phase in task.phases:
        lr = _set_lr(phase, step)
        phase.optimizer.zero_grad(set_to_none=True)
        losses = _backward(task, phase, batch)
        grad_norm = _global_norm(phase)
        _check_finite(task, phase, losses, grad_norm, step)
        if phase.grad_clip is not None:
            clip_grads_with_norm_(phase.parameters(), phase.grad_clip, torch.tensor(grad_norm))
        phase.optimizer.step()
        report = {"loss": sum(losses), "grad_norm": grad_norm, "lr": lr}
        report.update(task.after_update(phase, step))
        prefix = f"{phase.name}." if len(task.phases) > 1 else ""
        metrics.update((prefix + name, value) for name, value in report.items())
    return metrics


def _set_lr(phase: Phase, step: int) -> float:
    factor = phase.schedule(step)
    for group in phase.optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return max(group["lr"] for group in phase.optimizer.param_groups)


def _backward(task: Task[MicroBatchT], phase: Phase, batch: Sequence[MicroBatchT]) -> list[float]:
    """Adds the gradients of all micro-batches; returns their shares of the loss."""
    losses = []
    for micro_batch in batch:
        loss = task.loss(phase, micro_batch, batch)
        loss.backward()
        losses.append(loss.detach())
    # One transfer for all micro-batches: an accelerator is waited for once.
    return torch.stack(losses).tolist()


def _global_norm(phase: Phase) -> float:
    grads = [p.grad for p in phase.parameters() if p.grad is not None]
    assert grads, f"no parameter of phase {phase.name!r} got a gradient"
    return float(get_total_norm(grads))


def _check_finite(
    task: Task[MicroBatchT], phase: Phase, losses: list[float], grad_norm: float, step: int
) -> None:
    if math.isfinite(grad_norm) and all(map(math.isfinite, losses)):
        return
    bad = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
    where = (
        f"the loss of micro-batch {bad[0] + 1} of {len(losses)} is {losses[bad[0]]}"
        if bad
        else f"all {len(losses)} losses are finite, but the gradient is not"
    )
    names = _non_finite_gradients(task.modules, set(map(id, phase.parameters())))
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise NonFiniteError(
        f"step {step + 1}, phase {phase.name!r}: {where}; "
        f"parameters with a non-finite gradient: {shown or 'none'}. The update was not made. "
        "Lower the learning rate, or train with float32 compute"
    )


def _non_finite_gradients(modules: Mapping[str, nn.Module], wanted: set[int]) -> list[str]:
    return [
        f"{module_name}.{name}"
        for module_name, module in modules.items()
        for name, parameter in module.named_parameters()
        if id(parameter) in wanted
        and parameter.grad is not None
        and not parameter.grad.isfinite().all()
    ]
