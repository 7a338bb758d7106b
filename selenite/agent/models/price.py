"""What tokens cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from selenite.client.pieces import Usage
from selenite.errors import ConfigError

_MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """Per million tokens, in whatever currency. Raises ``ConfigError`` for what is no price."""

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None  # of tokens that the endpoint had cached; None: as the others

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"price.{name}={value}: must be 0 or more per million tokens; "
                    "leave it out where it is not known"
                )

    def of(self, usage: Usage) -> Decimal:
        """The cost of one reply, without rounding: sums do not depend on their order."""
        cached = min(usage.cached or 0, usage.prompt)
        cached_price = self.input if self.cached_input is None else self.cached_input
        total = (
            (usage.prompt - cached) * Decimal(str(self.input))
            + cached * Decimal(str(cached_price))
            + usage.completion * Decimal(str(self.output))
        )
        return total / _MILLION
