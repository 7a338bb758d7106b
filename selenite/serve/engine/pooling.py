"""One vector for a text: hidden states of the last layer, pooled while its chunks are computed.

Letters: ``T`` rows of a chunk, ``D`` model width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from selenite.errors import NonFiniteError

Pooling = Literal["last", "mean"]


class Pooler:
    """Takes the chunks of one text in order; begun again with each chunk at position 0."""

    def __init__(self, pooling: Pooling) -> None:
        self.pooling: Pooling = pooling
        self._last_D = torch.empty(0)
        self._sum_D = torch.zeros(())
        self._num_rows = 0
        self.vector: list[float] | None = None  # of length one; None: there is more to come

    def add(self, hidden_TD: Tensor, start: int) -> None:
        """The next chunk, from position ``start`` on."""
        if start == 0:
            self._sum_D, self._num_rows = torch.zeros((), device=hidden_TD.device), 0
        self._last_D = hidden_TD[-1].float()
        self._sum_D = self._sum_D + hidden_TD.double().sum(0)
        self._num_rows += len(hidden_TD)

    def finish(self) -> None:
        """No chunk follows. Raises ``NonFiniteError`` for states that are not finite."""
        mean_D = (self._sum_D / self._num_rows).float()
        pooled_D = self._last_D if self.pooling == "last" else mean_D
        if not pooled_D.isfinite().all():
            raise NonFiniteError(
                "the hidden states are not finite: the model's weights are broken; go back to a "
                "checkpoint from before they diverged"
            )
        self.vector = F.normalize(pooled_D, dim=0).tolist()
