"""Loss spikes: what counts as one, and how many there were.

K2's headline is a loss curve without a spike. Here a step is *spiking* when its loss exceeds the
median of the last ``window`` losses by more than ``deviations`` robust standard deviations
(1.4826 x the median absolute deviation) and by at least ``least`` nats; neighbouring spiking
steps are one spike. A loss that is not finite never gets here (``train/step.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

_NORMAL_CONSISTENCY = 1.4826  # the median absolute deviation of a unit normal is 1 / 1.4826


class SpikeMonitor:
    """Counts the spikes of one loss curve. Its state is part of a checkpoint."""

    def __init__(
        self,
        window: int = 64,
        deviations: float = 6.0,
        least: float = 0.2,
        min_history: int = 16,
    ) -> None:
        self.deviations = deviations
        self.least = least
        self.min_history = min_history  # a median of fewer losses says little: no verdict yet
        self.count = 0
        self._spiking = False
        self._losses: deque[float] = deque(maxlen=window)

    def threshold(self) -> float | None:
        """The loss above which the next step spikes; none before ``min_history`` losses."""
        if len(self._losses) < self.min_history:
            return None
        middle = median(self._losses)
        deviation = _NORMAL_CONSISTENCY * median(abs(loss - middle) for loss in self._losses)
        return middle + max(self.deviations * deviation, self.least)

    def observe(self, loss: float) -> bool:
        """Takes the loss of the next step; true when a new spike begins with it."""
        threshold = self.threshold()
        spiking = threshold is not None and loss > threshold
        begins = spiking and not self._spiking
        self.count += begins
        self._spiking = spiking
        # Spiking losses join the window too: the median is robust against a spike, and after a
        # lasting change of level it has to follow.
        self._losses.append(loss)
        return begins

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "spiking": self._spiking, "losses": list(self._losses)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]
        self._spiking = state["spiking"]
        self._losses.clear()
        self._losses.extend(state["losses"])
