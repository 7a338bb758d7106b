"""Several back ends for one role, by weight: which one takes an item follows from its number."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import Generic, TypeVar

from selenite.agent.randomness import stream
from selenite.errors import ConfigError

T = TypeVar("T")


class Mixture(Generic[T]):
    """Models, or whatever can stand in their place, with weights relative to each other.

    The choice for an item follows from ``seed``, ``role`` and the item's number: neither order nor
    threads change it. Raises ``ConfigError`` without parts, and for a weight that is not positive.
    """

    def __init__(self, parts: Sequence[tuple[float, T]], seed: int, role: str) -> None:
        weights = [weight for weight, _ in parts]
        if not weights or not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ConfigError(
                f"weights={weights}: must be positive numbers, one at least; leave out what should "
                "not be chosen"
            )
        self._backends = [backend for _, backend in parts]
        self._ends = list(itertools.accumulate(weights))
        self._path = (seed, "mixture", role)

    def of(self, item: int) -> T:
        """The back end of item number ``item``."""
        draw = stream(*self._path, item).random() * self._ends[-1]
        place = bisect.bisect_right(self._ends, draw)
        return self._backends[min(place, len(self._ends) - 1)]  # the product can round up
