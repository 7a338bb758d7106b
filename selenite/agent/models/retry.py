"""When the same request is sent again, and after what pause."""

from __future__ import annotations

import math
from dataclasses import dataclass

from selenite.agent.models.failure import RETRIED, Fault
from selenite.agent.randomness import stream
from selenite.errors import ConfigError


@dataclass(frozen=True)
class RetryPolicy:
    """Pauses double from ``first_pause`` seconds; each is shortened by up to a half, so that
    requests that failed together do not come back together. Raises ``ConfigError``."""

    retries: int = 5  # further tries of one request
    first_pause: float = 1.0  # seconds
    longest_pause: float = 120.0  # seconds; an endpoint that asks for more is not asked again

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ConfigError(f"retries={self.retries}: must be 0 (one try) or more")
        if not 0 <= self.first_pause <= self.longest_pause < math.inf:
            raise ConfigError(
                f"first_pause={self.first_pause}, longest_pause={self.longest_pause}: must be "
                "seconds, 0 or more, and the first not above the longest"
            )

    def pause(self, fault: Fault, retry: int, key: str) -> float | None:
        """Seconds until the next try; None: there is none.

        ``retry`` counts those before. ``key`` names the request: its pauses are always the same.
        """
        if fault.reason not in RETRIED or retry >= self.retries:
            return None
        if fault.retry_after is not None:
            return fault.retry_after if fault.retry_after <= self.longest_pause else None
        doubled = self.first_pause * 2.0 ** min(retry, 60)
        share = stream(0, "pause", key, retry).uniform(0.5, 1.0)
        return min(doubled, self.longest_pause) * share
