"""Two small tasks that drive the loop without a language model.

``Regression`` is one module, one optimizer and dropout (so that the generators matter);
``Gan`` has two optimizers that update in turn from one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from selenite.train.task import Phase, Sample


class Regression:
    """A two-layer network fits a fixed function; micro-batches have unequal numbers of rows."""

    def __init__(
        self,
        seed: int = 0,
        sizes: Sequence[int] = (5, 3),
        width: int = 16,
        dropout: float = 0.1,
        grad_clip: float | None = 1.0,
    ) -> None:
        torch.manual_seed(seed)
        self.net = nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(dropout), nn.Linear(width, 1)
        )
        if dropout == 0:
            self.net[1] = nn.Tanh()  # rows then do not depend on their neighbours
        self.modules = {"net": self.net}
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-2)
        self.phases = (Phase("fit", optimizer, lambda step: 1 / (1 + step), grad_clip),)
        self.identity: dict[str, Any] = {"width": width}
        self.sizes = list(sizes)
        self.rows_seen = 0
        self.on_batch: Callable[[int], None] = lambda rows_seen: None

    def next_batch(self) -> list[torch.Tensor]:
        self.on_batch(self.rows_seen)
        start, total = self.rows_seen, sum(self.sizes)
        self.rows_seen += total
        rows = torch.arange(start, start + total, dtype=torch.float32)[:, None]
        x = torch.sin(rows * torch.tensor([0.7, 1.3, 2.1, 3.7]))
        return list(x.split(self.sizes))

    def loss(
        self, phase: Phase, micro_batch: torch.Tensor, batch: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        target = micro_batch.prod(dim=1, keepdim=True)
        return (self.net(micro_batch) - target).square().sum() / sum(len(x) for x in batch)

    def after_update(self, phase: Phase, step: int) -> Mapping[str, float]:
        return {"tokens": float(sum(self.sizes)), "flops": 1e3}

    def evaluate(self) -> Mapping[str, float]:
        return {"val_loss": float(sum(p.detach().square().sum() for p in self.net.parameters()))}

    def samples(self) -> Sequence[Sample]:
        return [Sample("rows", str(self.rows_seen))]

    def state_dict(self) -> dict[str, Any]:
        return {"rows_seen": self.rows_seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rows_seen = state["rows_seen"]


class Gan:
    """A generator learns a shifted normal; the critic has momentum, the generator Adam."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.generator = nn.Linear(2, 1)
        self.critic = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.modules = {"generator": self.generator, "critic": self.critic}
        critic = torch.optim.SGD(self.critic.parameters(), lr=1e-2, momentum=0.9)
        generator = torch.optim.Adam(self.generator.parameters(), lr=1e-2)
        self.phases = (
            Phase("critic", critic, lambda step: 1.0),
            Phase("generator", generator, lambda step: 0.5),
        )
        self.identity: dict[str, Any] = {}
        self.updates: list[str] = []

    def next_batch(self) -> list[torch.Tensor]:
        return [torch.randn(6, 2), torch.randn(2, 2)]

    def loss(
        self, phase: Phase, micro_batch: torch.Tensor, batch: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        fake = self.critic(self.generator(micro_batch)).sum()
        count = sum(len(x) for x in batch)
        if phase.name == "generator":
            return -fake / count
        return (fake - self.critic(micro_batch[:, :1] + 3).sum()) / count

    def after_update(self, phase: Phase, step: int) -> Mapping[str, float]:
        self.updates.append(phase.name)
        return {}

    def evaluate(self) -> Mapping[str, float]:
        return {}

    def samples(self) -> Sequence[Sample]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert not state
