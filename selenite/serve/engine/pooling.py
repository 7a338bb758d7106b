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
        self._sum_D = torch.zeros(())  # of the rows that are pooled
        self._num_rows = 0
        self.vector: list[float] | None = None  # of length one; None: there is more to come

    def add(self, hidden_TD: Tensor, start: int) -> None:
        """The next chunk, from position ``start`` on."""
        if start == 0 or self.pooling == "last":
            self._sum_D, self._num_rows = torch.zeros((), device=hidden_TD.device), 0
        rows_TD = hidden_TD[-1:] if self.pooling == "last" else hidden_TD
        self._sum_D = self._sum_D + rows_TD.double().sum(0)
        self._num_rows += len(rows_TD)

    def finish(self) -> None:
        """No chunk follows. Raises ``NonFiniteError`` for states that are not finite."""
        pooled_D = (self._sum_D / self._num_rows).float()
        if not pooled_D.isfinite().all():
            raise NonFiniteError(
                "the hidden states are not finite: the model's weights are broken; go back to a "
                "checkpoint from before they diverged"
            )
        self.vector = F.normalize(pooled_D, dim=0).tolist()
