"""What the training loop trains: the ``Task`` protocol.

Pre-training, fine-tuning, reinforcement learning, a two-optimizer GAN and a detector are all a
task. The loop (``train/loop.py``) knows steps, time, files and signals; the task knows its
batches, its loss and what happens after an update. ``train/pretrain_task.py`` is the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

MicroBatchT = TypeVar("MicroBatchT")


@dataclass(frozen=True)
class Phase:
    """One optimizer update within a training step. Most tasks have one, a GAN two.

    Every parameter group of ``optimizer`` has a ``base_lr``; a group without one takes its
    ``lr`` at construction of the phase.
    """

    name: str
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]  # number of finished steps -> factor of every base_lr
    grad_clip: float | None = None  # largest global norm of the gradient; None: not clipped

    def __post_init__(self) -> None:
        for group in self.optimizer.param_groups:
            group.setdefault("base_lr", group["lr"])

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that this phase updates."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]


@dataclass(frozen=True)
class Sample:
    """What a model made of a prompt during training. Written by a task, read by the report."""

    prompt: str
    text: str


class Task(Protocol[MicroBatchT]):
    """A thing to train. All of its state between steps is in ``modules``, the optimizers of
    ``phases`` and ``state_dict()``; a checkpoint holds exactly those and the generators, but for
    frozen parameters (``requires_grad`` false), which must be there when the task is made."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The modules by name; parameters and buffers are saved under ``name.…``."""
        ...

    @property
    def phases(self) -> Sequence[Phase]:
        """The updates of one step, in order. Names differ."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON values that must be equal for a checkpoint to fit: dimensions, tokenizer, data, and
        what the frozen parameters are."""
        ...

    def next_batch(self) -> Sequence[MicroBatchT]:
        """The micro-batches of the next step. Advances the data; forgets the last step."""
        ...

    def loss(
        self, phase: Phase, micro_batch: MicroBatchT, batch: Sequence[MicroBatchT]
    ) -> torch.Tensor:
        """The share of one micro-batch in the loss of the whole batch, a scalar to differentiate.

        The shares of a batch add up to its loss, so they are divided by what is counted over
        ``batch`` (trained targets), never over ``micro_batch``. Parameters do not change.
        """
        ...

    def after_update(self, phase: Phase, step: int) -> Mapping[str, float]:
        """Runs after the update of ``phase`` at ``step`` (finished steps before it).

        The place of QK-Clip and router balancing. Returns metrics of the step; ``tokens`` and
        ``flops`` (model FLOPs, forward and backward) become rates in the loop.
        """
        ...

    def evaluate(self) -> Mapping[str, float]:
        """Metrics on held-out data, with names that start with ``val_``. Changes nothing."""
        ...

    def samples(self) -> Sequence[Sample]:
        """Shows what the model does now. Changes nothing, the generators included."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What else a resumed run needs (position in the data), as JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict()`` exactly."""
        ...
